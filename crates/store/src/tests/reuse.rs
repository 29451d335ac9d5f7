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
    let f = Fixture::keeping(Duration::ZERO).await;
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
async fn an_equal_capture_answers_before_a_newer_one_that_covers_it() {
    let f = Fixture::new().await;
    let of = |hooks: &[&str], positions, dtype| item(&[1, 2, 3], capture(hooks, positions, dtype));
    let all = || of(&[QUERY, RESID], Positions::All, Dtype::Float32);
    let last = || of(&[RESID], Positions::Last, Dtype::Float32);
    let ask = async |item: NewItem| match f.store.find_reusable(T, &[wanted(&item)]).await.unwrap().remove(0) {
        Some(Reusable::Extent(extent)) => extent.0,
        other => panic!("{other:?}"),
    };
    f.stored(vec![all()]).await; // the first extent
    let (second, _) = f.stored(vec![last()]).await;
    assert_eq!((ask(all()).await, ask(last()).await), (1, 2));
    // the third, the fourth; neither is of the same hooks, positions and type
    f.stored(vec![of(&[QUERY, RESID], Positions::Last, Dtype::Float32)]).await;
    f.stored(vec![of(&[RESID], Positions::One(2), Dtype::Float32)]).await;
    f.stored(vec![of(&[RESID], Positions::Last, Dtype::Float16)]).await;
    assert_eq!((ask(all()).await, ask(last()).await), (1, 2));
    let (sixth, _) = f.stored(vec![last()]).await;
    assert_eq!(ask(last()).await, 6, "the newest of equal ones");
    f.store.delete_run(T, sixth).await.unwrap();
    assert_eq!(ask(last()).await, 2);
    f.store.delete_run(T, second).await.unwrap();
    assert_eq!(ask(last()).await, 4, "the newest with its rows");
    assert_eq!(ask(of(&[QUERY], Positions::All, Dtype::Float32)).await, 1, "of more hooks");
    // each among others is answered as it is alone
    let mixed = [last(), of(&[QUERY], Positions::Mean, Dtype::Float32), simple(&[9]), all()];
    let found = f.store.find_reusable(T, &mixed.map(|i| wanted(&i))).await.unwrap();
    assert_eq!((extent(&found[0]).0, extent(&found[3]).0), (4, 1));
    assert!(matches!(found[1], Some(Reusable::Rows(_))) && found[2].is_none(), "{found:?}");
}

#[tokio::test]
async fn keys_find_their_extents_wherever_they_have_been_moved() {
    let f = Fixture::new().await;
    let counts = async || {
        let mut conn = f.store.reader().await.unwrap();
        let count = "SELECT (SELECT count(*) FROM forward_keys), (SELECT count(*) FROM forward_keys_new)";
        sqlx::query_as::<_, (i64, i64)>(count).fetch_one(&mut *conn).await.unwrap()
    };
    let items: Vec<NewItem> = (0..150).map(|t| simple(&[t])).collect();
    let mut runs = Vec::new();
    for (n, piece) in items.chunks(7).enumerate() {
        runs.push(f.stored(piece.to_vec()).await.0);
        let (moved, new) = counts().await;
        assert_eq!(usize::try_from(moved + new).unwrap(), (7 * (n + 1)).min(150));
        // thirty-two stretches of two steps each
        assert!(new <= 64 + 7, "{new}");
    }
    assert!(counts().await.0 >= 79, "most have moved");
    let wanted: Vec<Wanted> = items.iter().map(wanted).collect();
    let found = f.store.find_reusable(T, &wanted).await.unwrap();
    let ids: Vec<i64> = found.iter().map(|f| extent(f).0).collect();
    assert_eq!(ids, (1..=150).collect::<Vec<_>>());
    f.assert_clean().await;
    for run in runs {
        f.store.delete_run(T, run).await.unwrap();
    }
    assert_eq!(counts().await, (0, 0));
    // one commit that passes every stretch, and more
    let run = f.submit(items.clone()).await;
    let (pack, _) = f.pack(run, (0..).zip(items).collect());
    f.complete(pack).await;
    assert_eq!(f.store.find_reusable(T, &wanted).await.unwrap().iter().flatten().count(), 150);
    assert_eq!(counts().await, (150, 0));
    f.assert_clean().await;
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

#[tokio::test]
async fn a_run_that_is_stored_whole_is_complete_from_the_start() {
    let f = Fixture::new().await;
    let items = vec![simple(&[1]), simple(&[2])];
    f.stored(items.clone()).await;
    let (doomed, _) = f.stored(vec![simple(&[3])]).await;
    let all: Vec<NewItem> = [1, 2, 3].map(|token| simple(&[token])).into();
    let wanted: Vec<Wanted> = all.iter().map(wanted).collect();
    let found = f.store.find_reusable(T, &wanted).await.unwrap();
    let extents: Vec<ExtentId> = found.iter().map(extent).collect();
    f.store.delete_run(T, doomed).await.unwrap();

    let answered = |run: NewRun, extents: &[ExtentId]| AnsweredRun { run: run.into(), extents: extents.to_vec() };
    let lasting = NewRun { ttl_seconds: Some(60), priority: Priority::Bulk, ..run(items.clone()) };
    let runs = vec![
        answered(lasting, &extents[..2]),
        answered(run(vec![simple(&[2]), simple(&[3])]), &extents[1..]),
        answered(NewRun { tenant: TenantId(2), ..run(vec![simple(&[1])]) }, &extents[..1]),
        answered(run(vec![simple(&[2])]), &extents[1..2]),
    ];
    let made = f.store.insert_answered(runs).await.unwrap();
    let [Some(two), None, None, Some(one)] = made.as_slice() else { panic!("{made:?}") };
    assert!(two.id < one.id, "in the order they came");
    assert_eq!((two.status, two.n_items, two.n_done, two.n_reused), (RunStatus::Completed, 2, 2, 2));
    for made in [two, one] {
        assert_eq!(f.run(made.id).await, *made, "as it is read again");
        assert_eq!(f.after_crash().await.run(made.id).await, *made);
    }
    assert_eq!(
        f.store.runs(T, RunFilter::default(), None, 10).await.unwrap().len(),
        3,
        "none of those that could not be answered"
    );
    for (i, id) in two.caches.iter().enumerate() {
        let cache = f.cache(*id).await;
        assert_eq!((cache.run, cache.item_index, cache.reused), (two.id, i as u64, true));
        assert_eq!((cache.token_ids, cache.label), (items[i].token_ids.clone(), items[i].label.clone()));
        assert!(cache.expires_at.is_some_and(|at| at.duration_since(cache.created_at).as_secs() == 60));
    }
    assert!(f.store.pending().await.unwrap().is_empty());
    f.assert_clean().await;

    let keyed = NewRun { idempotency: Some(("key".to_owned(), [0; 32])), ..run(vec![simple(&[1])]) };
    for (run, extents) in [(keyed, &extents[..1]), (run(items), &extents[..1]), (run(Vec::new()), &[])] {
        let refused = f.store.insert_answered(vec![answered(run, extents)]).await;
        assert!(matches!(refused, Err(StoreError::Misuse(_))), "{refused:?}");
    }
}
