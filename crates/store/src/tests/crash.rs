//! Stopping at the worst moments, locking, versions.

use super::*;
use crate::blobs::LocalBlobs;

#[tokio::test]
async fn a_crash_leaves_nothing_or_a_whole_cache() {
    let f = Fixture::new().await;
    let id = f.submit(vec![simple(&[1]), simple(&[2]), simple(&[3])]).await;
    let (whole, caches) = f.pack(id, vec![(0, simple(&[1]))]);
    f.complete(whole).await;
    // one pack half written, one finished and not yet in the index
    let half = f.store.begin_pack(header(id, vec![(1, simple(&[2]))])).unwrap();
    let (unknown, _) = f.pack(id, vec![(2, simple(&[3]))]);
    f.store.claim(&[(id, 1), (id, 2)]).await.unwrap();
    assert_eq!(f.files().len(), 3);

    let after = f.after_crash().await;
    assert_eq!(after.files().len(), 1);
    let pending = after.store.pending().await.unwrap();
    assert_eq!((pending[0].id, pending[0].items.as_slice()), (id, [1, 2].as_slice()));
    assert_eq!((pending[0].tenant, pending[0].model.as_str(), pending[0].reuse), (T, "tiny", true));
    let run = after.run(id).await;
    assert_eq!((run.status, run.n_done, run.caches), (RunStatus::Running, 1, caches));
    assert!(after.store.verify().await.unwrap().is_clean());
    let (again, _) = after.pack(id, vec![(1, simple(&[2])), (2, simple(&[3]))]);
    assert_eq!(after.complete(again).await, [id]);

    drop(half);
    f.complete(unknown).await;
    assert_eq!(f.files().len(), 2);
}

#[tokio::test]
async fn an_item_in_work_at_three_crashes_is_failed() {
    let f = Fixture::new().await;
    let poison = f.submit(vec![simple(&[1])]).await;
    let mixed = f.submit(vec![simple(&[1]), simple(&[2])]).await;
    for _ in 0..2 {
        f.store.claim(&[(poison, 0), (mixed, 1), (mixed, 0)]).await.unwrap();
    }
    let after = f.after_crash().await;
    assert_eq!(after.store.pending().await.unwrap().len(), 2);
    after.store.claim(&[(poison, 0), (mixed, 1)]).await.unwrap();
    let after = after.after_crash().await;
    let pending = after.store.pending().await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].id, pending[0].items.as_slice()), (mixed, [0].as_slice()));
    let run = after.run(poison).await;
    assert_eq!((run.status, run.n_failed), (RunStatus::Failed, 1));
    assert_eq!(run.error.unwrap().code, Code::WorkerFailed);
    assert_eq!(after.run(mixed).await.n_failed, 1);
    assert_eq!(after.store.pending().await.unwrap(), pending, "asking again changes nothing");
    let (pack, _) = after.pack(mixed, vec![(0, simple(&[1]))]);
    assert_eq!(after.complete(pack).await, [mixed]);
    assert_eq!(after.run(mixed).await.status, RunStatus::Failed);
}

#[tokio::test]
async fn one_store_has_the_folder_and_others_may_read() {
    let f = Fixture::new().await;
    let second = Store::open(f.dir.path()).await.map(drop);
    assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
    assert!(second.unwrap_err().to_string().contains("in use"));

    let reader = Store::open_read_only(f.dir.path()).await.unwrap();
    let (run, ids) = f.stored(vec![simple(&[1])]).await;
    let stored = reader.stored(T, &ids).await.unwrap().remove(0).unwrap();
    let bytes = stored.read(&reader, 0, 0..4).await.unwrap();
    assert_eq!(Dtype::Float32.decode(&bytes), (0..4).map(|e| value(0, e)).collect::<Vec<_>>());
    assert!(reader.verify().await.unwrap().is_clean());
    let refused = reader.delete_run(T, run).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    let refused = reader.begin_pack(header(run, vec![(0, simple(&[1]))])).map(drop);
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    assert!(matches!(reader.probe().await, Err(StoreError::Closed)), "it takes no changes");

    // closing frees the folder, and refuses what comes after
    let clone = f.store.clone();
    f.store.close().await;
    assert!(clone.probe().await.is_err());
    let refused = clone.insert_run(super::run(vec![simple(&[1])])).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    drop(clone);
    reader.close().await;
    let again = Store::open(f.dir.path()).await.unwrap();
    assert!(again.run(T, run).await.unwrap().is_some());
    again.close().await;
    let alone = Store::open_read_only(f.dir.path()).await.unwrap();
    assert_eq!(alone.stored(T, &ids).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_folder_stays_locked_without_its_lock_file() {
    let f = Fixture::new().await;
    fs::remove_file(f.dir.path().join("lock")).unwrap();
    for _ in 0..2 {
        let second = Store::open(f.dir.path()).await.map(drop);
        assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
    }
    assert!(LocalBlobs::open_read_only(f.dir.path()).has_writer());
    // an earlier version knows the file only
    f.store.clone().close().await;
    let Fixture { dir, store } = f;
    drop(store);
    let lock = fs::File::create(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let second = Store::open(dir.path()).await.map(drop);
    assert!(matches!(second, Err(StoreError::Locked)), "{second:?}");
    drop(lock);
    Store::open(dir.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn an_index_of_another_version_is_refused() {
    let f = Fixture::new().await;
    let path = f.dir.path().to_owned();
    f.store.close().await;
    let options = SqliteConnectOptions::new().filename(path.join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    let forge = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(forge).execute(&mut conn).await.unwrap();
    for opened in [Store::open(&path).await, Store::open_read_only(&path).await] {
        assert!(matches!(opened.map(drop), Err(StoreError::Newer { found: 9999, .. })));
    }
    sqlx::query("DELETE FROM _sqlx_migrations").execute(&mut conn).await.unwrap();
    let opened = Store::open_read_only(&path).await.map(drop);
    assert!(matches!(opened, Err(StoreError::Older { found: 0, .. })), "{opened:?}");
}

#[tokio::test]
async fn a_full_database_is_told_apart_and_nothing_leaks_to_clients() {
    let mut conn = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
    sqlx::query("CREATE TABLE t (b BLOB)").execute(&mut conn).await.unwrap();
    sqlx::query("PRAGMA max_page_count = 3").execute(&mut conn).await.unwrap();
    let full = sqlx::query("INSERT INTO t VALUES (zeroblob(100000))").execute(&mut conn).await.unwrap_err();
    let full = StoreError::from(full);
    assert!(matches!(full, StoreError::Full), "{full:?}");
    let wrong = sqlx::query("SELECT * FROM secret_table").execute(&mut conn).await.unwrap_err();
    let missing = StoreError::io("opening /secret/path")(std::io::Error::from_raw_os_error(libc::ENOENT));
    let quota = StoreError::io("writing")(std::io::Error::from_raw_os_error(libc::EDQUOT));
    let disk = StoreError::io("writing")(std::io::Error::from_raw_os_error(libc::ENOSPC));
    for (error, code) in [
        (full, Code::StoreFull),
        (quota, Code::StoreFull),
        (disk, Code::StoreFull),
        (StoreError::damaged("pack secret"), Code::BlobDamaged),
        (StoreError::Gone, Code::CacheNotFound),
        (StoreError::Closed, Code::Unavailable),
        (missing, Code::Internal),
        (wrong.into(), Code::Internal),
    ] {
        let problem = Problem::from(error);
        assert_eq!(problem.code, code);
        assert!(!problem.detail.contains("secret"), "{problem}");
    }
}
