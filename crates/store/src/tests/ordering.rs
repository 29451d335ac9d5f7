//! Listing in both directions of time, without what is large, and by run; deleting what was listed.

use super::{finding::tags, *};

/// Items with the tags `even` or `odd`, every thousandth `both`, and the text `stone`.
fn many(n: u32) -> Vec<NewItem> {
    let one = |i: u32| {
        let mut item = simple(&[i]);
        let both = i.is_multiple_of(1000);
        item.tags = tags(if both {
            &["even", "odd"]
        } else if i.is_multiple_of(2) {
            &["even"]
        } else {
            &["odd"]
        });
        item.label = i.is_multiple_of(1500).then(|| "rare".to_owned());
        item.text = Some("stone".to_owned());
        item.metadata = Map::new();
        item
    };
    (0..n).map(one).collect()
}

fn having(some: &[&str]) -> CacheFilter {
    CacheFilter { tags: tags(some), ..CacheFilter::default() }
}

fn text(text: &str) -> CacheFilter {
    CacheFilter { text: Some(TextQuery::parse(text).unwrap()), ..CacheFilter::default() }
}

/// Everything that pages give, and the number of pages.
async fn walk(f: &Fixture, filter: &CacheFilter, order: Order, limit: u32) -> (Vec<CacheId>, u32) {
    let (mut after, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let request = PageRequest { order, after, limit, is_brief: false };
        let page = f.store.find_caches(T, filter, request).await.unwrap();
        assert!(page.caches.len() <= limit as usize);
        found.extend(page.caches.iter().map(|c| c.id));
        pages += 1;
        after = page.next;
        if after.is_none() {
            return (found, pages);
        }
    }
}

#[tokio::test]
async fn ascending_pages_are_descending_ones_reversed_whatever_the_filter() {
    let f = Fixture::new().await;
    let caches = f.stored_together(many(5_000)).await;
    let pin = CachePatch { pinned: Some(true), ..CachePatch::default() };
    let expire = |cache: &Cache| {
        let time = cache.created_at + std::time::Duration::from_secs(3600);
        CachePatch { expires_at: Some(Some(time)), ..CachePatch::default() }
    };
    for i in [10, 2_500, 4_999] {
        f.store.patch_cache(T, caches[i], pin.clone()).await.unwrap();
        let patch = expire(&f.cache(caches[i - 1]).await);
        f.store.patch_cache(T, caches[i - 1], patch).await.unwrap();
    }
    let time = async |i: usize| Some(f.cache(caches[i]).await.created_at);
    let only = |keep: &dyn Fn(usize) -> bool| (0..5_000).filter(|i| keep(*i)).collect::<Vec<usize>>();
    let (from, to) = (time(1_030).await, time(3_100).await);
    let soon = f.cache(caches[9]).await.created_at;
    let cases = [
        (CacheFilter::default(), only(&|_| true)),
        (having(&["even"]), only(&|i| i % 2 == 0)),
        (having(&["even", "odd"]), only(&|i| i % 1000 == 0)),
        (CacheFilter { label: Some("rare".to_owned()), ..having(&["even"]) }, only(&|i| i % 1500 == 0)),
        (text("stone"), only(&|_| true)),
        (CacheFilter { created_from: from, created_to: to, ..having(&["even", "odd"]) }, vec![2_000, 3_000]),
        (
            CacheFilter { created_from: from, created_to: to, ..CacheFilter::default() },
            only(&|i| (1_030..3_100).contains(&i)),
        ),
        (CacheFilter { pinned: Some(true), ..CacheFilter::default() }, vec![10, 2_500, 4_999]),
        (
            CacheFilter { pinned: Some(false), ..having(&["odd"]) },
            only(&|i| (i % 2 == 1 && i != 4_999) || i % 1000 == 0),
        ),
        (CacheFilter { expires_from: Some(soon), ..CacheFilter::default() }, vec![9, 2_499, 4_998]),
        (having(&["none"]), vec![]),
    ];
    for (filter, expected) in cases {
        let mut expected: Vec<CacheId> = expected.into_iter().map(|i| caches[i]).collect();
        for limit in [50, 1000] {
            let (found, pages) = walk(&f, &filter, Order::Ascending, limit).await;
            assert!(found == expected, "{filter:?}: {} of {}", found.len(), expected.len());
            assert!(pages < 200, "{pages}");
        }
        assert_eq!(f.store.cache_ids(T, &filter, Order::Ascending).await.unwrap(), expected, "{filter:?}");
        expected.reverse();
        let (found, _) = walk(&f, &filter, Order::Descending, 1000).await;
        assert!(found == expected, "{filter:?}: {} of {}", found.len(), expected.len());
        assert_eq!(f.store.cache_ids(T, &filter, Order::Descending).await.unwrap(), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn ids_are_by_run_and_input_whenever_caches_were_stored() {
    let f = Fixture::new().await;
    let first = f.submit(vec![simple(&[1]), simple(&[2]), simple(&[3])]).await;
    let (second, later) = f.stored(vec![simple(&[4]), simple(&[5])]).await;
    assert!(first < second);
    // the first run ends last, and its inputs in another order
    let mut of_first = Vec::new();
    for index in [2, 0, 1] {
        f.store.claim(&[(first, index)]).await.unwrap();
        let items = f.store.items(first, &[index]).await.unwrap();
        let pack = f.pack(first, items).0;
        f.complete(pack).await;
        let caches = f.store.run_caches(T, first, index, 1).await.unwrap();
        of_first.push((index, caches[0].id));
    }
    of_first.sort_unstable_by_key(|(index, _)| *index);
    let mut expected: Vec<CacheId> = of_first.into_iter().map(|(_, id)| id).chain(later).collect();
    let all = CacheFilter::default();
    assert_eq!(f.store.cache_ids(T, &all, Order::Ascending).await.unwrap(), expected);
    expected.reverse();
    assert_eq!(f.store.cache_ids(T, &all, Order::Descending).await.unwrap(), expected);
    assert!(f.store.cache_ids(TenantId(2), &all, Order::Ascending).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_brief_page_has_all_but_texts_and_tokens() {
    let f = Fixture::new().await;
    f.stored(vec![simple(&[1, 2]), simple(&[3])]).await;
    let whole = PageRequest::newest(None, 10);
    let brief = PageRequest { is_brief: true, ..whole };
    let all = CacheFilter::default();
    // the second time all that rows refer to is remembered
    for _ in 0..2 {
        let whole = f.store.find_caches(T, &all, whole).await.unwrap().caches;
        let brief = f.store.find_caches(T, &all, brief).await.unwrap().caches;
        assert_eq!(whole.len(), 2);
        assert!(whole.iter().all(|c| !c.token_ids.is_empty() && c.text.is_some()));
        let without = |c: Cache| Cache { text: None, token_ids: vec![], tokens: vec![], completion: None, ..c };
        assert_eq!(brief, whole.into_iter().map(without).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_a_filter_finds_is_deleted_once_and_nothing_else() {
    let f = Fixture::new().await;
    let caches = f.stored_together(many(2_400)).await;
    let pin = CachePatch { pinned: Some(true), ..CachePatch::default() };
    f.store.patch_cache(T, caches[700], pin).await.unwrap();
    let delete = async |tenant, filter: &CacheFilter| {
        let DeletedCaches { n_deleted, n_pinned } = f.store.delete_caches(tenant, filter).await.unwrap();
        (n_deleted, n_pinned)
    };
    let even = having(&["even"]);
    assert_eq!(delete(TenantId(2), &even).await, (0, 0), "another tenant has none of them");
    assert_eq!(delete(T, &even).await, (1_199, 1));
    assert_eq!(delete(T, &even).await, (0, 1), "again");
    let left = f.store.cache_ids(T, &CacheFilter::default(), Order::Ascending).await.unwrap();
    let expected: Vec<CacheId> = (0..2_400).filter(|i| i % 2 == 1 || *i == 700).map(|i| caches[i]).collect();
    assert!(left == expected, "{} of {}", left.len(), expected.len());
    assert_eq!(delete(T, &CacheFilter { pinned: Some(false), ..CacheFilter::default() }).await, (1_200, 0));
    assert_eq!(delete(T, &CacheFilter { pinned: Some(true), ..even }).await, (1, 0));
    assert!(f.store.cache_ids(T, &CacheFilter::default(), Order::Ascending).await.unwrap().is_empty());
    assert!(f.store.verify().await.unwrap().is_clean());
}
