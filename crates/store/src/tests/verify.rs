//! Finding damage, and collecting garbage.

use super::{waiting::Probing, *};
use crate::index::readers::READERS;

async fn issues(store: &Store) -> Vec<String> {
    let report = store.verify().await.unwrap();
    assert_eq!(report.is_clean(), report.issues.is_empty());
    report.issues.into_iter().map(|i| i.detail).collect()
}

#[tokio::test]
async fn damage_is_found_and_named() {
    let f = Fixture::new().await;
    let with = |t: &[u32]| item(t, capture(&[PATTERN, RESID], Positions::All, Dtype::Float16));
    let items = vec![with(&[1, 2]), with(&[3, 4, 5])];
    let run = f.submit(items.clone()).await;
    let (pack, ids) = f.pack(run, (0..).zip(items).collect());
    f.complete(pack).await;
    let report = f.store.verify().await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.n_packs, report.n_extents), (1, 2));
    let path = f.files().remove(0);
    let good = fs::read(&path).unwrap();
    assert_eq!(report.n_bytes, good.len() as u64);

    // the last byte belongs to the second item alone
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(issues(&f.store).await, ["the bytes of row 2 have changed"]);

    let at = good.windows(6).position(|w| w == b"[1,2],").unwrap();
    let mut bytes = good.clone();
    bytes.splice(at..at + 6, *b"[1]  ,");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(issues(&f.store).await, ["the header and the index differ about row 0"]);

    let mut bytes = good.clone();
    bytes[8] = b'!';
    fs::write(&path, &bytes).unwrap();
    assert_eq!(issues(&f.store).await.len(), 1);
    fs::write(&path, [255; 8]).unwrap();
    assert_eq!(issues(&f.store).await.len(), 3, "size, header and rows");

    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let found = issues(&f.store).await;
    assert_eq!(found.len(), 2, "{found:?}");
    let stored = f.store.stored(T, &ids).await.unwrap().remove(1).unwrap();
    let short = stored.read(&f.store, 1, 0..stored.elements(1)).await;
    assert!(matches!(short, Err(StoreError::Damaged { .. })), "{short:?}");

    fs::remove_file(&path).unwrap();
    assert!(issues(&f.store).await[0].ends_with("is missing"));
    let missing = stored.read(&f.store, 0, 0..1).await;
    assert!(matches!(missing, Err(StoreError::Damaged { .. })), "{missing:?}");

    fs::write(&path, &good).unwrap();
    assert!(issues(&f.store).await.is_empty());
}

#[tokio::test]
async fn rows_that_cannot_be_are_damage_and_name_their_column() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored(vec![simple(&[1])]).await;
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    sqlx::query("UPDATE caches SET bos = '{}'").execute(&mut conn).await.unwrap();
    let error = f.store.cache(T, ids[0]).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("table caches, column bos"), "{error}");
}

#[tokio::test]
async fn gc_removes_what_nobody_uses_and_leaves_what_is_being_written() {
    let f = Fixture::new().await;
    let (run, _) = f.stored(vec![simple(&[1])]).await;
    let id = PackId::generate();
    let folder = f.dir.path().join("blobs").join(format!("{:02x}", id.as_bytes()[15]));
    let orphan = folder.join(format!("{id}.safetensors"));
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, [0; 10]).unwrap();
    let found = issues(&f.store).await;
    assert!(found.len() == 1 && found[0].contains("no whole blob"), "{found:?}");
    let reader = Store::open_read_only(f.dir.path()).await.unwrap();
    assert!(issues(&reader).await.is_empty(), "another process may be about to complete it");
    let next = f.submit(vec![simple(&[2])]).await;
    let writing = f.store.begin_pack(header(next, vec![(0, simple(&[2]))])).unwrap();
    let (finished, _) = f.pack(next, vec![(0, simple(&[2]))]);
    assert_eq!(issues(&f.store).await.len(), 1, "packs in flight are no orphans");
    let report = f.store.gc().await.unwrap();
    assert_eq!((report.n_orphans, report.n_packs, report.n_extents, report.n_set_aside), (0, 0, 0, 1));
    assert!(!orphan.exists());
    assert_eq!(fs::read(f.dir.path().join("damaged").join(orphan.file_name().unwrap())).unwrap(), [0; 10]);
    assert_eq!(f.files().len(), 3);
    drop(writing);
    f.complete(finished).await;
    assert!(f.store.verify().await.unwrap().is_clean());

    // an abandoned pack is an orphan
    let last = f.submit(vec![simple(&[3])]).await;
    drop(f.pack(last, vec![(0, simple(&[3]))]));
    assert_eq!(f.store.gc().await.unwrap().n_orphans, 1);
    f.store.delete_run(T, run).await.unwrap();
    f.store.delete_run(T, next).await.unwrap();
    assert_eq!(f.files().len(), 0);

    // rows left without caches, which the store itself does not do
    f.stored(vec![item(&[4], capture(&[QUERY], Positions::Last, Dtype::Float32))]).await;
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    sqlx::query("DELETE FROM caches").execute(&mut conn).await.unwrap();
    let report = f.store.gc().await.unwrap();
    assert_eq!((report.n_orphans, report.n_packs, report.n_extents), (0, 1, 1));
    assert_eq!(f.files().len(), 0);
    let left: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM layouts) + (SELECT count(*) FROM provenances)")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(left, 0);
    // the last run still waits with its hooks
    assert_eq!(f.store.items(last, &[0]).await.unwrap().len(), 1);
    f.stored(vec![simple(&[5])]).await;
    assert!(f.store.verify().await.unwrap().is_clean());

    // with no server there, a reader tells of unknown files too
    fs::write(&orphan, [0; 10]).unwrap();
    f.store.close().await;
    assert_eq!(issues(&reader).await.len(), 1);
}

#[tokio::test]
async fn what_a_connection_remembers_of_the_index_of_words_is_no_damage() {
    let f = Fixture::new().await;
    // on every connection there is
    let check = async || {
        for wrong in futures::future::join_all((0..READERS).map(|_| f.store.index().integrity())).await {
            assert_eq!(wrong.unwrap(), Vec::<String>::new());
        }
    };
    for round in 0..3 {
        f.stored((0..40).map(|t| simple(&[round, t])).collect()).await;
        check().await;
    }
    let (run, _) = f.stored(vec![simple(&[9])]).await;
    f.store.write(Probing("INSERT INTO cache_terms (cache_terms) VALUES ('optimize')")).await.unwrap();
    f.store.delete_run(T, run).await.unwrap();
    check().await;
}

#[tokio::test]
async fn an_index_of_words_that_cannot_be_read_is_a_finding_and_the_rest_is_checked() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1])]).await;
    let file = f.files().pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    // where the structure of the index of words is
    sqlx::query("DELETE FROM cache_terms_data WHERE id = 10").execute(&mut conn).await.unwrap();
    let found = issues(&f.store).await;
    assert!(found.iter().any(|issue| issue.contains("fts5")), "{found:?}");
    assert!(found.iter().any(|issue| !issue.contains("fts5")), "the blob is checked too: {found:?}");
}
