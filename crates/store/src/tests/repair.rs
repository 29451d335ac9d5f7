//! Repair drops what cannot be right, keeps the rest, and throws no file away.

use sqlx::SqliteConnection;

use super::*;

fn damaged_files(f: &Fixture) -> Vec<String> {
    let Ok(folder) = fs::read_dir(f.dir.path().join("damaged")) else { return Vec::new() };
    folder.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

async fn connect(f: &Fixture) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(f.dir.path().join("index.sqlite")).foreign_keys(false);
    options.connect().await.unwrap()
}

/// The path of a cache's blob, found by its id in the header.
fn blob_of(f: &Fixture, id: CacheId) -> PathBuf {
    let holds = |p: &PathBuf| String::from_utf8_lossy(&fs::read(p).unwrap()).contains(&id.to_string());
    f.files().into_iter().find(holds).unwrap()
}

#[tokio::test]
async fn a_damaged_blob_costs_its_caches_only() {
    let f = Fixture::new().await;
    let items = variety(Dtype::Float32);
    let run = f.submit(items.clone()).await;
    let (pack, ids) = f.pack(run, (0..).zip(items).collect());
    f.complete(pack).await;
    let (_, short) = f.stored(vec![simple(&[20])]).await;
    let (_, missing) = f.stored(vec![simple(&[21])]).await;
    let (_, headless) = f.stored(vec![simple(&[22])]).await;
    let (_, sound) = f.stored(vec![simple(&[23])]).await;
    let before = everything(&f.store, T).await;

    // the last bytes are the last item's alone
    let big = blob_of(&f, ids[0]);
    let mut bytes = fs::read(&big).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&big, &bytes).unwrap();
    let path = blob_of(&f, short[0]);
    fs::File::options().write(true).open(&path).unwrap().set_len(fs::metadata(&path).unwrap().len() - 1).unwrap();
    fs::remove_file(blob_of(&f, missing[0])).unwrap();
    let path = blob_of(&f, headless[0]);
    let mut header = fs::read(&path).unwrap();
    header[8] = b'!';
    fs::write(&path, header).unwrap();
    let stray = f.dir.path().join("blobs/stray.txt");
    let folder = big.parent().unwrap().join("notes.txt");
    fs::write(&folder, "mine").unwrap();
    fs::write(stray, "not in a folder of blobs").unwrap();

    // a fresh process, which has checked nothing yet
    f.store.clone().close().await;
    let Fixture { dir, store } = f;
    drop(store);
    let f = Fixture { store: Store::open(dir.path()).await.unwrap(), dir };
    let stored = f.store.stored(T, &[ids[4], short[0], missing[0], sound[0]]).await.unwrap();
    for (i, stored) in stored.iter().flatten().enumerate() {
        let checked = stored.check(&f.store).await;
        assert_eq!(matches!(checked, Err(StoreError::Damaged { .. })), i < 3, "{checked:?}");
    }
    drop(stored);
    let issues = f.store.verify().await.unwrap().issues;
    assert_eq!(issues.len(), 7, "{issues:#?}");

    let report = f.store.repair().await.unwrap();
    assert_eq!((report.n_caches, report.n_packs, report.n_rewritten, report.n_set_aside), (3, 2, 2, 5), "{report}");
    f.assert_clean().await;
    let mut expected = before.clone();
    for id in [ids[4], short[0], missing[0]] {
        expected.remove(&id);
    }
    assert_eq!(everything(&f.store, T).await, expected);
    assert_eq!(damaged_files(&f).len(), 5);
    let aside = f.dir.path().join("damaged").join(big.file_name().unwrap());
    assert_eq!(fs::read(aside).unwrap(), bytes, "kept as it was");
    assert_eq!(f.store.repair().await.unwrap(), RepairReport::default(), "nothing is left to do");
    // the run still counts what it did, and a new one is computed
    assert_eq!(f.run(run).await.n_done, 5);
    f.stored(vec![simple(&[20])]).await;
    f.assert_clean().await;
}

#[tokio::test]
async fn rows_that_cannot_be_are_dropped() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored((0..7).map(|t| simple(&[t, t])).collect()).await;
    let before = everything(&f.store, T).await;
    let mut conn = connect(&f).await;
    let id = |i: usize| ids[i].as_bytes().to_vec();
    for (statement, cache) in [
        ("UPDATE caches SET bos = '{}' WHERE id = ?", 0),
        ("UPDATE caches SET run_id = randomblob(16) WHERE id = ?", 1),
        ("UPDATE caches SET token_ids = x'01000000' WHERE id = ?", 2),
        ("UPDATE caches SET positions = '\"all\"' WHERE id = ?", 3),
        ("UPDATE extents SET row_start = 5 WHERE id = (SELECT extent_id FROM caches WHERE id = ?)", 4),
        ("DELETE FROM cache_terms WHERE rowid = (SELECT created_at FROM caches WHERE id = ?)", 5),
    ] {
        sqlx::query(statement).bind(id(cache)).execute(&mut conn).await.unwrap();
    }
    for statement in [
        "INSERT INTO run_tags (tenant_id, tag, run_id, position) VALUES (1, 't', randomblob(16), 0)",
        "INSERT INTO run_items (run_id, item_index, status) VALUES (randomblob(16), 0, 'done')",
        "DELETE FROM hook_set_hooks",
        "DELETE FROM forward_keys",
        "DELETE FROM forward_keys_new",
        "INSERT INTO forward_keys (prefix, extent_id) VALUES (x'010203040506', 1)",
        "INSERT INTO forward_keys_new (prefix, extent_id) VALUES (x'010203040506', 999)",
    ] {
        sqlx::query(statement).execute(&mut conn).await.unwrap();
    }
    let found = f.store.verify().await.unwrap();
    for part in
        ["refers to a missing row", "outside", "cache", "hook sets", "index of terms", "never reused", "have others"]
    {
        assert!(found.issues.iter().any(|i| i.detail.contains(part)), "{part}: {found}");
    }
    let report = f.store.repair().await.unwrap();
    assert!(report.n_caches >= 3, "{report}");
    f.assert_clean().await;
    let left = everything(&f.store, T).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), [&ids[5], &ids[6]]);
    assert_eq!(left[&ids[5]], before[&ids[5]]);
    let by_tag = CacheFilter { tags: vec!["zulu".to_owned()], ..CacheFilter::default() };
    assert_eq!(f.store.caches(T, &by_tag, None, 10).await.unwrap().len(), 2, "found again");
    assert_eq!(left[&ids[6]], before[&ids[6]]);
    let wanted = |t| Wanted { forward_key: key(&simple(&[t, t])), capture: simple(&[t, t]).capture, n_tokens: 2 };
    let found = f.store.find_reusable(T, &[wanted(0), wanted(5), wanted(6)]).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true], "reused again");
    let by_hook = CacheFilter { hooks: vec![RESID.parse().unwrap()], ..CacheFilter::default() };
    assert_eq!(f.store.caches(T, &by_hook, None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_headers_and_index_say_differently_is_found() {
    let f = Fixture::new().await;
    let (run, ids) = f.stored(vec![simple(&[1, 2]), simple(&[3, 4])]).await;
    let mut conn = connect(&f).await;
    let clean = || async { f.store.verify().await.unwrap().is_clean() };
    assert!(clean().await);
    for (change, back) in [
        (
            "UPDATE caches SET token_ids = x'0900000002000000' WHERE id = ?1",
            "UPDATE caches SET token_ids = x'0100000002000000' WHERE id = ?1",
        ),
        ("UPDATE caches SET item_index = 9 WHERE id = ?1", "UPDATE caches SET item_index = 0 WHERE id = ?1"),
        (
            "UPDATE extents SET forward_key = zeroblob(32) WHERE id = 1 AND ?1 <> 0",
            "UPDATE extents SET forward_key = NULL WHERE id = 1 AND ?1 <> 0",
        ),
        ("UPDATE provenances SET d_model = 5 WHERE ?1 <> 0", "UPDATE provenances SET d_model = 4 WHERE ?1 <> 0"),
        ("UPDATE packs SET tenant_id = 7 WHERE ?1 <> 0", "UPDATE packs SET tenant_id = 1 WHERE ?1 <> 0"),
        ("UPDATE runs SET n_done = 1 WHERE ?1 <> 0", "UPDATE runs SET n_done = 2 WHERE ?1 <> 0"),
    ] {
        sqlx::query(change).bind(ids[0].as_bytes().as_slice()).execute(&mut conn).await.unwrap();
        // a store that has remembered nothing
        let reader = Store::open_read_only(f.dir.path()).await.unwrap();
        assert!(!reader.verify().await.unwrap().is_clean(), "{change}");
        sqlx::query(back).bind(ids[0].as_bytes().as_slice()).execute(&mut conn).await.unwrap();
        assert!(reader.verify().await.unwrap().is_clean() || change.contains("provenances"), "{back}");
    }
    assert!(clean().await);
    assert_eq!(f.run(run).await.n_done, 2);
}
