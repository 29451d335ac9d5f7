//! Expiry, pinning, the quota.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::*;

/// A store whose clock can be put forward.
async fn with_clock(quota: Option<Quota>) -> (Fixture, Arc<AtomicI64>) {
    let ahead = Arc::new(AtomicI64::new(0));
    let seconds = Arc::clone(&ahead);
    let clock = Clock::new(move || Timestamp::now() + SignedDuration::from_secs(seconds.load(Ordering::Relaxed)));
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open_with(dir.path(), StoreOptions { clock, quota, keep_deleted: KeepDeleted::NOTHING }).await.unwrap();
    (Fixture { dir, store }, ahead)
}

/// A run whose caches live so long.
async fn stored_for(f: &Fixture, items: Vec<NewItem>, ttl: u64) -> (RunId, Vec<CacheId>) {
    let new = NewRun { ttl_seconds: Some(ttl), ..run(items.clone()) };
    let Inserted::Created(id) = f.store.insert_run(new).await.unwrap() else { panic!() };
    let mut caches = Vec::new();
    for (i, item) in (0..).zip(items) {
        let (pack, cache) = f.pack(id, vec![(i, item)]);
        f.complete(pack).await;
        caches.extend(cache);
    }
    (id, caches)
}

fn wanted(item: &NewItem) -> Wanted {
    Wanted { forward_key: key(item), capture: item.capture.clone(), n_tokens: item.token_ids.len() }
}

#[tokio::test]
async fn what_has_expired_is_gone_before_it_is_removed() {
    let (f, ahead) = with_clock(None).await;
    let (run, ids) = stored_for(&f, vec![simple(&[1]), simple(&[2]), simple(&[3])], 60).await;
    let (_, kept) = f.stored(vec![simple(&[4])]).await;
    let made = f.cache(ids[0]).await;
    assert_eq!(made.expires_at, Some(made.created_at + SignedDuration::from_secs(60)));
    assert_eq!((f.run(run).await.ttl_seconds, made.pinned), (Some(60), false));
    let pin = |pinned| CachePatch { pinned: Some(pinned), ..CachePatch::default() };
    let until = |time| CachePatch { expires_at: Some(time), ..CachePatch::default() };
    f.store.patch_cache(T, ids[1], pin(true)).await.unwrap().unwrap();
    let far = made.created_at + SignedDuration::from_hours(5);
    let cache = f.store.patch_cache(T, ids[2], until(Some(far))).await.unwrap().unwrap();
    assert_eq!(cache.expires_at, Some(far));

    ahead.store(59, Ordering::Relaxed);
    assert_eq!(f.store.expire().await.unwrap(), 0);
    assert!(f.store.cache(T, ids[0]).await.unwrap().is_some());
    ahead.store(61, Ordering::Relaxed);
    assert_eq!(f.store.cache(T, ids[0]).await.unwrap(), None);
    let all = CacheFilter::default();
    let listed: Vec<CacheId> = f.store.caches(T, &all, None, 10).await.unwrap().iter().map(|c| c.id).collect();
    assert_eq!(listed, [kept[0], ids[2], ids[1]]);
    assert_eq!(f.store.find_caches(T, &all, PageRequest::newest(None, 10)).await.unwrap().caches.len(), 3);
    assert_eq!(f.store.count_caches(T, &all).await.unwrap(), Count { total: 3, is_exact: true });
    assert_eq!(f.store.run_caches(T, run, 0, 10).await.unwrap().len(), 2);
    assert_eq!(f.run(run).await.caches, [ids[1], ids[2]]);
    let reusable = f.store.find_reusable(T, &[wanted(&simple(&[1])), wanted(&simple(&[2]))]).await.unwrap();
    assert!(reusable[0].is_none() && reusable[1].is_some(), "{reusable:?}");
    assert_eq!(f.store.patch_cache(T, ids[0], pin(true)).await.unwrap(), None, "too late");
    assert!(!f.store.delete_cache(T, ids[0]).await.unwrap());
    assert_eq!(f.files().len(), 4);

    assert_eq!(f.store.expire().await.unwrap(), 1);
    assert_eq!((f.files().len(), f.store.expire().await.unwrap()), (3, 0));
    // a pinned cache that is let go expires at the time it had
    assert_eq!(f.store.patch_cache(T, ids[1], pin(false)).await.unwrap(), None);
    let forever = f.store.patch_cache(T, ids[2], until(None)).await.unwrap().unwrap();
    assert_eq!(forever.expires_at, None);
    ahead.store(1 << 30, Ordering::Relaxed);
    assert_eq!(f.store.expire().await.unwrap(), 1);
    assert_eq!(f.store.stats().await.unwrap().n_caches, 2);
    assert!(f.store.verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn numbers_live_as_long_as_any_cache_of_them() {
    let (f, ahead) = with_clock(None).await;
    let (_, ids) = stored_for(&f, vec![simple(&[1])], 60).await;
    let other = f.submit(vec![simple(&[1])]).await;
    let found = f.store.find_reusable(T, &[wanted(&simple(&[1]))]).await.unwrap().remove(0);
    let Some(Reusable::Extent(extent)) = found else { panic!("nothing to reuse") };
    let cache = CacheId::generate();
    let reused = vec![ReusedCache { extent, cache, run: other, item_index: 0, item: simple(&[1]) }];
    f.store.complete(Completion { reused, ..Completion::default() }).await.unwrap();
    let bytes = f.store.blobs().bytes();
    ahead.store(100, Ordering::Relaxed);
    assert_eq!(f.store.expire().await.unwrap(), 1);
    assert_eq!(f.store.cache(T, ids[0]).await.unwrap(), None);
    let stored = f.store.stored(T, &[cache]).await.unwrap().remove(0).unwrap();
    assert_eq!(stored.read(&f.store, 0, 0..4).await.unwrap().len(), 16);
    assert_eq!(f.store.blobs().bytes(), bytes, "shared bytes are counted once");
    assert!(f.store.delete_cache(T, cache).await.unwrap());
    assert_eq!((f.files().len(), f.store.blobs().bytes()), (0, 0));
}

#[tokio::test]
async fn plans_of_a_search_end_with_the_caches_in_them() {
    let (f, ahead) = with_clock(None).await;
    stored_for(&f, vec![simple(&[1])], 60).await;
    f.stored(vec![simple(&[2])]).await;
    let plan = async || {
        let (all, hook) = (CacheFilter::default(), RESID.parse().unwrap());
        f.store.scan_plan(T, &all, hook, &Take::One(None)).await.unwrap().n_caches()
    };
    assert_eq!(plan().await, 2);
    ahead.store(61, Ordering::Relaxed);
    assert_eq!(plan().await, 1);
}

#[tokio::test]
async fn a_quota_refuses_or_makes_room_by_letting_the_oldest_go() {
    let big = |token: u32| item(&[token; 20_000], capture(&[RESID], Positions::All, Dtype::Float32));
    let (f, _) = with_clock(None).await;
    f.stored(vec![big(1), big(2)]).await;
    let (one, two) = (f.store.blobs().bytes() / 2, f.store.blobs().bytes());
    assert_eq!(two, f.files().iter().map(|p| p.metadata().unwrap().len()).sum::<u64>());
    // opened again, it counts the same
    let again = f.after_crash().await;
    assert_eq!(again.store.blobs().bytes(), two);
    let half = again.store.begin_pack(header(RunId::generate(), vec![(0, big(3))])).unwrap();
    assert_eq!(again.store.blobs().bytes(), two + one, "what is being written counts");
    drop(half);
    assert_eq!(again.store.blobs().bytes(), two);

    let room = |evict_oldest| Some(Quota { max_bytes: two + (8 << 20), evict_oldest });
    let options = |quota| StoreOptions { quota, ..StoreOptions::default() };
    let path = again.dir.path().to_owned();
    let ids: Vec<CacheId> =
        again.store.caches(T, &CacheFilter::default(), None, 9).await.unwrap().iter().map(|c| c.id).collect();
    again.store.close().await;
    let dir = again.dir;
    let f = Fixture { store: Store::open_with(&path, options(room(false))).await.unwrap(), dir };
    f.store.make_room(1000).await.unwrap();
    let free = two + (8 << 20) - f.store.bytes_on_disk();
    assert!(matches!(f.store.make_room(free + (1 << 20)).await, Err(StoreError::Full)));
    let run = f.submit(vec![big(3)]).await;
    assert_eq!(f.store.stats().await.unwrap().n_caches, 2, "nothing is removed without being told to");
    f.store.close().await;

    let f = Fixture { store: Store::open_with(&path, options(room(true))).await.unwrap(), dir: f.dir };
    let pin = CachePatch { pinned: Some(true), ..CachePatch::default() };
    f.store.patch_cache(T, ids[1], pin).await.unwrap().unwrap();
    let free = two + (8 << 20) - f.store.bytes_on_disk();
    assert_eq!(f.store.make_room(free + one / 2).await.unwrap(), 1);
    let left: Vec<CacheId> =
        f.store.caches(T, &CacheFilter::default(), None, 9).await.unwrap().iter().map(|c| c.id).collect();
    assert_eq!(left, [ids[1]], "the pinned one stays, though it is older");
    assert_eq!(f.store.blobs().bytes(), one);
    assert!(matches!(f.store.make_room(free + two + one).await, Err(StoreError::Full)));
    assert_eq!(f.store.stats().await.unwrap().n_caches, 1);
    assert_eq!(f.run(run).await.status, RunStatus::Queued);
}

#[tokio::test]
async fn a_clock_that_goes_back_keeps_order_and_lives() {
    let (f, ahead) = with_clock(None).await;
    const YEAR: i64 = 365 * 24 * 3600;
    ahead.store(YEAR, Ordering::Relaxed);
    let (_, far) = f.stored(vec![simple(&[1])]).await;
    // back to what it should have been, and another hour back
    for back in [0, -3600] {
        ahead.store(back, Ordering::Relaxed);
        let before = f.store.caches(T, &CacheFilter::default(), None, 1).await.unwrap().remove(0);
        let (_, ids) = stored_for(&f, vec![simple(&[2]), simple(&[3])], 60).await;
        let made = f.cache(ids[0]).await;
        assert!(made.created_at > before.created_at, "listings stay in the order of storing");
        let now = Timestamp::now() + SignedDuration::from_secs(back);
        let lives = made.expires_at.unwrap() - now;
        assert!(lives.get_seconds() <= 62, "it lives a minute by the clock, not a year: {lives}");
        ahead.store(back + 62, Ordering::Relaxed);
        assert_eq!(f.store.cache(T, ids[0]).await.unwrap(), None);
        assert_eq!(f.store.expire().await.unwrap(), 2);
    }
    assert!(f.store.cache(T, far[0]).await.unwrap().is_some());
    // a jump by an hour while caches live
    ahead.store(0, Ordering::Relaxed);
    let (_, ids) = stored_for(&f, vec![simple(&[4])], 1800).await;
    ahead.store(-3600, Ordering::Relaxed);
    assert!(f.store.cache(T, ids[0]).await.unwrap().is_some());
    assert_eq!(f.store.expire().await.unwrap(), 0);
    ahead.store(3600, Ordering::Relaxed);
    assert_eq!(f.store.expire().await.unwrap(), 1);
    f.assert_clean().await;
}
