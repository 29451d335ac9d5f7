//! Reuse: what is stored answers what it covers, and nothing else.

use super::*;

fn wanted(item: &NewItem) -> Wanted {
    Wanted { forward_key: key(item), capture: item.capture.clone(), n_tokens: item.token_ids.len() }
}

fn extent(found: &Option<Reusable>) -> ExtentId {
    match found {
        Some(Reusable::Extent(extent)) => *extent,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn stored_activations_answer_what_they_cover() {
    let f = Fixture::new().await;
    let tokens = [1, 2, 3];
    f.stored(vec![item(&tokens, capture(&[QUERY, PATTERN, RESID], Positions::Last, Dtype::Float16))]).await;
    let ask = async |tenant, hooks: &[&str], positions, dtype| {
        let want = wanted(&item(&tokens, capture(hooks, positions, dtype)));
        match f.store.find_reusable(tenant, &[want]).await.unwrap().remove(0) {
            Some(Reusable::Extent(_)) => "as it is",
            Some(Reusable::Rows(_)) => "copied",
            None => "no",
        }
    };
    let (half, last) = (Dtype::Float16, Positions::Last);
    assert_eq!(ask(T, &[QUERY, PATTERN, RESID], last.clone(), half).await, "as it is");
    assert_eq!(ask(T, &[PATTERN], last.clone(), half).await, "as it is", "a subset");
    assert_eq!(
        ask(T, &[QUERY, RESID], Positions::List(vec![-1]), half).await,
        "as it is",
        "the same rows, named otherwise"
    );
    assert_eq!(ask(T, &[RESID], Positions::One(2), half).await, "as it is");
    assert_eq!(ask(T, &[RESID], Positions::All, half).await, "no", "other rows");
    assert_eq!(ask(T, &[RESID], Positions::Mean, half).await, "no");
    assert_eq!(ask(T, &[RESID], last.clone(), Dtype::Float32).await, "no", "another dtype");
    assert_eq!(ask(T, &[RESID, "logits"], last.clone(), half).await, "no", "a hook more");
    assert_eq!(ask(TenantId(2), &[RESID], last.clone(), half).await, "no", "another tenant");
    let other = wanted(&item(&[1, 2, 4], capture(&[RESID], last.clone(), half)));
    let mine = wanted(&item(&tokens, capture(&[RESID], last, half)));
    let found = f.store.find_reusable(T, &[other, mine.clone(), mine]).await.unwrap();
    assert!(found[0].is_none() && extent(&found[1]) == extent(&found[2]));
}

#[tokio::test]
async fn a_reused_cache_reads_the_same_bytes_and_outlives_the_first() {
    let f = Fixture::new().await;
    let full = item(
        &[1, 2, 3],
        capture(&[QUERY, PATTERN, RESID], Positions::Range { start: Some(1), end: None }, Dtype::Float32),
    );
    let (first_run, first) = f.stored(vec![full.clone()]).await;
    let mut less = item(&[1, 2, 3], capture(&[RESID], Positions::List(vec![1, 2]), Dtype::Float32));
    less.label = None;
    let run = f.submit(vec![less.clone()]).await;
    let extent = extent(&f.store.find_reusable(T, &[wanted(&less)]).await.unwrap()[0]);
    let cache = CacheId::generate();
    let reused = vec![ReusedCache { extent, cache, run, item_index: 0, item: less.clone() }];
    let ended = f.store.complete(Completion { reused, ..Completion::default() }).await.unwrap();
    assert_eq!(ended, [run]);
    let done = f.run(run).await;
    assert_eq!((done.status, done.n_done, done.n_reused), (RunStatus::Completed, 1, 1));
    assert!(done.started_at.is_some());

    let stored = f.store.stored(T, &[first[0], cache]).await.unwrap();
    let [a, b] = [stored[0].as_ref().unwrap(), stored[1].as_ref().unwrap()];
    assert!(b.cache.reused && !a.cache.reused);
    assert_eq!(b.cache.capture, less.capture);
    assert_eq!(b.cache.row_shapes, [[4]]);
    assert_eq!(b.cache.n_bytes, 32);
    assert_eq!(b.cache.content_hash, a.cache.content_hash);
    let resid = a.cache.hook_index(RESID.parse().unwrap()).unwrap();
    let bytes = a.read(&f.store, resid, 0..8).await.unwrap();
    assert_eq!(b.read(&f.store, 0, 0..8).await.unwrap(), bytes);

    f.store.delete_run(T, first_run).await.unwrap();
    assert_eq!(f.files().len(), 1);
    assert_eq!(b.read(&f.store, 0, 0..8).await.unwrap(), bytes);
    assert!(f.store.delete_cache(T, cache).await.unwrap());
    assert!(!f.store.delete_cache(T, cache).await.unwrap());
    assert_eq!(f.files().len(), 0);
    assert_eq!(f.run(run).await.n_done, 1);
}

#[tokio::test]
async fn an_extent_deleted_after_it_was_found_leaves_its_items_to_be_found_again() {
    let f = Fixture::new().await;
    let (first, _) = f.stored(vec![simple(&[1])]).await;
    let first_extent = extent(&f.store.find_reusable(T, &[wanted(&simple(&[1]))]).await.unwrap()[0]);
    f.store.delete_run(T, first).await.unwrap();
    let (other, _) = f.stored(vec![simple(&[2])]).await;
    let second_extent = extent(&f.store.find_reusable(T, &[wanted(&simple(&[2]))]).await.unwrap()[0]);
    let run = f.submit(vec![simple(&[1]), simple(&[2])]).await;
    let reused = |extent, item_index: u32| {
        let item = simple(&[1 + item_index]);
        ReusedCache { extent, cache: CacheId::generate(), run, item_index, item }
    };
    let both = vec![reused(first_extent, 0), reused(second_extent, 1)];
    let done = f.store.complete(Completion { reused: both, ..Completion::default() }).await;
    assert!(matches!(done, Err(StoreError::Gone)), "{done:?}");
    let now = f.run(run).await;
    assert_eq!((now.status, now.n_done, now.n_failed), (RunStatus::Queued, 0, 0), "nothing has changed");
    assert_eq!(f.run(other).await.n_done, 1);
    // the one is found again, the other computed
    let done = Completion { reused: vec![reused(second_extent, 1)], ..Completion::default() };
    assert_eq!(f.store.complete(done).await.unwrap(), []);
    let (pack, _) = f.pack(run, vec![(0, simple(&[1]))]);
    assert_eq!(f.complete(pack).await, [run]);
    assert_eq!(f.run(run).await.status, RunStatus::Completed);
    // a new extent does not take the id of the old one
    let found = extent(&f.store.find_reusable(T, &[wanted(&simple(&[1]))]).await.unwrap()[0]);
    assert_ne!(found, first_extent);
}

#[tokio::test]
async fn rows_are_made_of_stored_ones() {
    let f = Fixture::new().await;
    let tokens = [1, 2, 3, 4];
    // Another item lies before it in the pack.
    let all = capture(&[QUERY, PATTERN, RESID], Positions::List(vec![3, 0, 1]), Dtype::Float32);
    let run = f.submit(vec![item(&[9, 9], all.clone()), item(&tokens, all.clone())]).await;
    let mut first = all.clone();
    first.positions = Positions::All;
    let (pack, caches) = f.pack(run, vec![(0, item(&[9, 9], first)), (1, item(&tokens, all))]);
    f.complete(pack).await;
    let stored = f.store.stored(T, &[caches[1]]).await.unwrap().remove(0).unwrap();
    let hooks = stored.cache.capture.hooks.clone();
    for (positions, places, mean) in [
        (Positions::One(0), vec![1], false),
        (Positions::List(vec![0, 1, -1, 0]), vec![1, 2, 0, 1], false),
        (Positions::Range { start: Some(0), end: Some(2) }, vec![1, 2], false),
        (Positions::mean_of(Positions::List(vec![1, 3])).unwrap(), vec![2, 0], true),
    ] {
        let names = [QUERY, PATTERN, RESID];
        let want = wanted(&item(&tokens, capture(&names, positions.clone(), Dtype::Float32)));
        let Some(Reusable::Rows(rows)) = f.store.find_reusable(T, &[want]).await.unwrap().remove(0) else {
            panic!("{positions:?} is not found")
        };
        assert_eq!(rows.provenance(), &provenance());
        for (hook, name) in hooks.iter().enumerate() {
            let whole = stored.read(&f.store, hook, 0..stored.elements(hook)).await.unwrap();
            let whole = Dtype::Float32.decode(&whole);
            let (outer, inner) = if name.site().is_attention_map() { (2, 4) } else { (1, whole.len() / 3) };
            let row = |o: usize, p: usize| &whole[(o * 3 + p) * inner..][..inner];
            let mut expected = Vec::new();
            for o in 0..outer {
                if mean {
                    let sum = |i: usize| places.iter().map(|p| f64::from(row(o, *p)[i])).sum::<f64>();
                    expected.extend((0..inner).map(|i| (sum(i) / places.len() as f64) as f32));
                } else {
                    places.iter().for_each(|p| expected.extend_from_slice(row(o, *p)));
                }
            }
            let made = rows.read_blocking(&f.store, hook, &positions.resolve(4).unwrap()).unwrap();
            assert_eq!(made, expected, "{name} {positions:?}");
        }
    }
}

#[tokio::test]
async fn copied_items_count_as_reused() {
    let f = Fixture::new().await;
    let run = f.submit(vec![simple(&[1])]).await;
    let (pack, caches) = f.pack(run, vec![(0, simple(&[1]))]);
    let done = Completion { pack: Some(pack), copied: true, ..Completion::default() };
    assert_eq!(f.store.complete(done).await.unwrap(), [run]);
    assert_eq!((f.run(run).await.n_done, f.run(run).await.n_reused), (1, 1));
    assert!(f.cache(caches[0]).await.reused);
}
