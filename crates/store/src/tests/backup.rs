//! A copy made while the store is in use is whole, and of one moment.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{super::fault::Action, *};

#[tokio::test]
async fn a_backup_is_a_store_of_its_own() {
    for link in [true, false] {
        let f = Fixture::new().await;
        f.varied(Dtype::Float32).await;
        let queued = f.submit(vec![simple(&[1])]).await;
        let before = everything(&f.store, T).await;
        let copies = tempfile::tempdir().unwrap();
        let target = copies.path().join("deep/copy");
        let reader = Store::open_read_only(f.dir.path()).await.unwrap();
        let report = reader.backup(&target, link).await.unwrap();
        assert!(report.verified.is_clean(), "{report}");
        assert_eq!((report.n_packs, report.n_rounds), (7, 1));
        let again = reader.backup(&target, link).await;
        assert!(matches!(again, Err(StoreError::NotEmpty)), "{again:?}");
        // what happens to the one does not happen to the other
        f.store.merge(&Compaction::thorough()).await.unwrap();
        for cache in f.store.caches(T, &CacheFilter::default(), None, 100).await.unwrap() {
            f.store.delete_cache(T, cache.id).await.unwrap();
        }
        let copy = Store::open(&target).await.unwrap();
        assert_eq!(everything(&copy, T).await, before);
        assert_eq!(copy.pending().await.unwrap()[0].id, queued);
        let copy = Fixture { store: copy, dir: copies };
        copy.store.merge(&Compaction::thorough()).await.unwrap();
        assert_eq!(everything(&copy.store, T).await, before);
        assert!(f.store.verify().await.unwrap().is_clean());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_consistent() {
    let f = Arc::new(Fixture::new().await);
    let (_, kept) = f.stored((0..5).map(|t| simple(&[t])).collect()).await;
    let before = everything(&f.store, T).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (f, stop) = (Arc::clone(&f), Arc::clone(&stop));
        async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let (run, _) = f.stored((0..4).map(|t| simple(&[100 + t, n])).collect()).await;
                if n % 3 > 0 {
                    f.store.delete_run(T, run).await.unwrap();
                }
                f.store.merge(&Compaction { fan_in: 3, ..Compaction::thorough() }).await.unwrap();
            }
        }
    });
    let mut rounds = 0;
    for _ in 0..6 {
        let copies = tempfile::tempdir().unwrap();
        let target = copies.path().join("copy");
        let reader = Store::open_read_only(f.dir.path()).await.unwrap();
        let report = reader.backup(&target, true).await.unwrap();
        assert!(report.verified.is_clean(), "{report}");
        rounds += report.n_rounds;
        let store = Store::open(&target).await.unwrap();
        let stats = store.stats().await.unwrap();
        assert_eq!(stats.n_packs as usize, files(&target).len(), "no copy without a row");
        let copied = everything(&store, T).await;
        assert!(kept.iter().all(|id| copied[id] == before[id]));
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert!(rounds >= 6);
    assert!(f.store.verify().await.unwrap().is_clean());
}

/// What is stored, merged and deleted between the steps is in the copy as it was at one moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blobs_that_come_and_go_during_a_backup_are_in_it() {
    for rounds in [1, 2] {
        let f = Arc::new(Fixture::new().await);
        let (_, kept) = f.stored((0..4).map(|t| simple(&[t])).collect()).await;
        f.store.merge(&Compaction::thorough()).await.unwrap();
        let (_, more) = f.stored((10..13).map(|t| simple(&[t])).collect()).await;
        let before = everything(&f.store, T).await;
        let reader = Store::open_read_only(f.dir.path()).await.unwrap();
        let handle = tokio::runtime::Handle::current();
        let merge = {
            let (f, handle) = (Arc::clone(&f), handle.clone());
            let merge = async move { f.store.merge(&Compaction::thorough()).await.map(drop).unwrap() };
            Action::Look(Box::new(move || tokio::task::block_in_place(|| handle.block_on(merge))))
        };
        let (own, armed, gone) = (Arc::clone(&f), reader.clone(), more[0]);
        let change = async move {
            own.stored(vec![simple(&[20])]).await;
            assert!(own.store.delete_cache(T, gone).await.unwrap());
            own.store.merge(&Compaction::thorough()).await.unwrap();
            // a pack that the index's copy will know
            own.stored(vec![simple(&[21])]).await;
            if rounds == 2 {
                // and that is gone when its turn comes
                armed.blobs().faults.arm("backup.indexed", 0, merge);
            }
        };
        let look = Action::Look(Box::new(move || tokio::task::block_in_place(|| handle.block_on(change))));
        reader.blobs().faults.arm("backup.copied", 0, look);
        let copies = tempfile::tempdir().unwrap();
        let target = copies.path().join("copy");
        let report = reader.backup(&target, true).await.unwrap();
        assert!(reader.blobs().faults.is_spent());
        assert!(report.verified.is_clean(), "{report}");
        assert_eq!(report.n_rounds, rounds);
        let store = Store::open(&target).await.unwrap();
        let copied = everything(&store, T).await;
        assert_eq!(copied, everything(&f.store, T).await);
        assert!(kept.iter().all(|id| copied[id] == before[id]));
        assert_eq!((copied.len(), copied.contains_key(&more[0])), (8, false));
        assert_eq!(store.stats().await.unwrap().n_packs as usize, files(&target).len());
    }
}

#[tokio::test]
async fn a_backup_that_was_broken_off_is_no_store() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1])]).await;
    let target = tempfile::tempdir().unwrap();
    copy(&f.dir.path().join("blobs"), &{
        let blobs = target.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        blobs
    });
    fs::write(target.path().join("index.sqlite.unfinished"), "").unwrap();
    let refused = Store::open(target.path()).await.map(drop);
    assert!(matches!(refused, Err(StoreError::IndexLost)), "{refused:?}");
}

#[tokio::test]
async fn a_store_that_lacks_a_blob_cannot_be_copied() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1]), simple(&[2])]).await;
    fs::remove_file(&f.files()[0]).unwrap();
    let target = tempfile::tempdir().unwrap();
    let refused = f.store.backup(target.path(), true).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
    assert!(!target.path().join("index.sqlite").exists());
}
