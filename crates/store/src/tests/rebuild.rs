//! The index is made anew from the blobs alone.

use super::*;

/// Closes the store, rebuilds its index and opens it again.
async fn rebuilt(f: Fixture) -> (Fixture, RebuildReport) {
    let Fixture { dir, store } = f;
    store.close().await;
    let report = Store::rebuild_index(dir.path()).await.unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    (Fixture { dir, store }, report)
}

/// Without what the header of a pack that was never rewritten does not say.
fn to_the_millisecond(all: Everything) -> Everything {
    let cut = |(id, (mut cache, bytes)): (CacheId, (Cache, Vec<Vec<u8>>))| {
        let ms = id.as_bytes()[..6].iter().fold(0, |ms, b| ms << 8 | i64::from(*b));
        cache.created_at = jiff::Timestamp::from_millisecond(ms).unwrap();
        (id, (cache, bytes))
    };
    all.into_iter().map(cut).collect()
}

#[tokio::test]
async fn everything_comes_back_from_packs_that_were_merged() {
    for dtype in Dtype::ALL {
        let f = Fixture::new().await;
        let runs = f.varied(dtype).await;
        let scores = "blocks.0.attn.hook_attn_scores";
        let odd = item(&[1, 2], capture(&[scores, RESID], Positions::Last, dtype));
        for _ in 0..2 {
            let run = f.submit(vec![odd.clone()]).await;
            let mut writer = f.store.begin_pack(header(run, vec![(0, odd.clone())])).unwrap();
            writer.write(0, 0..1, &[f32::NEG_INFINITY, 1.0, f32::NAN, f32::INFINITY]).unwrap();
            writer.write(1, 0..1, &[f32::NAN, f32::NEG_INFINITY, 1.0, 2.0]).unwrap();
            f.complete(writer.finish().unwrap()).await;
        }
        // edits are in the header of a pack that was written after them
        let edited = f.run(runs[0]).await.caches[0];
        let patch = CachePatch {
            tags: Some(vec!["edited".to_owned()]),
            metadata: Some(object(serde_json::json!({"more": {"x": 1}}))),
            label: Some(None),
            ..CachePatch::default()
        };
        f.store.patch_cache(T, edited, patch).await.unwrap();
        f.store.merge(&Compaction::thorough()).await.unwrap();
        let before = everything(&f.store, T).await;
        assert!(before.values().any(|(c, _)| c.stats == TensorStats { n_nan: 2, n_inf: 2 }));
        assert!(before.values().any(|(c, _)| c.reused) && before.values().any(|(c, _)| c.completion.is_some()));
        let (f, report) = rebuilt(f).await;
        assert_eq!((report.n_packs, report.n_caches, report.n_runs), (2, 14, 6), "{report}");
        assert_eq!((report.n_damaged, report.n_unhashed), (0, 0));
        assert_eq!(everything(&f.store, T).await, before);
        f.assert_clean().await;
        let run = f.run(runs[0]).await;
        assert_eq!((run.status, run.n_items, run.n_done, run.n_reused), (RunStatus::Completed, 5, 5, 0));
        assert!(run.generates && run.finished_at.is_some());
        assert_eq!(f.run(runs[3]).await.n_reused, 1);
        // nothing of it is computed again
        f.reusing(&item(&[1, 2, 3], capture(&[RESID], Positions::All, dtype))).await;
        assert_eq!(f.store.pending().await.unwrap(), []);
        let again = f.submit(vec![simple(&[77])]).await;
        f.complete(f.pack(again, vec![(0, simple(&[77]))]).0).await;
        f.assert_clean().await;
    }
}

#[tokio::test]
async fn everything_but_reused_caches_comes_back_from_fresh_packs() {
    let f = Fixture::new().await;
    f.varied(Dtype::Float32).await;
    let mut before = everything(&f.store, T).await;
    before.retain(|_, (cache, _)| !cache.reused);
    let (f, report) = rebuilt(f).await;
    assert_eq!((report.n_caches, report.n_set_aside), (11, 1), "{report}");
    assert_eq!(to_the_millisecond(everything(&f.store, T).await), to_the_millisecond(before.clone()));
    f.assert_clean().await;
    // and once more, after a merge
    f.store.merge(&Compaction::thorough()).await.unwrap();
    let (f, _) = rebuilt(f).await;
    assert_eq!(to_the_millisecond(everything(&f.store, T).await), to_the_millisecond(before));
}

#[tokio::test]
async fn a_newer_pack_stands_for_what_it_took_over() {
    let f = Fixture::new().await;
    let (run, _) = f.stored(vec![simple(&[1]), simple(&[2])]).await;
    let old = tempfile::tempdir().unwrap();
    copy(&f.dir.path().join("blobs"), old.path());
    f.store.merge(&Compaction::thorough()).await.unwrap();
    let before = everything(&f.store, T).await;
    // as if the process had been killed before it removed the old ones
    for folder in fs::read_dir(old.path()).unwrap() {
        let folder = folder.unwrap();
        let target = f.dir.path().join("blobs").join(folder.file_name());
        for file in fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    assert_eq!(f.files().len(), 3);
    let (f, report) = rebuilt(f).await;
    assert_eq!((report.n_packs, report.n_caches), (1, 2));
    assert_eq!(everything(&f.store, T).await, before);
    assert_eq!(f.files().len(), 1, "the start has removed them");
    assert_eq!(f.run(run).await.n_done, 2);
}

#[tokio::test]
async fn damaged_blobs_are_set_aside_and_damaged_rows_left_out() {
    let f = Fixture::new().await;
    let items = variety(Dtype::Float16);
    let run = f.submit(items.clone()).await;
    let (pack, ids) = f.pack(run, (0..).zip(items).collect());
    f.complete(pack).await;
    let big = f.files().remove(0);
    f.stored(vec![simple(&[1])]).await;
    let small = f.files().into_iter().find(|p| *p != big).unwrap();
    let before = to_the_millisecond(everything(&f.store, T).await);
    let mut bytes = fs::read(&big).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&big, bytes).unwrap();
    fs::write(&small, "{}").unwrap();
    let (f, report) = rebuilt(f).await;
    assert_eq!((report.n_packs, report.n_caches, report.n_damaged, report.n_set_aside), (1, 4, 1, 2), "{report}");
    let after = to_the_millisecond(everything(&f.store, T).await);
    let expected: Everything = before.into_iter().filter(|(id, _)| ids[..4].contains(id)).collect();
    assert_eq!(after, expected);
    f.assert_clean().await;
    assert!(f.dir.path().join("damaged").join(small.file_name().unwrap()).exists());
    assert!(f.dir.path().join("damaged/index.sqlite").exists());
}

#[tokio::test]
async fn packs_of_the_first_version_have_no_hashes() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1])]).await;
    let path = f.files().remove(0);
    let before = to_the_millisecond(everything(&f.store, T).await);
    let hash = before.values().next().unwrap().0.content_hash.clone();
    // the same length, so that everything else stays where it is
    let field = format!("\\\"content_hash\\\":\\\"{hash}\\\",");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(field.len()).position(|w| w == field.as_bytes()).unwrap();
    let mut old = bytes;
    old.splice(at..at + field.len(), std::iter::repeat_n(b' ', field.len()));
    fs::write(&path, old).unwrap();
    f.assert_clean().await;
    let (f, report) = rebuilt(f).await;
    assert_eq!((report.n_caches, report.n_unhashed), (1, 1));
    assert!(report.to_string().contains("earlier version"), "{report}");
    assert_eq!(everything(&f.store, T).await, before);
}

#[tokio::test]
async fn a_store_without_its_index_is_not_taken_for_a_new_one() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1])]).await;
    let before = to_the_millisecond(everything(&f.store, T).await);
    let Fixture { dir, store } = f;
    let locked = Store::rebuild_index(dir.path()).await;
    assert!(matches!(locked, Err(StoreError::Locked)), "{locked:?}");
    store.close().await;
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        drop(fs::remove_file(dir.path().join(name)));
    }
    for _ in 0..2 {
        let refused = Store::open(dir.path()).await.map(drop);
        assert!(matches!(refused, Err(StoreError::IndexLost)), "{refused:?}");
        assert_eq!(files(dir.path()).len(), 1);
    }
    Store::rebuild_index(dir.path()).await.unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    assert_eq!(everything(&store, T).await, before);
}

#[tokio::test]
async fn keys_and_lifetimes_are_taken_from_an_index_that_can_be_read() {
    #[derive(Clone, Copy, PartialEq)]
    enum Damage {
        None,
        /// One bit of a key's scopes, which are JSON no more.
        Flip,
        Pages,
    }
    for kind in [Damage::None, Damage::Flip, Damage::Pages] {
        let damage = kind != Damage::None;
        let f = Fixture::new().await;
        let (run, _) = f.stored(vec![simple(&[1]), simple(&[2]), simple(&[3])]).await;
        let caches = f.run(run).await.caches;
        let end = jiff::Timestamp::from_second(4_000_000_000).unwrap();
        let pin = CachePatch { pinned: Some(true), ..CachePatch::default() };
        f.store.patch_cache(T, caches[0], pin).await.unwrap();
        let expire = CachePatch { expires_at: Some(Some(end)), ..CachePatch::default() };
        f.store.patch_cache(T, caches[1], expire).await.unwrap();
        let mut keys = KeyStore::open(f.dir.path()).await.unwrap();
        let new = NewKey {
            key: ApiKey::generate().unwrap(),
            tenant: "lab".to_owned(),
            name: "a key".to_owned(),
            scopes: vec![Scope::Read],
            expires_at: Some(end),
        };
        keys.create(&new).await.unwrap();
        let before = keys.list().await.unwrap();
        drop(keys);
        let Fixture { dir, store } = f;
        store.close().await;
        let index = dir.path().join("index.sqlite");
        if damage {
            let mut bytes = fs::read(&index).unwrap();
            if kind == Damage::Flip {
                let scopes = br#"["read"]"#;
                let at = bytes.windows(scopes.len()).position(|w| w == scopes).unwrap();
                bytes[at] ^= 1;
            } else {
                bytes[4096..].fill(0xa5);
            }
            fs::write(&index, bytes).unwrap();
        }
        let report = Store::rebuild_index(dir.path()).await.unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let said = report.to_string();
        assert_eq!(report.n_caches, 3, "{said}");
        assert_eq!(said.contains("cannot be read") && said.contains("make new keys"), damage, "{said}");
        assert_eq!(store.keys().await.unwrap(), if damage { Vec::new() } else { before });
        assert_eq!(store.tenant("lab").await.unwrap().is_some(), !damage);
        let first = store.cache(T, caches[0]).await.unwrap().unwrap();
        let second = store.cache(T, caches[1]).await.unwrap().unwrap();
        let kept = kind != Damage::Pages;
        assert_eq!((first.pinned, second.expires_at), (kept, kept.then_some(end)));
        Fixture { dir, store }.assert_clean().await;
    }
}
