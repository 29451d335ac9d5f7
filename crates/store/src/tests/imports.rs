//! Activations made elsewhere.

use super::*;
use residuum_domain::{import::TensorSource, tensor_file::FileDtype};

/// An import of one row of `n` doubles behind three bytes of something else.
async fn import(f: &Fixture, n: usize, key: Option<(&str, u8)>) -> (NewImport, Spool) {
    let mut spool = f.store.spool().await.unwrap();
    let doubles: Vec<u8> = (0..n).flat_map(|i| (i as f64 * 0.5).to_le_bytes()).collect();
    spool.append(&[1, 2, 3]).unwrap();
    spool.append(&doubles).unwrap();
    let mut item = item(&[7, 8], capture(&[RESID], Positions::Last, Dtype::Float16));
    item.origin = Some(ImportOrigin {
        file_hash: "h".to_owned(),
        file_bytes: 3 + doubles.len() as u64,
        file_dtypes: vec!["F64".to_owned()],
        metadata: object(serde_json::json!({"k": "v"})),
    });
    let data = 3..3 + doubles.len() as u64;
    let import = NewImport {
        tenant: T,
        model: "elsewhere".to_owned(),
        n_layers: 1,
        d_model: n,
        provenance: provenance(),
        item,
        sources: vec![TensorSource { data, dtype: FileDtype::Float64, row_shape: vec![n] }],
        idempotency: key.map(|(key, hash)| (key.to_owned(), [hash; 32])),
    };
    (import, spool)
}

async fn imported(f: &Fixture, n: usize, key: Option<(&str, u8)>) -> Result<Imported, StoreError> {
    let (import, spool) = import(f, n, key).await;
    f.store.import(import, spool).await
}

#[tokio::test]
async fn it_is_a_pack_like_any_other() {
    let f = Fixture::keeping(Duration::ZERO).await;
    // more than is converted at a time
    let n = (1 << 19) + 5;
    let Imported::Created(id) = imported(&f, n, None).await.unwrap() else { panic!("not created") };
    assert_eq!(f.files().len(), 1, "what was received is gone");
    let stored = f.store.stored(T, &[id]).await.unwrap().remove(0).unwrap();
    let bytes = stored.read(&f.store, 0, 0..n).await.unwrap();
    let values = Dtype::Float16.decode(&bytes);
    assert_eq!((values[1], values[1000], values[n - 1]), (0.5, 500.0, f32::INFINITY));
    assert_eq!(stored.cache.stats.n_inf, (n - 131_040) as u64, "what float16 cannot hold is counted");
    let (import, _) = import(&f, n, None).await;
    assert_eq!((&stored.cache.origin, &stored.cache.tags), (&import.item.origin, &import.item.tags));
    assert!(f.store.verify().await.unwrap().is_clean());
    let run = f.run(stored.cache.run).await;
    assert_eq!((run.status, run.n_items, run.n_done, run.imported), (RunStatus::Completed, 1, 1, true));
    assert!(f.after_crash().await.store.pending().await.unwrap().is_empty());
    let wanted = Wanted { forward_key: key(&import.item), capture: stored.cache.capture.clone(), n_tokens: 2 };
    assert!(f.store.find_reusable(T, &[wanted]).await.unwrap()[0].is_none());
    f.store.delete_cache(T, id).await.unwrap();
    assert_eq!(f.files().len(), 0);
}

#[tokio::test]
async fn an_index_that_refuses_it_leaves_no_file() {
    let f = Fixture::new().await;
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    sqlx::query("CREATE TRIGGER no BEFORE INSERT ON caches BEGIN SELECT RAISE(ABORT, 'no'); END")
        .execute(&mut conn)
        .await
        .unwrap();
    let refused = imported(&f, 10, Some(("k", 1))).await;
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert_eq!(f.files().len(), 0);
    sqlx::query("DROP TRIGGER no").execute(&mut conn).await.unwrap();
    assert!(matches!(imported(&f, 10, Some(("k", 1))).await, Ok(Imported::Created(_))), "the key is free");
    assert_eq!(f.files().len(), 1);
}

#[tokio::test]
async fn a_key_makes_one_cache_whoever_comes_first() {
    let f = Fixture::new().await;
    let (a, b) = tokio::join!(imported(&f, 10, Some(("k", 1))), imported(&f, 10, Some(("k", 1))));
    let (Imported::Created(id) | Imported::Replayed(id)) = a.unwrap() else { panic!("no cache") };
    let (Imported::Created(same) | Imported::Replayed(same)) = b.unwrap() else { panic!("no cache") };
    assert_eq!(id, same);
    assert_eq!(f.files().len(), 1);
    assert_eq!(imported(&f, 10, Some(("k", 2))).await.unwrap(), Imported::KeyConflict);
    f.store.delete_cache(T, id).await.unwrap();
    assert_eq!(imported(&f, 10, Some(("k", 1))).await.unwrap(), Imported::Gone);
    assert_eq!(f.files().len(), 0);
}
