//! Scans: every row once, read in large parts, whatever the packs look like.

use std::{collections::BTreeMap, sync::Arc};

use super::*;

/// Everything a plan reads: rows by key, and the largest number of rows handed over at once.
fn read(f: &Fixture, plan: &Arc<ScanPlan>) -> (BTreeMap<RowKey, Vec<f32>>, usize, Vec<CacheId>) {
    let (mut rows, mut most, mut unread) = (BTreeMap::new(), 0, Vec::new());
    for task in 0..plan.n_tasks() {
        let report = plan.read_blocking(&f.store, task, |values, keys| {
            most = most.max(keys.len());
            let width = values.len() / keys.len();
            for (key, row) in keys.iter().zip(values.chunks(width)) {
                assert!(rows.insert(*key, row.to_vec()).is_none(), "{key:?} came twice");
            }
        });
        unread.extend(report.unread);
        unread.extend(report.deleted);
    }
    (rows, most, unread)
}

async fn plan(f: &Fixture, hook: &str, take: Take) -> Arc<ScanPlan> {
    f.store.scan_plan(T, &CacheFilter::default(), hook.parse().unwrap(), &take).await.unwrap()
}

#[tokio::test]
async fn rows_are_those_that_single_reads_give() {
    for dtype in Dtype::ALL {
        let f = Fixture::new().await;
        let with = |tokens: &[u32], positions| item(tokens, capture(&[QUERY, PATTERN, RESID], positions, dtype));
        let items = vec![
            with(&[1, 2, 3], Positions::All),
            with(&[4, 5, 6, 7], Positions::List(vec![-1, 0, 3])),
            with(&[8, 9], Positions::Mean),
            with(&[8], Positions::Last),
        ];
        let run = f.submit(items.clone()).await;
        let (pack, ids) = f.pack(run, (0..).zip(items).collect());
        f.complete(pack).await;
        let expected = |cache: usize, row: usize, position| {
            let (store, id) = (&f.store, ids[cache]);
            async move {
                let stored = store.stored(T, &[id]).await.unwrap().pop().flatten().unwrap();
                let index = stored.cache.hook_index(QUERY.parse().unwrap()).unwrap();
                let bytes = stored.read(store, index, row * 6..row * 6 + 6).await.unwrap();
                ((id, position), dtype.decode(&bytes))
            }
        };
        let all = plan(&f, QUERY, Take::Positions).await;
        assert_eq!((all.n_caches(), all.n_skipped(), all.widths()), (3, 1, vec![6]));
        let (rows, ..) = read(&f, &all);
        let mut wanted = BTreeMap::new();
        for (cache, row, position) in [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 3), (1, 1, 0), (3, 0, 0)] {
            let (key, values) = expected(cache, row, Some(position)).await;
            wanted.insert(key, values);
        }
        assert_eq!(rows, wanted);
        let (rows, ..) = read(&f, &plan(&f, QUERY, Take::One(None)).await);
        let mut wanted = BTreeMap::new();
        for (cache, row, position) in [(0, 2, Some(2)), (1, 0, Some(3)), (2, 0, None), (3, 0, Some(0))] {
            let (key, values) = expected(cache, row, position).await;
            wanted.insert(key, values);
        }
        assert_eq!(rows, wanted);
    }
}

#[tokio::test]
async fn tokens_are_found_where_they_stand() {
    let f = Fixture::new().await;
    let unknown = residuum_domain::import::UNKNOWN_TOKEN;
    let (_, ids) = f.stored(vec![simple(&[7, 1, 7]), simple(&[1, 2]), simple(&[unknown, unknown]), simple(&[9])]).await;
    let places = f.store.token_places(T, &CacheFilter::default(), |id| id == 7 || id == 9).await.unwrap();
    let of = |cache: usize| (0..3).filter(|p| places.contains(ids[cache], *p)).collect::<Vec<_>>();
    assert_eq!((of(0), of(1), of(2), of(3)), (vec![0, 2], vec![], vec![], vec![0]));
    assert_eq!(places.n_unknown(), 1);
    let tagged = CacheFilter { tags: vec!["none".to_owned()], ..CacheFilter::default() };
    let places = f.store.token_places(T, &tagged, |_| true).await.unwrap();
    assert_eq!((places.contains(ids[0], 0), places.n_unknown()), (false, 0), "only what the filter finds");
}

#[tokio::test]
async fn rows_side_by_side_are_read_together() {
    let f = Fixture::new().await;
    // two packs, each of more rows than one read takes
    let n = (256 << 10) / 16 + 100;
    for _ in 0..2 {
        let items: Vec<NewItem> = (0..n).map(|t| simple(&[t, t + 1])).collect();
        let run = f.submit(items.clone()).await;
        let (pack, _) = f.pack(run, (0..).zip(items).collect());
        f.complete(pack).await;
    }
    let plan = plan(&f, RESID, Take::One(None)).await;
    let (rows, most, _) = read(&f, &plan);
    assert_eq!((rows.len(), most), (2 * n as usize, (256 << 10) / 16));
}

#[tokio::test]
async fn a_plan_is_kept_until_the_index_changes() {
    let f = Fixture::keeping(Duration::ZERO).await;
    let (_, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let first = plan(&f, RESID, Take::One(None)).await;
    assert!(Arc::ptr_eq(&first, &plan(&f, RESID, Take::One(None)).await));
    assert!(!Arc::ptr_eq(&first, &plan(&f, RESID, Take::Positions).await));
    assert!(f.store.delete_cache(T, ids[0]).await.unwrap());
    let second = plan(&f, RESID, Take::One(None)).await;
    assert_eq!((first.n_caches(), second.n_caches()), (2, 1));
    // the older plan still stands: what it cannot read any more it reports
    let (rows, _, unread) = read(&f, &first);
    assert_eq!((rows.len(), unread), (1, vec![ids[0]]));
}

#[tokio::test]
async fn a_short_file_costs_the_rows_behind_its_end() {
    let f = Fixture::new().await;
    let cap = capture(&[RESID], Positions::All, Dtype::Float32);
    let items = vec![item(&[1, 2], cap.clone()), item(&[3, 4], cap.clone()), item(&[5], cap)];
    let run = f.submit(items.clone()).await;
    let (pack, ids) = f.pack(run, (0..).zip(items).collect());
    f.complete(pack).await;
    let file = fs::File::options().write(true).open(&f.files()[0]).unwrap();
    file.set_len(file.metadata().unwrap().len() - 24).unwrap();
    let (rows, _, unread) = read(&f, &plan(&f, RESID, Take::Positions).await);
    assert_eq!(rows.keys().map(|(cache, _)| *cache).collect::<Vec<_>>(), [ids[0], ids[0]]);
    assert_eq!(unread, ids[1..]);
}
