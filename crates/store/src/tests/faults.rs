//! A crash, and an error, between any two steps of storing, merging and deleting.

use std::sync::{Arc, Mutex};

use super::{
    super::fault::{Action, Faults},
    *,
};

/// What a process that is killed at `point` leaves behind: a copy of the data folder.
fn look_at(f: &Fixture, point: &str) -> TempDir {
    look_after(f, point, 0)
}

/// The same after so many passes.
fn look_after(f: &Fixture, point: &str, passes: u32) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    let (from, to) = (f.dir.path().to_owned(), copied.path().to_owned());
    let look = Action::Look(Box::new(move || copy(&from, &to)));
    f.store.blobs().faults.arm(point, passes, look);
    copied
}

async fn reopen(dir: TempDir) -> Fixture {
    let store = Store::open(dir.path()).await.unwrap();
    Fixture { dir, store }
}

#[tokio::test]
async fn a_capture_that_is_cut_off_is_whole_or_was_not() {
    let mut passed = 0;
    for point in Faults::points() {
        let f = Fixture::new().await;
        let (_, kept) = f.stored(vec![simple(&[1])]).await;
        let run = f.submit(vec![simple(&[2])]).await;
        let killed = look_at(&f, point);
        let (pack, ids) = f.pack(run, vec![(0, simple(&[2]))]);
        f.complete(pack).await;
        if !f.store.blobs().faults.is_spent() {
            continue;
        }
        passed += 1;
        f.assert_clean().await;
        let after = reopen(killed).await;
        after.assert_clean().await;
        assert_eq!(after.cache(kept[0]).await, f.cache(kept[0]).await);
        let status = after.run(run).await.status;
        if matches!(point, "index.committed") {
            assert_eq!(status, RunStatus::Completed, "{point}");
            assert_eq!(everything(&after.store, T).await, everything(&f.store, T).await);
        } else {
            assert_eq!(status, RunStatus::Queued, "{point}");
            assert!(after.store.cache(T, ids[0]).await.unwrap().is_none());
            let (again, _) = after.pack(run, vec![(0, simple(&[2]))]);
            assert_eq!(after.complete(again).await, [run]);
        }
        after.assert_clean().await;
    }
    assert_eq!(passed, 7, "four steps of the blob, three of the index");
}

#[tokio::test]
async fn a_merge_that_is_cut_off_left_everything_where_it_was_or_moved_it() {
    let mut passed = Vec::new();
    for point in Faults::points() {
        let f = Fixture::new().await;
        f.varied(Dtype::Float16).await;
        let before = everything(&f.store, T).await;
        // the first commit only says that a copy is made
        let killed = look_after(&f, point, u32::from(point.starts_with("index.") && !point.contains("unlink")));
        f.store.merge(&Compaction::thorough()).await.unwrap();
        if !f.store.blobs().faults.is_spent() {
            continue;
        }
        passed.push(point);
        let after = reopen(killed).await;
        after.assert_clean().await;
        assert_eq!(everything(&after.store, T).await, before, "{point}");
        let moved = matches!(point, "index.committed" | "index.unlinked");
        assert_eq!(after.files().len(), if moved { 1 } else { 7 }, "{point}");
        after.store.merge(&Compaction::thorough()).await.unwrap();
        assert_eq!(after.files().len(), 1);
        assert_eq!(everything(&after.store, T).await, before);
        after.assert_clean().await;
    }
    let expected = ["merge.written", "merge.synced", "merge.named", "merge.durable", "index.begun", "index.applied"];
    assert_eq!(passed[..6], expected);
    assert_eq!(passed[6..], ["index.committed", "index.unlinked", "merge.moved"]);
}

#[tokio::test]
async fn a_deletion_that_is_cut_off_happened_or_did_not() {
    for point in ["index.begun", "index.applied", "index.committed", "index.unlinking", "index.unlinked"] {
        let f = Fixture::new().await;
        let (_, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
        let killed = look_at(&f, point);
        assert!(f.store.delete_cache(T, ids[0]).await.unwrap());
        assert!(f.store.blobs().faults.is_spent());
        let after = reopen(killed).await;
        after.assert_clean().await;
        let left = if matches!(point, "index.begun" | "index.applied") { 2 } else { 1 };
        assert_eq!((everything(&after.store, T).await.len(), after.files().len()), (left, left), "{point}");
    }
}

#[tokio::test]
async fn a_step_that_fails_costs_what_it_was_part_of() {
    for point in Faults::points() {
        let f = Fixture::new().await;
        let (_, kept) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
        let before = everything(&f.store, T).await;
        let run = f.submit(vec![simple(&[3])]).await;
        let fail = || f.store.blobs().faults.arm(point, 0, Action::Error);

        fail();
        let mut writer = f.store.begin_pack(header(run, vec![(0, simple(&[3]))])).unwrap();
        writer.write(0, 0..1, &[1.0; 4]).unwrap();
        let stored = match writer.finish() {
            Ok(pack) => f.store.complete(Completion { pack: Some(pack), ..Completion::default() }).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = &stored {
            assert!(error.to_string().contains("a fault was injected"), "{error}");
            assert!(f.store.blobs().faults.is_spent());
            assert_eq!(f.run(run).await.status, RunStatus::Queued);
            assert_eq!(everything(&f.store, T).await, before);
        }
        f.store.blobs().faults.arm("nowhere", 0, Action::Error);
        f.store.gc().await.unwrap();
        f.assert_clean().await;

        let more = f.stored((10..13).map(|t| simple(&[t])).collect()).await;
        let before = everything(&f.store, T).await;
        fail();
        let merged = f.store.merge(&Compaction::thorough()).await;
        f.store.blobs().faults.arm("nowhere", 0, Action::Error);
        assert_eq!(everything(&f.store, T).await, before, "{point}: {merged:?}");
        f.store.gc().await.unwrap();
        assert_eq!(everything(&f.store, T).await, before);
        f.assert_clean().await;

        fail();
        let deleted = f.store.delete_run(T, more.0).await;
        f.store.blobs().faults.arm("nowhere", 0, Action::Error);
        let left = if deleted.is_ok() { before.len() - 3 } else { before.len() };
        assert_eq!(everything(&f.store, T).await.len(), left);
        f.store.gc().await.unwrap();
        f.assert_clean().await;
        assert!(f.store.cache(T, kept[0]).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn everybody_in_a_group_is_told_that_it_failed() {
    let f = Fixture::new().await;
    f.store.blobs().faults.arm("index.applied", 0, Action::Error);
    let seen = Arc::new(Mutex::new(0));
    let all = (0..20).map(|t| {
        let (store, seen) = (f.store.clone(), Arc::clone(&seen));
        async move {
            if store.insert_run(super::run(vec![simple(&[t])])).await.is_err() {
                *seen.lock().unwrap() += 1;
            }
        }
    });
    futures::future::join_all(all).await;
    let failed = *seen.lock().unwrap();
    assert!(failed > 0);
    assert_eq!(f.store.stats().await.unwrap().n_runs, 20 - failed);
}
