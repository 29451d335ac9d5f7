//! An index that is damaged itself: it is recovered as far as SQLite can, or refused, and nothing is thrown away.

use super::*;

/// The folder as a process that is killed now leaves it, with the log of the index changed.
fn killed(f: &Fixture, change: impl FnOnce(&mut Vec<u8>)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(f.dir.path(), dir.path());
    let wal = dir.path().join("index.sqlite-wal");
    let mut bytes = fs::read(&wal).unwrap();
    change(&mut bytes);
    fs::write(wal, bytes).unwrap();
    dir
}

#[tokio::test]
async fn behind_a_damaged_log_the_store_starts_with_what_is_left() {
    let f = Fixture::new().await;
    let mut lengths = Vec::new();
    let wal = f.dir.path().join("index.sqlite-wal");
    let mut ids = Vec::new();
    for t in 0..6 {
        ids.extend(f.stored(vec![simple(&[t])]).await.1);
        lengths.push(fs::metadata(&wal).unwrap().len() as usize);
    }
    let before = everything(&f.store, T).await;
    for (n, length) in lengths[..5].iter().enumerate() {
        // a byte in the frames of what was stored next
        let dir = killed(&f, |bytes| bytes[*length + 100] ^= 0x55);
        let store = Store::open(dir.path()).await.unwrap();
        let after = everything(&store, T).await;
        assert_eq!(after.keys().collect::<Vec<_>>(), ids[..=n].iter().collect::<Vec<_>>());
        assert!(after.iter().all(|(id, cache)| before[id] == *cache));
        assert!(store.verify().await.unwrap().is_clean());
        // blobs that the index has forgotten are not thrown away
        let aside = fs::read_dir(dir.path().join("unknown")).unwrap().count();
        assert_eq!(aside, 5 - n);
        // and bring their caches
        store.close().await;
        Store::rebuild_index(dir.path()).await.unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!(everything(&store, T).await.len(), 6);
    }
    // a log that is cut off, as by a kill, is no damage; but what it lost is kept
    let dir = killed(&f, |bytes| bytes.truncate(lengths[3] + 1000));
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(everything(&store, T).await.len(), 4);
    assert!(!dir.path().join("damaged").exists());
    assert_eq!((files(dir.path()).len(), store.n_unknown_blobs()), (4, 2));
}

#[tokio::test]
async fn an_index_that_sqlite_cannot_read_is_refused_with_what_helps() {
    let f = Fixture::new().await;
    f.stored((0..40).map(|t| simple(&[t])).collect()).await;
    let before: Vec<CacheId> = everything(&f.store, T).await.into_keys().collect();
    let Fixture { dir, store } = f;
    store.close().await;
    let index = dir.path().join("index.sqlite");
    let good = fs::read(&index).unwrap();
    let mut torn = good.clone();
    for page in torn.chunks_mut(4096).skip(1) {
        page[..64].fill(0xa5);
    }
    for bytes in [b"this is no database, and never was one".repeat(200), torn] {
        fs::write(&index, &bytes).unwrap();
        let refused = Store::open(dir.path()).await.map(drop);
        let Err(StoreError::IndexDamaged(_)) = refused else { panic!("{refused:?}") };
        assert!(refused.unwrap_err().to_string().contains("--rebuild-index"));
        assert_eq!(files(dir.path()).len(), 40, "no blob was touched");
    }
    let report = Store::rebuild_index(dir.path()).await.unwrap();
    assert_eq!(report.n_caches, 40);
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(everything(&store, T).await.into_keys().collect::<Vec<_>>(), before);
}
