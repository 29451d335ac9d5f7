//! Runs and the queue.

use super::*;

#[tokio::test]
async fn a_run_goes_from_queued_to_completed() {
    let f = Fixture::new().await;
    let items = vec![simple(&[1, 2]), simple(&[3])];
    let id = f.submit(items.clone()).await;
    let run = f.run(id).await;
    assert_eq!((run.status, run.n_items, run.n_done), (RunStatus::Queued, 2, 0));
    assert_eq!(run.tags, ["run", "a"]);
    assert_eq!((run.started_at, run.finished_at, &run.error), (None, None, &None));
    assert_eq!(f.store.items(id, &[1, 0, 7]).await.unwrap(), [(0, items[0].clone()), (1, items[1].clone())]);

    f.store.claim(&[(id, 0), (id, 1)]).await.unwrap();
    let run = f.run(id).await;
    assert_eq!(run.status, RunStatus::Running);
    assert!(run.started_at.is_some());

    let (pack, first) = f.pack(id, vec![(1, items[1].clone())]);
    assert_eq!(f.complete(pack).await, []);
    assert_eq!(f.store.items(id, &[0, 1]).await.unwrap().len(), 1);
    let (pack, second) = f.pack(id, vec![(0, items[0].clone())]);
    assert_eq!(f.complete(pack).await, [id]);
    let run = f.run(id).await;
    assert_eq!((run.status, run.n_done, run.n_reused, run.n_failed), (RunStatus::Completed, 2, 0, 0));
    assert_eq!(run.caches, [second[0], first[0]], "input order");
    assert!(run.finished_at >= run.started_at);
    assert_eq!(f.store.pending().await.unwrap(), []);
}

#[tokio::test]
async fn a_failed_item_fails_its_run_and_spares_the_others() {
    let f = Fixture::new().await;
    let id = f.submit(vec![simple(&[1]), simple(&[2]), simple(&[3])]).await;
    let problem = |n: u32| Problem::at(Code::Internal, format!("/input/{n}"), "it \"broke\"");
    let failed = vec![(id, 2, problem(2)), (id, 1, problem(1))];
    let (pack, caches) = f.pack(id, vec![(0, simple(&[1]))]);
    let done = Completion { pack: Some(pack), failed, ..Completion::default() };
    assert_eq!(f.store.complete(done).await.unwrap(), [id]);
    let run = f.run(id).await;
    assert_eq!((run.status, run.n_done, run.n_failed), (RunStatus::Failed, 1, 2));
    assert_eq!(run.error, Some(problem(1)), "that of the first input");
    assert_eq!(run.caches, caches);
}

#[tokio::test]
async fn a_run_names_its_first_caches_whichever_items_have_one() {
    let f = Fixture::new().await;
    let items: Vec<NewItem> = (0..400).map(|i| simple(&[i])).collect();
    let id = f.submit(items.clone()).await;
    let mut expected = Vec::new();
    // a sparse run, as a rebuilt index may have; the latest first, which is not their order
    for some in [vec![399], (200..320).collect(), vec![3, 130]] {
        let some: Vec<(u32, NewItem)> = some.into_iter().map(|i| (i, items[i as usize].clone())).collect();
        let indices: Vec<u32> = some.iter().map(|(i, _)| *i).collect();
        let (pack, caches) = f.pack(id, some);
        f.complete(pack).await;
        expected.extend(indices.into_iter().zip(caches));
        expected.sort_unstable_by_key(|(i, _)| *i);
        let first: Vec<CacheId> = expected.iter().take(100).map(|(_, cache)| *cache).collect();
        assert_eq!(f.run(id).await.caches, first);
    }
    // a rebuilt index counts what it found
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite"));
    let mut conn = options.connect().await.unwrap();
    sqlx::query("UPDATE runs SET n_items = n_done").execute(&mut conn).await.unwrap();
    assert_eq!(f.run(id).await.caches.len(), 100);
    let dense = (0..150).map(|i| simple(&[i])).collect::<Vec<_>>();
    let id = f.submit(dense.clone()).await;
    let (pack, caches) = f.pack(id, (0..).zip(dense).collect());
    f.complete(pack).await;
    assert_eq!(f.run(id).await.caches, caches[..100]);
    let listed = f.store.runs(T, RunFilter::default(), None, 10).await.unwrap();
    assert_eq!(listed[0].caches, caches[..100]);
}

#[tokio::test]
async fn idempotency_keys_replay_or_conflict() {
    let f = Fixture::new().await;
    let keyed = |tenant, key: &str, hash: u8| NewRun {
        tenant,
        idempotency: Some((key.to_owned(), [hash; 32])),
        ..run(vec![simple(&[1])])
    };
    let insert = async |r| f.store.insert_run(r).await.unwrap();
    let Inserted::Created(id) = insert(keyed(T, "k", 1)).await else { panic!() };
    assert_eq!(insert(keyed(T, "k", 1)).await, Inserted::Replayed(id));
    assert_eq!(insert(keyed(T, "k", 2)).await, Inserted::KeyConflict);
    assert!(matches!(insert(keyed(T, "other", 2)).await, Inserted::Created(_)));
    assert!(matches!(insert(keyed(TenantId(2), "k", 2)).await, Inserted::Created(_)));
    assert!(matches!(insert(run(vec![simple(&[1])])).await, Inserted::Created(_)));
    assert!(f.store.delete_run(T, id).await.unwrap());
    assert!(matches!(insert(keyed(T, "k", 2)).await, Inserted::Created(_)));
    let same = keyed(T, "raced", 3);
    let raced = futures::future::join_all((0..20).map(|_| f.store.insert_run(same.clone()))).await;
    let created = raced.iter().filter(|r| matches!(r, Ok(Inserted::Created(_)))).count();
    assert_eq!(created, 1);
    assert!(f.store.insert_run(run(Vec::new())).await.is_err());
}

#[tokio::test]
async fn a_completion_that_comes_after_the_cancellation_changes_nothing() {
    let f = Fixture::new().await;
    let items = vec![simple(&[1]), simple(&[2])];
    let id = f.submit(items.clone()).await;
    let (first, caches) = f.pack(id, vec![(0, items[0].clone())]);
    f.complete(first).await;
    let (late, _) = f.pack(id, vec![(1, items[1].clone())]);
    let run = f.store.cancel_run(T, id, &[]).await.unwrap().unwrap();
    assert_eq!((run.status, run.n_done), (RunStatus::Cancelled, 1));
    assert!(run.finished_at.is_some());
    assert_eq!(f.complete(late).await, []);
    assert_eq!(f.run(id).await, run);
    assert_eq!(run.caches, caches);
    assert_eq!(f.files().len(), 1, "the late pack is removed");
    assert_eq!(f.store.cancel_run(T, id, &[]).await.unwrap().unwrap(), run, "ended runs stay as they are");
    assert_eq!(f.store.pending().await.unwrap(), []);
    assert_eq!(f.store.cancel_run(TenantId(2), id, &[]).await.unwrap(), None);

    // part of a pack is late: the rest of it counts
    let (cancelled, kept) = (f.submit(vec![simple(&[1])]).await, f.submit(vec![simple(&[2])]).await);
    let mut head = header(kept, vec![(0, simple(&[1])), (0, simple(&[2]))]);
    head.caches[0].run = cancelled;
    f.store.cancel_run(T, cancelled, &[]).await.unwrap();
    let id = head.caches[1].cache;
    assert_eq!(f.complete(write(&f.store, head)).await, [kept]);
    let stored = f.store.stored(T, &[id]).await.unwrap().remove(0).unwrap();
    let bytes = stored.read(&f.store, 0, 0..4).await.unwrap();
    assert_eq!(Dtype::Float32.decode(&bytes), [value(0, 4), value(0, 5), value(0, 6), value(0, 7)]);
    assert!(f.store.verify().await.unwrap().is_clean());
}

#[tokio::test]
async fn deleting_a_run_removes_its_caches_and_files() {
    let f = Fixture::keeping(Duration::ZERO).await;
    let (id, caches) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let (other, _) = f.stored(vec![simple(&[3])]).await;
    assert_eq!(f.files().len(), 3);
    let stored = f.store.stored(T, &caches).await.unwrap();
    assert!(!f.store.delete_run(TenantId(2), id).await.unwrap());
    assert!(f.store.delete_run(T, id).await.unwrap());
    assert!(!f.store.delete_run(T, id).await.unwrap());
    assert_eq!(f.files().len(), 1);
    assert_eq!(f.store.run(T, id).await.unwrap(), None);
    assert_eq!(f.store.cache(T, caches[0]).await.unwrap(), None);
    let gone = stored[0].as_ref().unwrap().read(&f.store, 0, 0..4).await;
    assert!(matches!(gone, Err(StoreError::Gone)), "{gone:?}");
    assert_eq!(f.run(other).await.caches.len(), 1);
    let stats = f.store.stats().await.unwrap();
    assert_eq!((stats.n_runs, stats.n_caches, stats.n_extents, stats.n_packs), (1, 1, 1, 1));

    // a run that is deleted while it is computed
    let id = f.submit(vec![simple(&[4])]).await;
    let (late, _) = f.pack(id, vec![(0, simple(&[4]))]);
    f.store.delete_run(T, id).await.unwrap();
    assert_eq!(f.complete(late).await, []);
    assert_eq!(f.files().len(), 1);
}

#[tokio::test]
async fn ten_thousand_items_are_one_run() {
    let f = Fixture::new().await;
    let items: Vec<NewItem> = (0..10_000).map(|i| simple(&[i, i + 1, i + 2])).collect();
    let id = f.submit(items.clone()).await;
    assert_eq!(f.run(id).await.n_items, 10_000);
    let pending = f.store.pending().await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].items, (0..10_000).collect::<Vec<_>>());
    assert_eq!(f.store.items(id, &[9_999]).await.unwrap(), [(9_999, items[9_999].clone())]);
    let (pack, _) = f.pack(id, (0..).zip(items).take(1_500).collect());
    assert_eq!(f.complete(pack).await, []);
    let run = f.run(id).await;
    assert_eq!((run.n_done, run.caches.len()), (1_500, 100));
    assert_eq!(f.store.run_caches(T, id, 1_490, 100).await.unwrap().len(), 10);
}

#[tokio::test]
async fn many_tasks_write_at_once_and_one_failure_takes_nobody_along() {
    let f = Fixture::new().await;
    let doomed = f.submit(vec![simple(&[1])]).await;
    let mut head = header(doomed, vec![(0, simple(&[1]))]);
    head.tenant = TenantId(2);
    let bad = Completion { pack: Some(write(&f.store, head)), ..Completion::default() };
    let inserts = futures::future::join_all((0..100).map(|i| f.submit(vec![simple(&[i])])));
    let units = [(doomed, 0)];
    let claims = futures::future::join_all((0..100).map(|_| f.store.claim(&units)));
    let (bad, ids, claims) = tokio::join!(f.store.complete(bad), inserts, claims);
    assert!(matches!(bad, Err(StoreError::Misuse(_))), "{bad:?}");
    assert!(claims.iter().all(Result::is_ok));
    assert_eq!(f.run(doomed).await.n_done, 0);
    for id in &ids {
        assert_eq!(f.run(*id).await.status, RunStatus::Queued);
    }
    let listed = f.store.runs(T, RunFilter::default(), None, 1_000).await.unwrap();
    assert_eq!(listed.len(), 101);
    assert!(listed.is_sorted_by(|a, b| a.id > b.id));
}

#[tokio::test]
async fn runs_are_listed_by_every_filter_in_pages() {
    let f = Fixture::new().await;
    let mut ids = Vec::new();
    for i in 0..6 {
        let mut new = run(vec![simple(&[i])]);
        new.model = if i % 2 == 0 { "even" } else { "odd" }.to_owned();
        new.tags = vec![format!("tag{}", i % 3), "all".to_owned()];
        new.tenant = if i == 5 { TenantId(2) } else { T };
        let Inserted::Created(id) = f.store.insert_run(new).await.unwrap() else { panic!() };
        ids.push(id);
    }
    f.store.cancel_run(T, ids[2], &[]).await.unwrap();
    let list = async |filter: RunFilter, before| -> Vec<RunId> {
        f.store.runs(T, filter, before, 10).await.unwrap().iter().map(|r| r.id).collect()
    };
    let by = RunFilter::default;
    assert_eq!(list(by(), None).await, [ids[4], ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(list(by(), Some(ids[2])).await, [ids[1], ids[0]]);
    let cancelled = RunFilter { status: Some(RunStatus::Cancelled), ..by() };
    assert_eq!(list(cancelled, None).await, [ids[2]]);
    assert_eq!(list(RunFilter { model: Some("odd".to_owned()), ..by() }, None).await, [ids[3], ids[1]]);
    let tag0 = RunFilter { tags: vec!["tag0".to_owned()], ..by() };
    assert_eq!(list(tag0.clone(), None).await, [ids[3], ids[0]]);
    assert_eq!(list(tag0.clone(), Some(ids[3])).await, [ids[0]]);
    assert_eq!(list(RunFilter { model: Some("even".to_owned()), ..tag0 }, None).await, [ids[0]]);
    let both = |tag: &str| RunFilter { tags: vec!["all".to_owned(), tag.to_owned()], ..by() };
    assert_eq!(list(both("tag1"), None).await, [ids[4], ids[1]]);
    assert_eq!(list(both("tag9"), None).await, []);
    let times: Vec<jiff::Timestamp> =
        f.store.runs(T, by(), None, 10).await.unwrap().iter().map(|r| r.created_at).collect();
    let between = RunFilter { created_from: Some(times[3]), created_to: Some(times[1]), ..by() };
    assert_eq!(list(between, None).await, [ids[2], ids[1]]);
}
