//! Reuse: what is stored answers what it covers, and nothing else.

use super::*;

fn wanted(item: &NewItem) -> Wanted {
    Wanted { forward_key: key(item), capture: item.capture.clone(), n_tokens: item.token_ids.len() }
}

#[tokio::test]
async fn stored_activations_answer_what_they_cover() {
    let f = Fixture::new().await;
    let tokens = [1, 2, 3];
    f.stored(vec![item(&tokens, capture(&[QUERY, PATTERN, RESID], Positions::Last, Dtype::Float16))]).await;
    let ask = async |tenant, hooks: &[&str], positions, dtype| {
        let want = wanted(&item(&tokens, capture(hooks, positions, dtype)));
        f.store.find_reusable(tenant, &[want]).await.unwrap()[0].is_some()
    };
    let (half, last) = (Dtype::Float16, Positions::Last);
    assert!(ask(T, &[QUERY, PATTERN, RESID], last.clone(), half).await);
    assert!(ask(T, &[PATTERN], last.clone(), half).await, "a subset");
    assert!(ask(T, &[QUERY, RESID], Positions::List(vec![-1]), half).await, "the same rows, named otherwise");
    assert!(ask(T, &[RESID], Positions::One(2), half).await);
    assert!(!ask(T, &[RESID], Positions::All, half).await, "other rows");
    assert!(!ask(T, &[RESID], Positions::Mean, half).await);
    assert!(!ask(T, &[RESID], last.clone(), Dtype::Float32).await, "another dtype");
    assert!(!ask(T, &[RESID, "logits"], last.clone(), half).await, "a hook more");
    assert!(!ask(TenantId(2), &[RESID], last.clone(), half).await, "another tenant");
    let other = wanted(&item(&[1, 2, 4], capture(&[RESID], last.clone(), half)));
    let mine = wanted(&item(&tokens, capture(&[RESID], last, half)));
    let found = f.store.find_reusable(T, &[other, mine.clone(), mine]).await.unwrap();
    assert!(found[0].is_none() && found[1].is_some() && found[1] == found[2]);
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
    let extent = f.store.find_reusable(T, &[wanted(&less)]).await.unwrap()[0].unwrap();
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
async fn an_extent_deleted_after_it_was_found_fails_the_item() {
    let f = Fixture::new().await;
    let (first, _) = f.stored(vec![simple(&[1])]).await;
    let extent = f.store.find_reusable(T, &[wanted(&simple(&[1]))]).await.unwrap()[0].unwrap();
    f.store.delete_run(T, first).await.unwrap();
    let run = f.submit(vec![simple(&[1])]).await;
    let item = ReusedCache { extent, cache: CacheId::generate(), run, item_index: 0, item: simple(&[1]) };
    let done = Completion { reused: vec![item.clone()], ..Completion::default() };
    assert_eq!(f.store.complete(done).await.unwrap(), [run]);
    assert_eq!(f.run(run).await.error.unwrap().code, Code::Conflict);
    // a new extent does not take the id of the old one
    f.stored(vec![simple(&[1])]).await;
    let found = f.store.find_reusable(T, &[wanted(&simple(&[1]))]).await.unwrap()[0].unwrap();
    assert_ne!(found, extent);
}
