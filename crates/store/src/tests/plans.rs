//! The plans of the statements that routes run: none goes through a whole table.

use std::{collections::BTreeSet, ffi::CStr, ptr};

use jiff::Timestamp;
use libsqlite3_sys::{SQLITE_STMTSTATUS_REPREPARE, sqlite3_next_stmt, sqlite3_sql, sqlite3_stmt_status};
use serde_json::json;
use sqlx::{Row, Sqlite, SqliteConnection};

use super::{finding::tags, *};
use crate::find::search::Search;

/// The steps of a statement's plan, none of which goes through a whole table or index.
async fn plan(f: &Fixture, query: &mut sqlx::QueryBuilder<Sqlite>) -> Vec<String> {
    let (plan, long) = steps(f, query).await;
    // what only adds a row, or touches no table, has nothing to look for
    let plain = ["INSERT", "SELECT 1"].iter().any(|verb| query.sql().as_str().starts_with(verb));
    assert!(!plan.is_empty() || plain, "{}", query.sql().as_str());
    assert!(long.is_empty(), "{}\n{long:#?}", query.sql().as_str());
    plan
}

/// The steps of a statement's plan, and those of them that go through a whole table or index.
async fn steps(f: &Fixture, query: &mut sqlx::QueryBuilder<Sqlite>) -> (Vec<String>, Vec<String>) {
    let sql = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *f.store.reader().await.unwrap()).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|r| r.get("detail")).collect();
    let is_long = |line: &&String| {
        // what is bound, what the index of words finds by words or by times, what waits in the queue, and intermediate results are short
        let words = line.contains("cache_terms") && line.rsplit(':').next().is_some_and(|how| how.contains(['M', '=']));
        let bound = line.starts_with("SCAN j") && line.contains("VIRTUAL TABLE");
        let queue = line.contains("INDEX runs_unfinished") || line.contains("INDEX run_items_pending");
        let inner = line.contains("(subquery-") || line.starts_with("SCAN CONSTANT") || line.starts_with("SCAN d");
        let short = words
            || bound
            || queue
            || inner
            || ["SCAN sqlite_sequence", "SCAN tenants", "SCAN cache_blocks", "SCAN heads", "SCAN served"]
                .contains(&line.as_str());
        !short && (line.contains("SCAN") || line.contains("AUTOMATIC"))
    };
    let long = plan.iter().filter(is_long).cloned().collect();
    (plan, long)
}

/// Each condition alone and with any others, from a place to go on from.
fn every_filter() -> Vec<CacheFilter> {
    let time = Timestamp::now();
    let filter = |bits: u32| {
        let has = |bit: u32| bits & (1 << bit) != 0;
        CacheFilter {
            model: has(0).then(|| "m".to_owned()),
            run: has(1).then(RunId::generate),
            tags: if has(2) { tags(&["a", "b"]) } else { Vec::new() },
            label: has(3).then(|| "l".to_owned()),
            hooks: if has(4) { vec![RESID.parse().unwrap()] } else { Vec::new() },
            created_from: has(5).then_some(time),
            created_to: has(5).then_some(time),
            text: has(6).then(|| TextQuery::parse("t u").unwrap()),
            metadata: if has(7) { object(json!({"k": 1})) } else { Map::new() },
            pinned: has(8).then_some(bits.is_multiple_of(3)),
            expires_from: has(9).then_some(time),
            expires_to: has(9).then_some(time),
            fingerprint: has(8).then(|| "f".to_owned()),
            bos: has(9).then_some(true),
        }
    };
    (0..1 << 10).map(filter).collect()
}

fn every_run_filter() -> Vec<RunFilter> {
    let filter = |bits: u32| RunFilter {
        status: (bits & 1 != 0).then_some(RunStatus::Queued),
        model: (bits & 2 != 0).then(|| "m".to_owned()),
        tags: if bits & 4 != 0 { tags(&["a", "b"]) } else { Vec::new() },
        created_from: (bits & 8 != 0).then(Timestamp::now),
        created_to: (bits & 8 != 0).then(Timestamp::now),
    };
    (0..1 << 4).map(filter).collect()
}

#[tokio::test]
async fn no_listing_scans_a_table() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1]), item(&[3], capture(&[QUERY, RESID], Positions::Last, Dtype::Float32))]).await;
    for filter in every_filter() {
        let mut reader = f.store.reader().await.unwrap();
        let mut conn = reader.snapshot().await.unwrap();
        for order in Order::ALL {
            let chosen = Search::ordered(&mut conn, T, &filter, (order, Some(1)), 0).await.unwrap();
            // whichever condition is walked
            for search in (0..).map_while(|n| chosen.walking(n)) {
                for mut statement in search.statements() {
                    let plan = plan(&f, &mut statement).await;
                    let sorts = plan.iter().any(|l| l.contains("USE TEMP B-TREE"));
                    assert!(!sorts || search.sorts(), "only few caches may be sorted: {plan:#?}");
                }
                // what all the ids are asked for is sorted by design
                plan(&f, &mut search.ids(order)).await;
            }
        }
    }
}

#[tokio::test]
async fn no_other_route_scans_a_table() {
    let f = Fixture::new().await;
    let (run, ids) = f.stored(vec![simple(&[1])]).await;
    plan(&f, &mut crate::find::caches::by_ids(T, &ids, 0)).await;
    plan(&f, &mut crate::find::caches::by_ids(T, &[ids[0]; 2], 0)).await;
    plan(&f, &mut crate::find::caches::of_run(T, run, 0, 10, 0)).await;
    plan(&f, &mut crate::runs::listing::by_id(T, run, 0)).await;
    for constant in [crate::runs::reuse::EQUAL, crate::runs::import::EARLIER, crate::packs::insert::ENDS] {
        plan(&f, &mut sqlx::QueryBuilder::new(constant)).await;
    }
    for filter in every_run_filter() {
        for before in [None, Some(RunId::generate())] {
            let plan = plan(&f, &mut crate::runs::listing::listing("", T, &filter, before, 10, 0)).await;
            assert!(!plan.iter().any(|l| l.contains("USE TEMP B-TREE FOR ORDER BY")), "{plan:#?}");
        }
    }
    // whatever else is in the sources of this module
    let mut long = Vec::new();
    for statement in statements() {
        let found = steps(&f, &mut sqlx::QueryBuilder::new(statement.as_str())).await.1;
        long.extend((!found.is_empty()).then_some((statement, found)));
    }
    assert!(long.is_empty(), "{long:#?}");
}

/// What listings run is planned once, and not again for every value that is bound, as SQLite does where a plan may depend on it:
/// that takes longer than many a page. So what [`plan`] sees is what is run.
#[tokio::test]
async fn listings_are_planned_once() {
    let f = Fixture::new().await;
    let (run, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let filters = every_filter();
    let mut searches = Vec::new();
    for filter in &filters {
        let mut reader = f.store.reader().await.unwrap();
        let mut conn = reader.snapshot().await.unwrap();
        for order in Order::ALL {
            let chosen = Search::ordered(&mut conn, T, filter, (order, None), 0).await.unwrap();
            searches.extend((0..).map_while(|n| chosen.walking(n)));
        }
    }
    let statements = || {
        let mut all: Vec<_> = searches.iter().flat_map(Search::statements).collect();
        all.push(crate::find::caches::by_ids(T, &ids, 0));
        all.push(crate::find::caches::by_ids(T, &ids[..1], 0));
        all.push(crate::find::caches::of_run(T, run, 0, 10, 0));
        all.push(crate::runs::listing::by_id(T, run, 0));
        for before in [None, Some(run)] {
            let listed = every_run_filter();
            all.extend(listed.iter().map(|filter| crate::runs::listing::listing("", T, filter, before, 10, 0)));
        }
        all.extend([None, Some(DirectionId::generate())].map(|id| crate::directions::listing("", T, id, 10)));
        all
    };
    let mut reader = f.store.reader().await.unwrap();
    let mut again = BTreeSet::new();
    for (mut first, mut second) in statements().into_iter().zip(statements()) {
        first.build().fetch_all(&mut *reader).await.unwrap();
        second.build().fetch_all(&mut *reader).await.unwrap();
        again.extend(planned_again(&mut reader).await);
    }
    assert!(again.is_empty(), "{again:#?}");
}

/// Of the statements that a connection remembers, those that SQLite planned more than once.
async fn planned_again(conn: &mut SqliteConnection) -> Vec<String> {
    let mut handle = conn.lock_handle().await.unwrap();
    let db = handle.as_raw_handle().as_ptr();
    let mut found = Vec::new();
    // SAFETY: the connection is locked, so that it and its statements stay while they are looked at
    unsafe {
        let mut statement = sqlite3_next_stmt(db, ptr::null_mut());
        while !statement.is_null() {
            if sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_REPREPARE, 0) > 0 {
                found.push(CStr::from_ptr(sqlite3_sql(statement)).to_str().unwrap().to_owned());
            }
            statement = sqlite3_next_stmt(db, statement);
        }
    }
    found
}

/// The statements written out in the sources of this crate: whatever is handed to `sqlx::query` or `Tx::later` as a literal.
/// Upkeep that no route does is left out.
fn statements() -> Vec<String> {
    const UPKEEP: [&str; 5] = ["tests", "checks", "keys.rs", "upkeep/collect.rs", "upkeep/compaction/choose.rs"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let left_out = UPKEEP.map(|path| root.join(path));
    assert!(left_out.iter().all(|path| path.exists()), "what is left out has moved: {left_out:#?}");
    let (mut found, mut folders) = (Vec::new(), vec![root]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if left_out.contains(&path) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.extend(statements_of(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 30, "{}", found.len());
    found
}

/// The statements of one file.
fn statements_of(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let ends = ["async fn collect_rows", "struct EnterMissing", "#[cfg(test)]\nmod tests {"];
    let source = ends.iter().fold(source, |source, end| source.split(end).next().unwrap());
    for call in ["sqlx::query(", "sqlx::query_scalar(", "tx.later("] {
        for (at, _) in source.match_indices(call) {
            let rest = source[at + call.len()..].trim_start();
            let Some(literal) = rest.strip_prefix('"').and_then(|l| l.split('"').next()) else { continue };
            let lines: Vec<&str> = literal.split("\\\n").map(str::trim_start).collect();
            let sql = lines.concat();
            if ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|verb| sql.starts_with(verb)) {
                found.push(sql);
            }
        }
    }
    found
}
