//! No room left in the index. A disk that is really full is the business of tests/full_disk.py.

use super::*;
use crate::index::{terms::MergeTerms, tx::Tx, write::Write};

/// Lets the index grow by so many pages and no more; `None`: as it likes.
struct Room(Option<i64>);

impl Write for Room {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(tx.conn().await?).await?;
        let most = self.0.map_or(i64::from(u32::MAX) - 1, |more| pages + more);
        let sql = format!("PRAGMA max_page_count = {most}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(tx.conn().await?).await?;
        Ok(())
    }
}

fn is_full<V: std::fmt::Debug>(result: Result<V, StoreError>) -> bool {
    matches!(result, Err(StoreError::Full))
}

#[tokio::test]
async fn a_full_index_refuses_and_goes_on_when_there_is_room() {
    let f = Fixture::new().await;
    let items: Vec<NewItem> = (0..400).map(|i| simple(&[i, i + 1, i + 2, i + 3])).collect();
    let (old_run, old) = f.stored(vec![simple(&[7])]).await;
    let waiting = f.submit(items.clone()).await;
    let (pack, _) = f.pack(waiting, (0..).zip(items.clone()).collect());
    for room in 0..6 {
        f.store.write(Room(Some(room))).await.unwrap();
        assert!(is_full(f.store.insert_run(run(items.clone())).await), "{room}");
    }
    f.store.write(Room(Some(1))).await.unwrap();
    let done = Completion { pack: Some(pack), ..Completion::default() };
    assert!(is_full(f.store.complete(done).await));
    assert_eq!((f.run(waiting).await.n_done, f.store.stats().await.unwrap().n_packs), (0, 1));
    // those that wait for the same commit are told the same, and nothing of theirs is half done
    let unit = [(waiting, 0)];
    let both = tokio::join!(f.store.insert_run(run(items.clone())), f.store.claim(&unit));
    assert!(is_full(both.0));
    // what is stored is served, and can go
    assert!(f.store.cache(T, old[0]).await.unwrap().is_some());
    assert!(f.store.delete_run(T, old_run).await.unwrap());
    f.store.write(Room(None)).await.unwrap();
    f.store.gc().await.unwrap();
    let (pack, caches) = f.pack(waiting, (0..).zip(items).collect());
    assert_eq!(f.complete(pack).await, [waiting]);
    assert_eq!(f.run(waiting).await.caches, caches[..100]);
    assert!(f.store.verify().await.unwrap().is_clean());
    let after = f.after_crash().await;
    assert!(after.store.verify().await.unwrap().is_clean());
}

/// Takes a megabyte, though that could wait.
struct Greedy;

impl Write for Greedy {
    type Output = ();

    const OPTIONAL: bool = true;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later("UPDATE runs SET metadata = json_object('a', hex(zeroblob(1000000)))");
        Ok(())
    }
}

#[tokio::test]
async fn what_can_wait_leaves_what_room_there_is_to_others() {
    let f = Fixture::new().await;
    let id = f.submit(vec![simple(&[1])]).await;
    f.store.write(Room(Some(1))).await.unwrap();
    let unit = [(id, 0)];
    let (greedy, claimed) = tokio::join!(f.store.write(Greedy), f.store.claim(&unit));
    assert!(is_full(greedy));
    claimed.unwrap();
    assert!(is_full(f.store.write(Greedy).await), "alone it is told the same");
    f.store.write(Room(None)).await.unwrap();
    f.store.write(Greedy).await.unwrap();
    const { assert!(<MergeTerms as Write>::OPTIONAL) };
}

#[tokio::test]
async fn a_claim_that_is_taken_back_is_no_attempt() {
    let f = Fixture::new().await;
    let id = f.submit(vec![simple(&[1]), simple(&[2])]).await;
    for _ in 0..5 {
        f.store.claim(&[(id, 0)]).await.unwrap();
        f.store.release(&[(id, 0), (id, 1)]).await.unwrap();
    }
    f.store.claim(&[(id, 0)]).await.unwrap();
    let pending = f.after_crash().await.store.pending().await.unwrap();
    assert_eq!((pending[0].items.as_slice(), pending[0].attempted.as_slice()), ([0, 1].as_slice(), [0].as_slice()));
}

#[tokio::test]
async fn the_reserve_is_given_up_once_and_made_again() {
    let f = Fixture::new().await;
    let reserve = f.dir.path().join("reserve");
    assert!(reserve.exists());
    assert!(f.store.blobs().use_reserve());
    assert!(!reserve.exists() && !f.store.blobs().use_reserve());
    f.submit(vec![simple(&[1])]).await;
    assert!(reserve.exists(), "there is room again");
}

#[tokio::test]
async fn without_its_reserve_the_store_takes_only_what_frees_room() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let waiting = f.submit(vec![simple(&[3])]).await;
    let reserve = f.dir.path().join("reserve");
    assert!(f.store.blobs().use_reserve());
    // no room for another: nothing can be made there
    fs::create_dir(&reserve).unwrap();
    assert!(is_full(f.store.insert_run(run(vec![simple(&[4])])).await));
    assert!(is_full(f.store.claim(&[(waiting, 0)]).await));
    assert!(is_full(f.store.probe().await), "and it says so");
    let refused = f.store.begin_pack(header(waiting, vec![(0, simple(&[3]))])).map(drop);
    assert!(is_full(refused));
    // what is stored is served, and can go; what a start does is done
    assert!(f.store.cache(T, ids[0]).await.unwrap().is_some());
    assert!(f.store.delete_cache(T, ids[0]).await.unwrap());
    assert_eq!(f.store.pending().await.unwrap().len(), 1);
    f.store.gc().await.unwrap();
    fs::remove_dir(&reserve).unwrap();
    let (pack, _) = f.pack(waiting, vec![(0, simple(&[3]))]);
    assert_eq!(f.complete(pack).await, [waiting]);
    assert!(reserve.exists(), "there is room again");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_apart() {
    for errno in [libc::EROFS, libc::EACCES] {
        let error = StoreError::io("making /secret")(std::io::Error::from_raw_os_error(errno));
        assert!(matches!(error, StoreError::ReadOnly { .. }));
        let problem = Problem::from(error);
        assert_eq!(problem.code, Code::Unavailable);
        assert!(!problem.detail.contains("secret"));
    }
}
