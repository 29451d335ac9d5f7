//! Deleting while others read: what is deleted is gone, and is not damaged.

use std::time::{Duration, Instant};

use super::*;
use crate::upkeep::compaction::{rewrite::Rewritten, throttle::Throttle};

const KEEP: KeepDeleted = KeepDeleted { time: Duration::from_secs(10), max_bytes: 1 << 30 };

#[tokio::test]
async fn files_of_deleted_caches_stay_while_they_are_read() {
    let f = Fixture::new().await;
    let (run, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let plan = f.store.scan_plan(T, &CacheFilter::default(), RESID.parse().unwrap(), &Take::One(None)).await.unwrap();
    let held = f.store.stored(T, &ids).await.unwrap();
    let now = everything(&f.store, T).await;
    f.store.delete_cache(T, ids[0]).await.unwrap();
    f.store.delete_run(T, run).await.unwrap();
    assert_eq!(f.store.stored(T, &ids).await.unwrap().into_iter().flatten().count(), 0, "nobody else is told of them");
    for (stored, id) in held.iter().flatten().zip(&ids) {
        assert_eq!(stored.read_blocking(&f.store, 0, 0..4).unwrap(), now[id].1[0]);
    }
    let report = plan.read_blocking(&f.store, 0, |_, _| {});
    assert_eq!((report.n_rows, report.unread.len(), report.deleted.len()), (2, 0, 0));
    // they are neither garbage nor unknown
    assert_eq!(f.files().len(), 2);
    assert_eq!(f.store.gc().await.unwrap().n_orphans, 0);
    assert!(f.store.verify().await.unwrap().is_clean());
    drop(held);
    assert_eq!(f.files().len(), 2, "the plan reads them too");
    drop(plan);
    assert_eq!(f.files().len(), 0);
}

#[tokio::test]
async fn readers_that_come_too_late_hear_that_it_is_gone() {
    let f = Fixture::keeping(Duration::ZERO).await;
    let (_, ids) = f.stored(vec![simple(&[1]), simple(&[2]), simple(&[3])]).await;
    let plan = f.store.scan_plan(T, &CacheFilter::default(), RESID.parse().unwrap(), &Take::One(None)).await.unwrap();
    let held: Vec<StoredCache> = f.store.stored(T, &ids).await.unwrap().into_iter().flatten().collect();
    f.store.delete_cache(T, ids[0]).await.unwrap();
    assert_eq!(f.files().len(), 2);
    let gone = |result: Result<Vec<u8>, StoreError>| matches!(result, Err(StoreError::Gone));
    assert!(gone(held[0].read(&f.store, 0, 0..4).await));
    assert!(gone(held[0].read_blocking(&f.store, 0, 0..4)));
    assert!(matches!(held[0].check(&f.store).await, Err(StoreError::Gone)));
    let report = plan.read_blocking(&f.store, 0, |_, _| {});
    assert_eq!((report.n_rows, report.unread, report.deleted), (2, vec![], vec![ids[0]]));
    // what is missing for another reason is damage
    let of = |id: &CacheId| {
        f.files().into_iter().find(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).contains(&id.to_string()))
    };
    fs::remove_file(of(&ids[1]).unwrap()).unwrap();
    let damaged = held[1].read_blocking(&f.store, 0, 0..4);
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{damaged:?}");
    assert!(held[2].read_blocking(&f.store, 0, 0..4).is_ok());
}

#[tokio::test]
async fn files_of_deleted_caches_stay_only_so_long_and_so_many() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(blobs::LocalBlobs::open(dir.path()).unwrap());
    let pack = |n_bytes: u64| {
        let pack = PackId::generate();
        let blob = blobs.create(pack, fault::Purpose::Capture).unwrap();
        blob.write_at(&vec![0; usize::try_from(n_bytes).unwrap()], 0).unwrap();
        drop(blob.publish().unwrap());
        pack
    };
    let [a, b, c, d] = [10, 20, 30, 40].map(pack);
    let reader = blobs.enter();
    blobs.forget(&[a, b], KEEP);
    blobs.forget(&[c], KeepDeleted { max_bytes: 55, ..KEEP });
    assert_eq!(files(dir.path()).len(), 2 + 1, "the oldest went, since all had 60 bytes");
    let now = Instant::now();
    assert_eq!(blobs.epochs().overdue(now), []);
    assert_eq!(blobs.epochs().overdue(now + KEEP.time), [b, c]);
    blobs.remove_retired(vec![b, c]);
    for gone in [a, b, c] {
        assert!(matches!(blobs.file(gone), Err(StoreError::Gone)));
    }
    blobs.forget(&[d], KEEP);
    assert!(blobs.file(d).is_ok());
    assert!(blobs.remove_deleted() && !blobs.remove_deleted(), "a full disk does not wait");
    assert_eq!((files(dir.path()).len(), blobs.bytes()), (0, 0));
    // who comes later was not told of them
    drop(reader);
    assert!(matches!(blobs.file(a), Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn readers_that_stay_are_left_behind_in_time() {
    let f = Fixture::keeping(Duration::from_millis(20)).await;
    let (_, ids) = f.stored(vec![simple(&[1])]).await;
    let held = f.store.stored(T, &ids).await.unwrap();
    f.store.delete_cache(T, ids[0]).await.unwrap();
    while !f.files().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let gone = held[0].as_ref().unwrap().read_blocking(&f.store, 0, 0..4);
    assert!(matches!(gone, Err(StoreError::Gone)), "{gone:?}");
    assert_eq!(f.store.stats().await.unwrap().blob_bytes, 0);
}

#[tokio::test]
async fn a_pack_that_is_deleted_while_it_is_merged_is_not_damaged() {
    let f = Fixture::keeping(Duration::ZERO).await;
    let (_, ids) = f.stored((0..3).map(|t| simple(&[t])).collect()).await;
    let packs: Vec<PackId> =
        f.files().iter().map(|file| file.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect();
    let rewrite = f.store.index().rewrite(f.store.blobs().enter(), &packs, &[]).await.unwrap().unwrap();
    f.store.delete_cache(T, ids[1]).await.unwrap();
    let throttle = Throttle::new(None, Arc::default());
    assert!(matches!(f.store.compactor().write_anew(rewrite, throttle).await, Ok(Rewritten::Deleted)));
    f.assert_clean().await;
}
