//! Describing, listing, editing and deleting caches.

use std::collections::HashSet;

use sqlx::Row;

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
async fn every_filter_selects_and_all_of_them_together() {
    let f = Fixture::new().await;
    let mut items = vec![simple(&[1]), simple(&[2]), item(&[3], capture(&[QUERY], Positions::Last, Dtype::Float32))];
    items[0].tags = vec!["x".to_owned(), "y".to_owned()];
    items[1].tags = vec!["x".to_owned()];
    items[1].text = Some("The Eiffel TOWER 100%_\u{c9}".to_owned());
    items[2].text = None;
    items[2].label = Some("other".to_owned());
    let (run, ids) = f.stored(items).await;
    let (other_run, other) = f.stored(vec![simple(&[9])]).await;
    let list = async |filter: CacheFilter| -> Vec<CacheId> {
        f.store.caches(T, &filter, None, 10).await.unwrap().iter().map(|c| c.id).collect()
    };
    let by = CacheFilter::default;
    let tags = |t: &[&str]| t.iter().map(ToString::to_string).collect::<Vec<_>>();
    let text = |t: &str| CacheFilter { text: Some(t.to_owned()), ..CacheFilter::default() };
    assert_eq!(list(by()).await, [other[0], ids[2], ids[1], ids[0]]);
    assert_eq!(list(CacheFilter { run: Some(run), ..by() }).await, [ids[2], ids[1], ids[0]]);
    assert_eq!(list(CacheFilter { tags: tags(&["x"]), ..by() }).await, [ids[1], ids[0]]);
    assert_eq!(list(CacheFilter { tags: tags(&["x", "y"]), ..by() }).await, [ids[0]]);
    assert_eq!(list(CacheFilter { label: Some("other".to_owned()), ..by() }).await, [ids[2]]);
    assert_eq!(list(CacheFilter { hook: Some(QUERY.parse().unwrap()), ..by() }).await, [ids[2]]);
    assert_eq!(list(CacheFilter { model: Some("tiny".to_owned()), ..by() }).await.len(), 4);
    assert_eq!(list(CacheFilter { model: Some("none".to_owned()), ..by() }).await, []);
    assert_eq!(list(text("eiffel tower 100%_")).await, [ids[1]]);
    assert_eq!(list(text("Eiffel_TOWER")).await, [], "no wildcards");
    let made = f.cache(ids[1]).await.created_at;
    let later = made + std::time::Duration::from_nanos(1);
    assert_eq!(list(CacheFilter { created_from: Some(made), created_to: Some(later), ..by() }).await, [ids[1]]);
    assert_eq!(list(CacheFilter { created_from: Some(later), ..by() }).await, [other[0], ids[2]]);
    assert_eq!(list(CacheFilter { created_to: Some(made), ..by() }).await, [ids[0]]);
    let made_by = f.cache(ids[0]).await;
    let all = CacheFilter {
        model: Some("tiny".to_owned()),
        run: Some(run),
        tags: tags(&["x", "y"]),
        label: Some("label".to_owned()),
        hook: Some(RESID.parse().unwrap()),
        created_from: Some(f.cache(ids[0]).await.created_at),
        created_to: Some(made),
        text: Some("TEXT OF".to_owned()),
        metadata: object(serde_json::json!({"n": 0.1, "deep": {"a": [1, null]}})),
        fingerprint: Some(made_by.provenance.model_fingerprint.clone()),
        bos: Some(made_by.bos.present),
    };
    assert_eq!(list(CacheFilter { fingerprint: Some("other".to_owned()), ..all.clone() }).await, []);
    assert_eq!(list(CacheFilter { bos: Some(!made_by.bos.present), ..all.clone() }).await, []);
    assert_eq!(f.store.count_caches(T, &all).await.unwrap(), 1);
    assert_eq!(f.store.count_caches(T, &by()).await.unwrap(), 4);
    assert_eq!(list(all.clone()).await, [ids[0]]);
    assert_eq!(list(CacheFilter { run: Some(other_run), ..all }).await, []);
    for other in [
        serde_json::json!({"n": 0.2}),
        serde_json::json!({"n": "0.1"}),
        serde_json::json!({"deep": {}}),
        serde_json::json!({"\"n": 0.1}),
    ] {
        assert_eq!(list(CacheFilter { metadata: object(other.clone()), ..by() }).await, [], "{other}");
    }
    let order: Vec<u64> = f.store.run_caches(T, run, 1, 10).await.unwrap().iter().map(|c| c.item_index).collect();
    assert_eq!(order, [1, 2]);
}

#[tokio::test]
async fn pages_hold_each_cache_once_while_others_are_stored() {
    let f = Fixture::new().await;
    let (_, old) = f.stored((0..7).map(|i| simple(&[i])).collect()).await;
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = f.store.caches(T, &CacheFilter::default(), before, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        seen.extend(page.iter().map(|c| c.id));
        f.stored(vec![simple(&[99])]).await;
    }
    let expected: Vec<CacheId> = old.iter().rev().copied().collect();
    assert_eq!(seen, expected);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len());
}

#[tokio::test]
async fn no_listing_scans_a_table() {
    let f = Fixture::new().await;
    let explain = async |mut query: sqlx::QueryBuilder<sqlx::Sqlite>| {
        let rows = query.build().fetch_all(f.store.readers()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|r| r.get("detail")).collect();
        assert!(!plan.is_empty());
        for line in &plan {
            let scans = ["c", "r", "t", "e", "p", "caches", "runs"].map(|t| format!("SCAN {t}"));
            assert!(!scans.iter().any(|s| line == s || line.starts_with(&format!("{s} "))), "{plan:#?}");
        }
        plan
    };
    const EXPLAIN: &str = "EXPLAIN QUERY PLAN ";
    let time = jiff::Timestamp::now();
    // each condition alone and with all others, with and without a place to go on from
    for bits in 0..1024u32 {
        let has = |bit: u32| bits & (1 << bit) != 0;
        let filter = CacheFilter {
            model: has(0).then(|| "m".to_owned()),
            run: has(1).then(RunId::generate),
            tags: if has(2) { vec!["a".to_owned(), "b".to_owned()] } else { Vec::new() },
            label: has(3).then(|| "l".to_owned()),
            hook: has(4).then(|| RESID.parse().unwrap()),
            created_from: has(5).then_some(time),
            created_to: has(6).then_some(time),
            text: has(7).then(|| "t".to_owned()),
            metadata: if has(8) { object(serde_json::json!({"k": 1})) } else { Map::new() },
            fingerprint: has(9).then(|| "f".to_owned()),
            bos: has(9).then_some(true),
        };
        for before in [None, Some(CacheId::generate())] {
            let plan = explain(crate::store::caches::listing(EXPLAIN, T, &filter, before, 10)).await;
            let sorts = plan.iter().any(|l| l.contains("USE TEMP B-TREE FOR ORDER BY"));
            assert!(!sorts || filter.run.is_some(), "only the caches of one run may be sorted: {plan:#?}");
        }
    }
    for bits in 0..8u32 {
        let filter = RunFilter {
            status: (bits & 1 != 0).then_some(RunStatus::Queued),
            model: (bits & 2 != 0).then(|| "m".to_owned()),
            tag: (bits & 4 != 0).then(|| "t".to_owned()),
        };
        for before in [None, Some(RunId::generate())] {
            let plan = explain(crate::store::runs::listing(EXPLAIN, T, &filter, before, 10)).await;
            assert!(!plan.iter().any(|l| l.contains("USE TEMP B-TREE FOR ORDER BY")), "{plan:#?}");
        }
    }
}
