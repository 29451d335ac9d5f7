//! Merging and shrinking: rows move, and nobody notices.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use safetensors::SafeTensors;

use super::{finding::pieces, *};

fn thorough() -> Compaction {
    Compaction::thorough()
}

#[tokio::test]
async fn merging_changes_files_and_nothing_else() {
    for dtype in Dtype::ALL {
        let f = Fixture::new().await;
        f.varied(dtype).await;
        // of another kind, another tenant's provenance aside
        let (other, _) = f.stored(vec![item(&[1], capture(&[RESID], Positions::All, dtype))]).await;
        let before = everything(&f.store, T).await;
        assert_eq!((before.len(), f.files().len()), (13, 8));
        let hash = before.values().map(|(c, _)| c.content_hash.clone()).collect::<Vec<_>>();
        let report = f.store.merge(&thorough()).await.unwrap();
        assert_eq!((report.n_old, report.n_new, report.n_extents, report.n_damaged), (7, 1, 11, 0));
        assert_eq!(f.files().len(), 2);
        let after = everything(&f.store, T).await;
        assert_eq!(after, before);
        assert_eq!(after.values().map(|(c, _)| c.content_hash.clone()).collect::<Vec<_>>(), hash);
        f.assert_clean().await;
        assert_eq!(f.store.merge(&thorough()).await.unwrap(), CompactReport::default(), "nothing is left to merge");
        // stored activations still answer, and searches still find
        f.reusing(&item(&[1, 2, 3], capture(&[RESID], Positions::All, dtype))).await;
        f.store.delete_run(T, other).await.unwrap();
        for path in f.files() {
            let bytes = fs::read(path).unwrap();
            assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), 3);
        }
    }
}

#[tokio::test]
async fn packs_of_different_origin_are_not_mixed() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1]), simple(&[2])]).await;
    for token in [3, 4] {
        let run = f.submit(vec![simple(&[token])]).await;
        let mut other = header(run, vec![(0, simple(&[token]))]);
        other.provenance.model_fingerprint = "another".to_owned();
        f.complete(write(&f.store, other)).await;
    }
    f.stored(vec![item(&[5], capture(&[RESID], Positions::Last, Dtype::Float16))]).await;
    let before = everything(&f.store, T).await;
    let report = f.store.merge(&thorough()).await.unwrap();
    assert_eq!((report.n_old, report.n_new), (4, 2));
    assert_eq!(everything(&f.store, T).await, before);
    f.assert_clean().await;
}

#[tokio::test]
async fn packs_are_merged_with_their_like_in_size_up_to_a_target() {
    let f = Fixture::new().await;
    f.stored((0..5).map(|t| simple(&[t])).collect()).await;
    let some = Compaction { fan_in: 6, ..Compaction::default() };
    assert_eq!(f.store.merge(&some).await.unwrap().n_old, 0, "too few");
    let size = f.store.stats().await.unwrap().blob_bytes / 5;
    // a pack much larger than the others stays out
    let wide: Vec<NewItem> = (100..160).map(|t| simple(&[t])).collect();
    let run = f.submit(wide.clone()).await;
    f.complete(f.pack(run, (0..).zip(wide).collect()).0).await;
    let some = Compaction { fan_in: 2, bytes_per_second: None, ..Compaction::default() };
    assert_eq!(f.store.merge(&some).await.unwrap().n_old, 5);
    assert_eq!(f.files().len(), 2);
    // as many as make the target, and no pack that is half of it
    f.stored((10..20).map(|t| simple(&[t])).collect()).await;
    let tight = Compaction { target_bytes: 4 * size + size / 2, by_size: false, ..some };
    let report = f.store.merge(&tight).await.unwrap();
    assert!(report.n_new >= 2 && f.files().len() < 12 && f.files().len() >= 4, "{report}, {}", f.files().len());
    f.assert_clean().await;
}

#[tokio::test]
async fn readers_keep_what_they_were_told_of() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored((0..3).map(|t| simple(&[t])).collect()).await;
    let held = f.store.stored(T, &ids).await.unwrap();
    let hook = RESID.parse().unwrap();
    let plan = f.store.scan_plan(T, &CacheFilter::default(), hook, &Take::One(None)).await.unwrap();
    let now = everything(&f.store, T).await;
    assert_eq!(f.store.merge(&thorough()).await.unwrap().n_old, 3);
    assert_eq!(f.files().len(), 4, "the old ones are still read");
    // and are neither garbage nor unknown
    assert!(f.store.verify().await.unwrap().is_clean());
    assert_eq!(f.store.gc().await.unwrap().n_orphans, 0);
    for stored in held.iter().flatten() {
        let bytes = stored.read_blocking(&f.store, 0, 0..4).unwrap();
        assert_eq!(bytes, now[&stored.cache.id].1[0]);
        stored.check(&f.store).await.unwrap();
    }
    let mut rows = 0;
    for task in 0..plan.n_tasks() {
        let report = plan.read_blocking(&f.store, task, |_, keys| rows += keys.len());
        assert_eq!(report.unread, []);
    }
    assert_eq!(rows, 3);
    drop(held);
    assert_eq!(f.files().len(), 4, "a plan reads them too");
    drop(plan);
    assert_eq!(f.files().len(), 1);
    assert_eq!(everything(&f.store, T).await, now);
}

#[tokio::test]
async fn a_reader_in_another_process_is_told_the_new_place() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let reader = Store::open_read_only(f.dir.path()).await.unwrap();
    let held = reader.stored(T, &ids).await.unwrap();
    f.store.merge(&thorough()).await.unwrap();
    assert_eq!(f.files().len(), 1);
    let bytes = held[1].as_ref().unwrap().read(&reader, 0, 0..4).await.unwrap();
    assert_eq!(bytes, everything(&f.store, T).await[&ids[1]].1[0]);
}

#[tokio::test]
async fn a_pack_that_is_mostly_dead_is_rewritten_without_the_dead() {
    let f = Fixture::new().await;
    let items = variety(Dtype::Float32);
    let run = f.submit(items.clone()).await;
    let (pack, ids) = f.pack(run, (0..).zip(items).collect());
    f.complete(pack).await;
    let size = f.store.stats().await.unwrap().blob_bytes;
    f.store.delete_cache(T, ids[3]).await.unwrap();
    assert_eq!(f.store.gc().await.unwrap().rewritten.n_old, 0, "most is alive");
    f.store.delete_cache(T, ids[0]).await.unwrap();
    f.store.delete_cache(T, ids[1]).await.unwrap();
    let before = everything(&f.store, T).await;
    let report = f.store.gc().await.unwrap();
    assert_eq!((report.rewritten.n_old, report.rewritten.n_new, report.rewritten.n_extents), (1, 1, 2));
    assert_eq!(size - report.rewritten.freed_bytes, f.store.stats().await.unwrap().blob_bytes);
    assert_eq!(everything(&f.store, T).await, before);
    let text = String::from_utf8_lossy(&fs::read(&f.files()[0]).unwrap()).into_owned();
    assert!(!text.contains(&ids[0].to_string()) && text.contains(&ids[2].to_string()), "what was deleted is gone");
    f.assert_clean().await;
}

#[tokio::test]
async fn damage_is_not_carried_on() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored((0..4).map(|t| simple(&[t])).collect()).await;
    let before = everything(&f.store, T).await;
    let stored = f.store.stored(T, &ids[..1]).await.unwrap().remove(0).unwrap();
    let hash = stored.cache.content_hash.clone();
    drop(stored);
    let path = f.files().into_iter().find(|p| String::from_utf8_lossy(&fs::read(p).unwrap()).contains(&hash)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = f.store.merge(&thorough()).await.unwrap();
    assert_eq!((report.n_old, report.n_new, report.n_damaged), (3, 1, 1));
    assert_eq!(fs::read(&path).unwrap(), bytes, "it lies where it was");
    assert_eq!(f.files().len(), 2);
    for id in &ids[1..] {
        assert_eq!(f.cache(*id).await, before[id].0);
    }
    assert_eq!(f.store.verify().await.unwrap().issues.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_in_a_loop_disturbs_no_reader() {
    let f = Fixture::new().await;
    let (_, kept) = f
        .stored((0..8).map(|t| item(&[t, t + 1], capture(&[PATTERN, RESID], Positions::All, Dtype::Float32))).collect())
        .await;
    let before = everything(&f.store, T).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, kept, stop, before) = (f.store.clone(), kept.clone(), Arc::clone(&stop), before.clone());
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) || n == 0 {
                    let stored = store.stored(T, &kept).await.unwrap();
                    tokio::task::yield_now().await;
                    for s in stored.into_iter().flatten() {
                        let bytes = s.read_blocking(&store, 1, 0..s.elements(1)).unwrap();
                        assert_eq!(bytes, before[&s.cache.id].1[1]);
                        n += 1;
                    }
                }
                n
            })
        })
        .collect();
    for round in 0..30 {
        let (run, _) = f
            .stored(
                (0..3)
                    .map(|t| item(&[50 + t, round], capture(&[PATTERN, RESID], Positions::All, Dtype::Float32)))
                    .collect(),
            )
            .await;
        f.store.merge(&thorough()).await.unwrap();
        if round % 2 == 0 {
            f.store.delete_run(T, run).await.unwrap();
        }
        f.store.gc().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    f.assert_clean().await;
    assert_eq!(f.files().len(), 1);
}

#[tokio::test]
async fn a_store_is_maintained_beside_serving() {
    let f = Fixture::new().await;
    for t in 0..6 {
        f.stored(vec![simple(&[t])]).await;
    }
    let before = everything(&f.store, T).await;
    assert!(pieces(&f).await > 3);
    let what = Maintenance {
        interval: std::time::Duration::from_millis(10),
        compaction: Some(Compaction { fan_in: 4, ..Compaction::default() }),
    };
    let maintainer = Maintainer::start(f.store.clone(), what).unwrap();
    while f.files().len() > 1 || pieces(&f).await > 3 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    maintainer.stop().await;
    assert_eq!(everything(&f.store, T).await, before);
    let off = Maintenance { compaction: None, ..Maintenance::default() };
    assert!(Maintainer::start(f.store.clone(), off).is_none());
}

#[tokio::test]
async fn small_packs_are_found_without_a_scan() {
    let f = Fixture::new().await;
    for query in [
        "EXPLAIN QUERY PLAN SELECT tenant_id, layout_id, dtype FROM packs WHERE n_bytes < 1 \
             GROUP BY tenant_id, layout_id, dtype HAVING count(*) >= 2 ORDER BY count(*) DESC",
        "EXPLAIN QUERY PLAN SELECT id FROM packs p WHERE tenant_id = 1 AND layout_id = 1 AND dtype = 'x' AND n_bytes < 1 \
             ORDER BY n_bytes LIMIT 1",
    ] {
        let rows = sqlx::query(query).fetch_all(&mut *f.store.reader().await.unwrap()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|r| sqlx::Row::get(r, "detail")).collect();
        assert!(plan[0].contains("packs_by_kind"), "{plan:?}");
    }
}
