//! Describing, listing, editing and deleting caches.

use std::collections::HashSet;

use super::*;

#[tokio::test]
async fn a_cache_tells_everything_about_its_input() {
    let f = Fixture::new().await;
    let input = item(&[1, 2, u32::MAX], capture(&[QUERY, RESID], Positions::Mean, Dtype::Float16));
    let (run, ids) = f.stored(vec![input.clone()]).await;
    let cache = f.cache(ids[0]).await;
    assert_eq!((cache.id, cache.tenant, cache.run, cache.item_index), (ids[0], T, run, 0));
    assert_eq!((cache.model.as_str(), cache.n_layers, cache.d_model), ("tiny", 3, 4));
    assert_eq!((&cache.text, &cache.token_ids, &cache.tokens), (&input.text, &input.token_ids, &input.tokens));
    assert_eq!((&cache.capture, &cache.bos, cache.n_truncated), (&input.capture, &input.bos, 2));
    assert_eq!(cache.row_shapes, [vec![2, 3], vec![4]]);
    assert_eq!((&cache.tags, &cache.metadata, &cache.label), (&input.tags, &input.metadata, &input.label));
    assert_eq!((cache.provenance, cache.reused, cache.stats), (provenance(), false, TensorStats::default()));
    assert_eq!(f.store.cache(TenantId(2), ids[0]).await.unwrap(), None);
    assert_eq!(f.store.run_caches(TenantId(2), run, 0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn patches_merge_metadata_and_replace_the_rest() {
    let f = Fixture::new().await;
    let (_, ids) = f.stored(vec![simple(&[1])]).await;
    let before = f.cache(ids[0]).await;
    let patch = CachePatch {
        tags: Some(vec!["b".to_owned(), "a".to_owned(), "b".to_owned()]),
        metadata: Some(object(
            serde_json::json!({"n": null, "deep": {"a": "x", "b": {"c": null, "d": 1}}, "new": [1]}),
        )),
        label: Some(None),
        ..CachePatch::default()
    };
    let after = f.store.patch_cache(T, ids[0], patch).await.unwrap().unwrap();
    assert_eq!(after.tags, ["b", "a"]);
    assert_eq!(Value::from(after.metadata.clone()), serde_json::json!({"deep": {"a": "x", "b": {"d": 1}}, "new": [1]}));
    assert_eq!(after.label, None);
    assert_eq!((&after.content_hash, after.created_at), (&before.content_hash, before.created_at));
    let nothing = f.store.patch_cache(T, ids[0], CachePatch::default()).await.unwrap();
    assert_eq!(nothing, Some(after.clone()));
    let label = CachePatch { label: Some(Some("l".to_owned())), ..CachePatch::default() };
    assert_eq!(f.store.patch_cache(T, ids[0], label.clone()).await.unwrap().unwrap().label.as_deref(), Some("l"));
    assert_eq!(f.store.patch_cache(TenantId(2), ids[0], label).await.unwrap(), None);
    assert_eq!(f.cache(ids[0]).await.label.as_deref(), Some("l"));
}

#[tokio::test]
async fn pages_hold_each_cache_once_while_others_are_stored() {
    let f = Fixture::new().await;
    let (_, old) = f.stored((0..7).map(|i| simple(&[i])).collect()).await;
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = f.store.caches(T, &CacheFilter::default(), before, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.created_at);
        seen.extend(page.iter().map(|c| c.id));
        f.stored(vec![simple(&[99])]).await;
    }
    let expected: Vec<CacheId> = old.iter().rev().copied().collect();
    assert_eq!(seen, expected);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
}
