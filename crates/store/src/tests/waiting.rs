//! Statements that wait, and ids that are remembered: what one change leaves to the next, and what it must not.

use sqlx::Row as _;

use super::*;
use crate::{
    error::code_of,
    index::{tx::Tx, write::Write},
};

/// Counts a probe, in a statement that waits, and then adds another with `statement`.
pub(super) struct Probing(pub(super) &'static str);

impl Write for Probing {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later("UPDATE counts SET n = n + ? WHERE what = ?").bind(1).bind("probes");
        tx.later(self.0);
        Ok(())
    }
}

const FINE: &str = "UPDATE counts SET n = n + 10 WHERE what = 'probes'";
/// `n` is never negative.
const FAILS: &str = "UPDATE counts SET n = -1 WHERE what = 'probes'";

async fn probes(f: &Fixture) -> i64 {
    sqlx::query_scalar("SELECT n FROM counts WHERE what = 'probes'")
        .fetch_one(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_waiting_statement_that_fails_costs_its_own_change_and_no_other() {
    let f = Fixture::new().await;
    assert!(matches!(f.store.write(Probing(FAILS)).await, Err(StoreError::Database(_))));
    assert_eq!(probes(&f).await, 0);
    // all of them wait before the writer has its turn, and are committed together
    let all = (0..40).map(|i| f.store.write(Probing(if i % 4 == 3 { FAILS } else { FINE })));
    let outcomes = futures::future::join_all(all).await;
    for (i, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), i % 4 == 3, "{i}: {outcome:?}");
    }
    assert_eq!(probes(&f).await, 30 * 11);
}

/// Inserts so many rows and gives back what a query finds of them.
struct Rows(i64);

impl Write for Rows {
    type Output = (i64, i64, i64);

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let rows: Vec<i64> = (0..self.0).collect();
        tx.later("CREATE TEMP TABLE numbers (n INTEGER, half TEXT)");
        tx.insert("INSERT INTO numbers (n, half)", &rows, 100, |script, n| {
            script.bind(*n).bind((n % 2 == 0).then(|| (n / 2).to_string()));
            Ok(())
        })
        .await?;
        tx.later("UPDATE numbers SET n = n + 1");
        tx.later("SELECT count(*), sum(n), count(half) FROM numbers");
        let rows = tx.rows().await?;
        tx.later("DROP TABLE numbers");
        let row = rows.first().ok_or(StoreError::Closed)?;
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
    }
}

#[tokio::test]
async fn rows_are_inserted_in_their_order_however_many_there_are() {
    let f = Fixture::new().await;
    for n in [1, 2, 63, 64, 65, 100, 101, 250, 1000] {
        let (count, sum, halves) = f.store.write(Rows(n)).await.unwrap();
        assert_eq!((count, sum, halves), (n, n * (n + 1) / 2, (n + 1) / 2));
    }
}

/// Adds a set of hooks and gives its id, or fails then.
struct AddSet(&'static str, bool);

impl Write for AddSet {
    type Output = i64;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<i64, StoreError> {
        let mut sets = crate::index::intern::HookSets::default();
        let id = sets.id(tx, &with_hook(self.0).capture.hooks).await?;
        if self.1 { Err(StoreError::Gone) } else { Ok(id) }
    }
}

/// The hooks of a set, as the index has them.
async fn hooks_of(f: &Fixture, set: i64) -> Vec<String> {
    sqlx::query_scalar("SELECT hook FROM hook_set_hooks WHERE hook_set_id = ?")
        .bind(set)
        .fetch_all(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap()
}

fn with_hook(name: &str) -> NewItem {
    item(&[1], capture(&[name], Positions::Last, Dtype::Float32))
}

#[tokio::test]
async fn an_id_that_was_undone_is_not_remembered() {
    let f = Fixture::new().await;
    assert!(f.store.write(AddSet(RESID, true)).await.is_err());
    // which gets the id that the other one had
    let other = f.store.write(AddSet(QUERY, false)).await.unwrap();
    let again = f.store.write(AddSet(RESID, false)).await.unwrap();
    assert_eq!((hooks_of(&f, other).await, hooks_of(&f, again).await), (vec![QUERY.into()], vec![RESID.into()]));
    // in a group, of which only one change is undone
    let f = Fixture::new().await;
    let before = f.store.commits();
    let (first, failed, other, again) = tokio::join!(
        f.store.write(AddSet(QUERY, false)),
        f.store.write(AddSet(RESID, true)),
        f.store.write(AddSet(PATTERN, false)),
        f.store.write(AddSet(RESID, false)),
    );
    assert!(matches!(failed, Err(StoreError::Gone)));
    for (set, hook) in [(first, QUERY), (other, PATTERN), (again, RESID)] {
        assert_eq!(hooks_of(&f, set.unwrap()).await, [hook]);
    }
    assert_eq!(f.store.commits() - before, 1, "they were a group");
}

#[tokio::test]
async fn an_id_that_was_collected_is_not_remembered() {
    let f = Fixture::new().await;
    let (run, _) = f.stored(vec![with_hook(RESID)]).await;
    assert!(f.store.delete_run(T, run).await.unwrap());
    f.store.gc().await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM hook_sets) + (SELECT count(*) FROM provenances)")
        .fetch_one(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(left, 0, "they were collected");
    let (_, ids) = f.stored(vec![with_hook(RESID)]).await;
    assert_eq!(f.cache(ids[0]).await.capture.hooks.len(), 1);
    f.assert_clean().await;
}

/// What the index says to a statement, on a connection of its own that waits for nobody.
async fn error_of(folder: &Path, sql: &'static str) -> StoreError {
    let options = SqliteConnectOptions::new().filename(folder.join("index.sqlite"));
    let mut conn = options.busy_timeout(std::time::Duration::ZERO).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut conn).await.unwrap_err().into()
}

#[tokio::test]
async fn errors_of_the_disk_or_the_whole_index_are_nobodys_in_particular() {
    let f = Fixture::new().await;
    let folder = f.dir.path().to_owned();
    for (sql, code) in [
        (FAILS, 275),
        ("SELECT * FROM nothing", 1),
        ("SELECT abs(-9223372036854775808)", 1),
        ("SELECT zeroblob(2147483648)", 18),
    ] {
        let error = error_of(&folder, sql).await;
        assert!(error.is_of_one_change(), "{sql}: {error}");
        assert!(matches!(&error, StoreError::Database(e) if code_of(e) == Some(code)), "{sql}: {error:?}");
    }
    // somebody else holds the index
    let mut other = SqliteConnectOptions::new().filename(folder.join("index.sqlite")).connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = error_of(&folder, FINE).await;
    assert!(matches!(&error, StoreError::Database(e) if code_of(e) == Some(5)), "{error:?}");
    assert!(!error.is_of_one_change());
    // a file that cannot be opened, and one that is no index
    let missing = SqliteConnectOptions::new().filename(folder.join("missing")).connect().await.unwrap_err();
    assert_eq!(code_of(&missing), Some(14));
    assert!(!StoreError::from(missing).is_of_one_change());
    fs::write(folder.join("other"), [7; 4096]).unwrap();
    let mut other = SqliteConnectOptions::new().filename(folder.join("other")).connect().await.unwrap();
    let error: StoreError = sqlx::raw_sql("SELECT * FROM sqlite_schema").execute(&mut other).await.unwrap_err().into();
    assert!(matches!(error, StoreError::IndexDamaged(_)) && !error.is_of_one_change(), "{error:?}");
}
