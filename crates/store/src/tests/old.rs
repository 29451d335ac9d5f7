//! A data folder of the first release, made by its own program: `scripts/make_old_store.py`.

use super::*;

#[tokio::test]
async fn a_folder_of_the_first_release_is_brought_up_to_date_whole() {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/first_release");
    let dir = tempfile::tempdir().unwrap();
    copy(&made, dir.path());
    let said: Value = serde_json::from_slice(&fs::read(made.join("answers.json")).unwrap()).unwrap();
    let older = Store::open_read_only(dir.path()).await.map(drop);
    assert!(matches!(older, Err(StoreError::Older { .. })), "{older:?}");
    let n_blobs = files(dir.path()).len();

    let f = Fixture { store: Store::open(dir.path()).await.unwrap(), dir };
    assert_eq!((f.files().len(), f.store.n_unknown_blobs()), (n_blobs, 0));
    f.assert_clean().await;
    let check = async |f: &Fixture, reused: bool| {
        let found = everything(&f.store, T).await;
        let said: Vec<&Value> = said["caches"].as_array().unwrap().iter().map(|c| &c["cache"]).collect();
        assert!(said.len() >= 4);
        for expected in said {
            let id: CacheId = expected["id"].as_str().unwrap().parse().unwrap();
            if !reused && expected["reused"] == true {
                continue;
            }
            let (cache, bytes) = &found[&id];
            assert_eq!(serde_json::json!(cache.text), expected["text"]);
            assert_eq!(serde_json::json!(cache.tokens), expected["tokens"]);
            assert_eq!(serde_json::json!(cache.token_ids), expected["token_ids"]);
            assert_eq!(serde_json::json!(cache.content_hash), expected["content_hash"]);
            assert_eq!(bytes.iter().map(|b| b.len() as u64).sum::<u64>(), cache.n_bytes);
            if reused {
                assert_eq!(serde_json::json!(cache.tags), expected["tags"]);
                assert_eq!(serde_json::json!(cache.label), expected["label"]);
                assert_eq!(serde_json::json!(cache.metadata), expected["metadata"]);
            }
        }
    };
    check(&f, true).await;
    let by_word = CacheFilter { text: Some(TextQuery::parse("Eiffel").unwrap()), ..CacheFilter::default() };
    assert_eq!(f.store.caches(T, &by_word, None, 10).await.unwrap().len(), 2, "its words are found");
    let runs = f.store.runs(T, RunFilter::default(), None, 100).await.unwrap();
    assert_eq!(runs.len(), said["runs"].as_array().unwrap().len());
    for direction in said["directions"].as_array().unwrap() {
        let id = direction["id"].as_str().unwrap();
        assert_eq!(f.store.direction(T, id).await.unwrap().unwrap().info.name, direction["name"].as_str().unwrap());
    }

    // and from its blobs alone, what they say of it
    let Fixture { dir, store } = f;
    store.close().await;
    let report = Store::rebuild_index(dir.path()).await.unwrap();
    assert_eq!((report.n_set_aside, report.n_damaged), (1, 0), "{report}");
    let f = Fixture { store: Store::open(dir.path()).await.unwrap(), dir };
    check(&f, false).await;
    f.assert_clean().await;
    // new work goes on in it
    f.stored(vec![simple(&[1])]).await;
    f.store.merge(&Compaction::thorough()).await.unwrap();
    check(&f, false).await;
    f.assert_clean().await;
}
