//! Blobs that the index does not know: garbage goes, data stays, whatever became of the index.

use super::*;

/// How many blobs lie in `unknown`.
fn aside(dir: &Path) -> usize {
    fs::read_dir(dir.join("unknown")).map_or(0, Iterator::count)
}

/// What a process that is killed now leaves behind.
fn killed(f: &Fixture) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(f.dir.path(), dir.path());
    dir
}

/// Ids and hashes of everything, since times of fresh packs come back to the millisecond.
async fn hashes(store: &Store) -> BTreeMap<CacheId, String> {
    everything(store, T).await.into_iter().map(|(id, (cache, _))| (id, cache.content_hash)).collect()
}

/// Starts on a folder, which must refuse or keep every blob but those whose inputs are computed again, and rebuilds the index.
/// Gives what there is then.
async fn rebuilt(dir: &Path, n_blobs: usize, what: &str) -> BTreeMap<CacheId, String> {
    match Store::open(dir).await {
        Ok(store) => {
            let waiting: usize = store.pending().await.unwrap().iter().map(|run| run.items.len()).sum();
            assert_eq!(store.n_unknown_blobs(), aside(dir) as u64);
            if aside(dir) == 0 {
                // as after a kill
                let found = hashes(&store).await;
                assert_eq!((files(dir).len(), found.len()), (n_blobs - waiting, n_blobs - waiting), "{what}");
                return found;
            }
            store.close().await;
            assert_eq!(files(dir).len() + aside(dir), n_blobs, "{what}: a start lost blobs");
        }
        Err(StoreError::IndexLost) => assert_eq!(files(dir).len(), n_blobs, "{what}"),
        Err(other) => panic!("{what}: {other}"),
    }
    Store::rebuild_index(dir).await.unwrap();
    assert_eq!(aside(dir), 0, "{what}: all were taken in");
    let store = Store::open(dir).await.unwrap();
    let report = store.verify().await.unwrap();
    assert!(report.is_clean() && report.notes.is_empty(), "{what}: {report}");
    let found = hashes(&store).await;
    store.close().await;
    found
}

#[tokio::test]
async fn a_start_without_the_log_loses_nothing() {
    let f = Fixture::new().await;
    for t in 0..6 {
        f.stored(vec![simple(&[t]), simple(&[t, 7])]).await;
    }
    let before = hashes(&f.store).await;
    let log = |dir: &TempDir| dir.path().join("index.sqlite-wal");
    let whole = fs::metadata(f.dir.path().join("index.sqlite-wal")).unwrap().len();
    for cut in [None, Some(0), Some(20), Some(whole / 3), Some(whole / 2), Some(whole - 5000), Some(whole - 1)] {
        let dir = killed(&f);
        match cut {
            None => fs::remove_file(log(&dir)).unwrap(),
            Some(length) => fs::File::options().write(true).open(log(&dir)).unwrap().set_len(length).unwrap(),
        }
        let found = rebuilt(dir.path(), 12, &format!("{cut:?} of {whole}")).await;
        let waits = found.len() + 1 == before.len() && cut.is_some_and(|length| length > whole / 2);
        assert!(found == before || waits && found.iter().all(|cache| before.get(cache.0) == Some(cache.1)), "{cut:?}");
    }
}

#[tokio::test]
async fn an_older_index_loses_nothing_that_was_stored_since() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let old = tempfile::tempdir().unwrap();
    f.store.clone().close().await;
    let Fixture { dir, store } = f;
    drop(store);
    copy(dir.path(), old.path());
    let f = Fixture { store: Store::open(dir.path()).await.unwrap(), dir };
    // what the old index knows moves, and more comes
    f.stored(vec![simple(&[3])]).await;
    f.store.merge(&Compaction::thorough()).await.unwrap();
    f.stored(vec![simple(&[4]), simple(&[5])]).await;
    let before = hashes(&f.store).await;
    let Fixture { dir, store } = f;
    store.close().await;
    let index = dir.path().join("index.sqlite");
    fs::copy(&index, old.path().join("newer.sqlite")).unwrap();
    fs::copy(old.path().join("index.sqlite"), &index).unwrap();
    assert_eq!(files(dir.path()).len(), 3);
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!((files(dir.path()).len(), aside(dir.path())), (0, 3));
    let found = store.verify().await.unwrap();
    assert!(!found.is_clean(), "blobs are missing where the old index has them");
    assert!(found.notes.iter().any(|note| note.contains("3 blobs")), "{found}");
    // a second start changes nothing, and upkeep neither
    store.gc().await.unwrap();
    store.close().await;
    Store::open(dir.path()).await.unwrap().close().await;
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    assert_eq!(rebuilt(dir.path(), 3, "older").await, before);
    // or the right index is put back
    fs::copy(old.path().join("newer.sqlite"), other.path().join("index.sqlite")).unwrap();
    let store = Store::open(other.path()).await.unwrap();
    assert_eq!((files(other.path()).len(), aside(other.path())), (3, 0));
    assert_eq!(hashes(&store).await, before);
}

#[tokio::test]
async fn unknown_blobs_go_when_they_are_told_to() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1])]).await;
    let dir = tempfile::tempdir().unwrap();
    let other = Store::open(dir.path()).await.unwrap();
    other.close().await;
    // a whole blob of another store
    let blob = f.files().remove(0);
    let folder = dir.path().join("blobs").join(blob.parent().unwrap().file_name().unwrap());
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&blob, folder.join(blob.file_name().unwrap())).unwrap();
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    let found = reader.verify().await.unwrap();
    assert!(found.to_string().contains("the index does not know this blob, which is whole"), "{found}");
    reader.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    let report = store.gc().await.unwrap();
    assert_eq!((report.n_orphans, store.n_unknown_blobs(), aside(dir.path())), (0, 1, 1));
    assert!(store.verify().await.unwrap().is_clean(), "it is noted only");
    let (n, n_bytes) = store.remove_unknown_blobs().await.unwrap();
    assert_eq!((n, n_bytes), (1, fs::metadata(&blob).unwrap().len()));
    assert_eq!((store.n_unknown_blobs(), aside(dir.path())), (0, 0));
}

#[tokio::test]
async fn what_was_deleted_does_not_come_back() {
    let f = Fixture::new().await;
    let (run, ids) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    f.stored(vec![simple(&[3])]).await;
    let kept = tempfile::tempdir().unwrap();
    copy(&f.dir.path().join("blobs"), kept.path());
    assert!(f.store.delete_cache(T, ids[0]).await.unwrap());
    assert!(f.store.delete_run(T, run).await.unwrap());
    let before = hashes(&f.store).await;
    // as if the process had been killed before it removed the files
    let dir = killed(&f);
    fs::remove_dir_all(dir.path().join("blobs")).unwrap();
    fs::create_dir(dir.path().join("blobs")).unwrap();
    copy(kept.path(), &dir.path().join("blobs"));
    let again = killed(&Fixture { dir, store: f.store.clone() });
    let reader = Store::open_read_only(again.path()).await.unwrap();
    let found = reader.verify().await.unwrap();
    assert!(found.is_clean() && found.notes.len() == 2, "{found}");
    reader.close().await;
    // a rebuild knows of it too
    let rebuild = tempfile::tempdir().unwrap();
    copy(again.path(), rebuild.path());
    let report = Store::rebuild_index(rebuild.path()).await.unwrap();
    assert_eq!(report.n_caches, 1, "{report}");
    for dir in [again, rebuild] {
        let store = Store::open(dir.path()).await.unwrap();
        assert_eq!((files(dir.path()).len(), aside(dir.path())), (1, 0));
        assert_eq!(hashes(&store).await, before);
        store.gc().await.unwrap();
        let left = sqlx::query_scalar("SELECT count(*) FROM tombstones");
        let left: i64 = left.fetch_one(&mut *store.reader().await.unwrap()).await.unwrap();
        assert_eq!(left, 0, "their files have gone");
    }
}

#[tokio::test]
async fn a_pack_of_a_run_that_ended_without_it_is_litter() {
    for deleted in [false, true] {
        let f = Fixture::new().await;
        let run = f.submit(vec![simple(&[1])]).await;
        let (pack, _) = f.pack(run, vec![(0, simple(&[1]))]);
        f.store.cancel_run(T, run, &[]).await.unwrap();
        if deleted {
            f.store.delete_run(T, run).await.unwrap();
        }
        let after = f.after_crash().await;
        assert_eq!((after.files().len(), aside(after.dir.path())), (0, 0), "{deleted}");
        drop(pack);
    }
    // one whose run is deleted here and now is this process's own
    let f = Fixture::new().await;
    let run = f.submit(vec![simple(&[1])]).await;
    let (pack, _) = f.pack(run, vec![(0, simple(&[1]))]);
    f.store.delete_run(T, run).await.unwrap();
    drop(pack);
    assert_eq!(f.store.gc().await.unwrap().n_orphans, 1);
    assert_eq!((f.files().len(), aside(f.dir.path())), (0, 0));
}

#[tokio::test]
async fn an_input_that_was_computed_again_counts_once() {
    let f = Fixture::new().await;
    let other = Fixture::new().await;
    let run = f.submit(vec![simple(&[1]), simple(&[2])]).await;
    let (first, _) = f.pack(run, vec![(0, simple(&[1])), (1, simple(&[2]))]);
    let same = f.files().remove(0);
    // with other numbers, which a second device may make
    let mut writer = other.store.begin_pack(header(run, vec![(0, simple(&[1]))])).unwrap();
    writer.write(0, 0..1, &[9.0; 4]).unwrap();
    let differing = writer.finish().unwrap();
    let odd = other.files().remove(0);
    let kept = tempfile::tempdir().unwrap();
    for path in [&same, &odd] {
        fs::copy(path, kept.path().join(path.file_name().unwrap())).unwrap();
    }
    drop((first, differing));
    f.store.gc().await.unwrap();
    let (again, ids) = f.pack(run, vec![(0, simple(&[1])), (1, simple(&[2]))]);
    f.complete(again).await;
    let before = hashes(&f.store).await;
    assert_eq!(before.keys().collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    let Fixture { dir, store } = f;
    store.close().await;
    for file in fs::read_dir(kept.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = dir.path().join("blobs").join(&name[name.len() - 2..]);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let report = Store::rebuild_index(dir.path()).await.unwrap();
    assert_eq!((report.n_caches, report.n_packs), (2, 1), "{report}");
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    let found = reader.verify().await.unwrap();
    assert!(found.is_clean(), "the command exits with 0: {found}");
    assert_eq!(found.notes.len(), 2, "one is superfluous, one lies aside: {found}");
    reader.close().await;
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(hashes(&store).await, before);
    assert_eq!((files(dir.path()).len(), aside(dir.path())), (1, 1));
}

#[tokio::test]
async fn what_a_kill_leaves_is_no_damage() {
    let f = Fixture::new().await;
    let run = f.submit(vec![simple(&[1]), simple(&[2])]).await;
    let half = f.store.begin_pack(header(run, vec![(0, simple(&[1]))])).unwrap();
    let (whole, _) = f.pack(run, vec![(1, simple(&[2]))]);
    let dir = killed(&f);
    let reader = Store::open_read_only(dir.path()).await.unwrap();
    let found = reader.verify().await.unwrap();
    assert!(found.is_clean() && found.notes.len() == 2, "{found}");
    drop((half, whole));
}

#[tokio::test]
async fn what_is_deleted_while_it_is_merged_stays_deleted() {
    let f = Fixture::new().await;
    f.varied(Dtype::Float16).await;
    let reusing = f.reusing(&variety(Dtype::Float16)[0]).await;
    let (run, ids) = f.stored(variety(Dtype::Float16)).await;
    let packs: Vec<PackId> =
        f.files().iter().map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect();
    let rewrite = f.store.index().rewrite(f.store.blobs().enter(), &packs, &[]).await.unwrap().unwrap();
    let throttle = crate::upkeep::compaction::throttle::Throttle::new(None, Arc::default());
    let copied = f.store.compactor().write_anew(rewrite, throttle).await.unwrap();
    assert_eq!(f.files().len(), packs.len() + 1);
    // with all that is in one pack, one of several, and one that only shares rows
    assert!(f.store.delete_run(T, run).await.unwrap());
    assert!(f.store.delete_run(T, reusing).await.unwrap());
    let together = f.store.caches(T, &CacheFilter::default(), None, 100).await.unwrap().pop().unwrap();
    assert!(f.store.delete_cache(T, together.id).await.unwrap());
    let before = hashes(&f.store).await;
    assert!(!before.contains_key(&ids[0]));
    let after = f.after_crash().await;
    assert_eq!((after.store.n_unknown_blobs(), hashes(&after.store).await), (0, before));
    after.assert_clean().await;
    drop(copied);
}
