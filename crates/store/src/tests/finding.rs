//! Finding caches by every filter, and how.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sqlx::Connection;

use super::*;
use crate::{
    find::search::Search,
    index::{connect::MIGRATIONS, terms::MergeTerms, tx::Tx, write::Write},
};

async fn list(f: &Fixture, filter: CacheFilter) -> Vec<CacheId> {
    f.store.caches(T, &filter, None, 1000).await.unwrap().iter().map(|c| c.id).collect()
}

fn by() -> CacheFilter {
    CacheFilter::default()
}

pub(super) fn tags(tags: &[&str]) -> Vec<String> {
    tags.iter().map(ToString::to_string).collect()
}

fn text(text: &str) -> CacheFilter {
    CacheFilter { text: Some(TextQuery::parse(text).unwrap()), ..by() }
}

fn metadata(value: Value) -> CacheFilter {
    CacheFilter { metadata: object(value), ..by() }
}

#[tokio::test]
async fn every_filter_selects_and_all_of_them_together() {
    let f = Fixture::new().await;
    let mut items = vec![simple(&[1]), simple(&[2]), item(&[3], capture(&[QUERY], Positions::Last, Dtype::Float32))];
    items[0].tags = tags(&["x", "y"]);
    items[1].tags = tags(&["x"]);
    items[1].text = Some("The Eiffel TOWER 100%_\u{c9}".to_owned());
    items[2].text = None;
    items[2].label = Some("other".to_owned());
    let (run, ids) = f.stored(items).await;
    let (other_run, other) = f.stored(vec![simple(&[9])]).await;
    let (resid, query): (Hook, Hook) = (RESID.parse().unwrap(), QUERY.parse().unwrap());
    let made = f.cache(ids[1]).await.created_at;
    let later = made + std::time::Duration::from_nanos(1);
    let expires = made + std::time::Duration::from_secs(3600);
    let ends = CachePatch { expires_at: Some(Some(expires)), ..CachePatch::default() };
    f.store.patch_cache(T, ids[0], ends).await.unwrap().unwrap();
    let pinned = CachePatch { pinned: Some(true), ..CachePatch::default() };
    f.store.patch_cache(T, ids[0], pinned).await.unwrap().unwrap();
    let all = CacheFilter {
        model: Some("tiny".to_owned()),
        run: Some(run),
        tags: tags(&["x", "y"]),
        label: Some("label".to_owned()),
        hooks: vec![resid],
        created_from: Some(f.cache(ids[0]).await.created_at),
        created_to: Some(made),
        text: text("TEXT of").text,
        metadata: object(json!({"n": 0.1, "deep": {"a": [1, null]}})),
        pinned: Some(true),
        expires_from: Some(expires),
        expires_to: Some(expires + std::time::Duration::from_nanos(1)),
        fingerprint: None,
        bos: Some(true),
    };
    for (filter, expected) in [
        (by(), vec![other[0], ids[2], ids[1], ids[0]]),
        (CacheFilter { run: Some(run), ..by() }, vec![ids[2], ids[1], ids[0]]),
        (
            CacheFilter { run: Some(run), fingerprint: Some("f".to_owned()), bos: Some(true), ..by() },
            vec![ids[2], ids[1], ids[0]],
        ),
        (CacheFilter { fingerprint: Some("other".to_owned()), ..by() }, vec![]),
        (CacheFilter { bos: Some(false), ..by() }, vec![]),
        (CacheFilter { tags: tags(&["x"]), ..by() }, vec![ids[1], ids[0]]),
        (CacheFilter { tags: tags(&["x", "y"]), ..by() }, vec![ids[0]]),
        (CacheFilter { label: Some("other".to_owned()), ..by() }, vec![ids[2]]),
        (CacheFilter { hooks: vec![query], ..by() }, vec![ids[2]]),
        (CacheFilter { hooks: vec![query, resid], ..by() }, vec![]),
        (CacheFilter { model: Some("tiny".to_owned()), ..by() }, vec![other[0], ids[2], ids[1], ids[0]]),
        (CacheFilter { model: Some("none".to_owned()), ..by() }, vec![]),
        (CacheFilter { created_from: Some(made), created_to: Some(later), ..by() }, vec![ids[1]]),
        (CacheFilter { created_from: Some(later), ..by() }, vec![other[0], ids[2]]),
        (CacheFilter { created_to: Some(made), ..by() }, vec![ids[0]]),
        (CacheFilter { pinned: Some(true), ..by() }, vec![ids[0]]),
        (CacheFilter { pinned: Some(false), ..by() }, vec![other[0], ids[2], ids[1]]),
        (CacheFilter { expires_from: Some(made), ..by() }, vec![ids[0]]),
        (CacheFilter { expires_from: Some(made), pinned: Some(false), ..by() }, vec![]),
        (CacheFilter { expires_to: Some(expires), ..by() }, vec![]),
        (all.clone(), vec![ids[0]]),
        (CacheFilter { run: Some(other_run), ..all }, vec![]),
    ] {
        assert_eq!(list(&f, filter.clone()).await, expected, "{filter:?}");
        let count = f.store.count_caches(T, &filter).await.unwrap();
        assert_eq!(count, Count { total: expected.len() as u64, is_exact: true }, "{filter:?}");
        let page = f.store.find_caches(T, &filter, PageRequest::newest(None, 1000)).await.unwrap();
        assert_eq!((page.caches.len(), page.next), (expected.len(), None), "{filter:?}");
        assert_eq!(f.store.count_caches(TenantId(2), &filter).await.unwrap().total, 0, "another tenant has none");
        assert_eq!(f.store.choose(T, &filter, 10).await.unwrap().len(), expected.len());
    }
    let order: Vec<u64> = f.store.run_caches(T, run, 1, 10).await.unwrap().iter().map(|c| c.item_index).collect();
    assert_eq!(order, [1, 2]);
}

#[tokio::test]
async fn texts_are_found_by_words_and_phrases_and_nothing_is_an_operator() {
    let f = Fixture::new().await;
    let mut items: Vec<NewItem> = (0..4).map(|i| simple(&[i])).collect();
    items[0].text = Some("The Eiffel TOWER 100%_\u{c9}tude".to_owned());
    items[1].text = Some("tower of the eiffel, NOT near\0behind zero".to_owned());
    items[2].text = None;
    items[2].completion = Some(TextCompletion {
        first: 1,
        text: "generated tower".to_owned(),
        finish_reason: FinishReason::Length,
        generation: Generation {
            max_new_tokens: 1,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            stop: vec![],
            seed: 0,
            sample: 0,
            n: 1,
        },
        logprobs: vec![-0.5],
    });
    items[3].text = Some("t1 tenant".to_owned());
    let (_, ids) = f.stored(items).await;
    for (query, expected) in [
        ("tower", vec![ids[2], ids[1], ids[0]]),
        ("Eiffel", vec![ids[1], ids[0]]),
        ("tower eiffel", vec![ids[1], ids[0]]),
        ("\"eiffel tower\"", vec![ids[0]]),
        ("\"eiffel tower\" etude", vec![ids[0]]),
        ("100%", vec![ids[0]]),
        ("tow", vec![]),
        ("tow*", vec![]),
        ("eiffel NOT near", vec![ids[1]]),
        ("eiffel OR nothing", vec![]),
        ("text:tower", vec![]),
        ("tenant t1", vec![ids[3]]),
        ("NEAR(eiffel tower)", vec![]),
        ("near - eiffel", vec![ids[1]]),
        ("(tower) ^eiffel ' {", vec![ids[1], ids[0]]),
        ("generated", vec![ids[2]]),
    ] {
        assert_eq!(list(&f, text(query)).await, expected, "{query}");
    }
    assert!(f.store.delete_cache(T, ids[0]).await.unwrap());
    assert_eq!(list(&f, text("eiffel")).await, [ids[1]]);
    let words: i64 = sqlx::query_scalar("SELECT count(*) FROM cache_terms WHERE cache_terms MATCH 'eiffel'")
        .fetch_one(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(words, 1);
}

#[tokio::test]
async fn metadata_is_found_by_keys_that_lead_into_objects() {
    let f = Fixture::new().await;
    let long = "x".repeat(1000);
    let values = [
        json!({"n": 1, "s": "1", "deep": {"a": {"b": true}}, "dot.key": "d"}),
        json!({"n": 1.5, "s": null, "deep": {"a": [1, {"b": true}]}}),
        json!({"n": -3, "s": long, "dot": {"key": "d"}, "\"odd": "q", "": "nothing"}),
    ];
    let mut items: Vec<NewItem> = (0..3).map(|i| simple(&[i])).collect();
    for (item, value) in items.iter_mut().zip(values) {
        item.metadata = object(value);
    }
    let (_, ids) = f.stored(items).await;
    for (condition, expected) in [
        (json!({"n": 1}), vec![ids[0]]),
        (json!({"n": 1.0}), vec![ids[0]]),
        (json!({"n": "1"}), vec![]),
        (json!({"s": "1"}), vec![ids[0]]),
        (json!({"s": 1}), vec![]),
        (json!({"s": null}), vec![ids[1]]),
        (json!({"s": long}), vec![ids[2]]),
        (json!({"s": format!("{long}x")}), vec![]),
        (json!({"deep.a.b": true}), vec![ids[0]]),
        (json!({"deep.a": {"b": true}}), vec![ids[0]]),
        (json!({"deep": {"a": {"b": true}}}), vec![ids[0]]),
        (json!({"deep": {}}), vec![]),
        (json!({"deep.a": [1, {"b": true}]}), vec![ids[1]]),
        (json!({"dot.key": "d"}), vec![ids[2], ids[0]]),
        (json!({"\"odd": "q"}), vec![ids[2]]),
        (json!({"": "nothing"}), vec![ids[2]]),
        (json!({"n": -3, "dot.key": "d"}), vec![ids[2]]),
        (json!({"n": 1, "dot.key": "e"}), vec![]),
        (json!({"%": 1}), vec![]),
    ] {
        assert_eq!(list(&f, metadata(condition.clone())).await, expected, "{condition}");
    }
    let patch = CachePatch { metadata: Some(object(json!({"n": null, "new": [2]}))), ..CachePatch::default() };
    f.store.patch_cache(T, ids[0], patch).await.unwrap();
    assert_eq!(list(&f, metadata(json!({"n": 1}))).await, []);
    assert_eq!(list(&f, metadata(json!({"new": [2]}))).await, [ids[0]]);
    assert_eq!(list(&f, metadata(json!({"s": "1"}))).await, [ids[0]]);
    for id in ids {
        assert!(f.store.delete_cache(T, id).await.unwrap());
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM cache_terms_docsize")
        .fetch_one(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_page_looks_at_a_bounded_number_of_caches_and_the_next_goes_on_behind_them() {
    let f = Fixture::new().await;
    let mut items: Vec<NewItem> = (0..9_000).map(|i| simple(&[i])).collect();
    for (i, item) in items.iter_mut().enumerate() {
        // each of both on half of them, and both on the oldest alone
        item.tags = tags(if i == 0 {
            &["a", "b"]
        } else if i % 2 == 0 {
            &["a"]
        } else {
            &["b"]
        });
        item.metadata = Map::new();
        item.text = Some(
            if i == 0 {
                "odd even"
            } else if i % 2 == 0 {
                "even"
            } else {
                "odd"
            }
            .to_owned(),
        );
    }
    let caches = f.stored_together(items).await;
    let both = CacheFilter { tags: tags(&["a", "b"]), ..by() };
    let walk = async |filter: &CacheFilter| {
        let (mut before, mut found, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = f.store.find_caches(T, filter, PageRequest::newest(before, 50)).await.unwrap();
            found.extend(page.caches.iter().map(|c| c.id));
            pages += 1;
            before = page.next;
            if before.is_none() {
                return (found, pages);
            }
        }
    };
    let (found, pages) = walk(&both).await;
    assert_eq!(found, [caches[0]]);
    assert!((2..=5).contains(&pages), "{pages}");
    let (found, _) = walk(&CacheFilter { tags: tags(&["a"]), ..text("odd") }).await;
    assert_eq!(found, [caches[0]]);
    assert_eq!(list(&f, both.clone()).await, [caches[0]], "a list that may take its time is whole");
    let count = f.store.count_caches(T, &both).await.unwrap();
    assert_eq!(count, Count { total: 0, is_exact: false }, "the only one lies behind what a count looks at");
    let (found, pages) = walk(&CacheFilter { tags: tags(&["b"]), ..by() }).await;
    assert_eq!((found.len(), pages), (4501, 91));
    let times: Vec<Timestamp> =
        f.store.caches(T, &by(), None, 9_000).await.unwrap().iter().map(|c| c.created_at).collect();
    assert!(times.is_sorted_by(|a, b| a > b), "no two caches have one time");
}

#[tokio::test]
async fn an_intersection_ends_with_its_stretches_of_time_and_a_rare_word_is_looked_for_in_all() {
    let f = Fixture::new().await;
    let mut items: Vec<NewItem> = (0..9_000).map(|i| simple(&[i])).collect();
    for (i, item) in items.iter_mut().enumerate() {
        item.tags = tags(if i.is_multiple_of(2) { &["even"] } else { &["odd"] });
        item.label = i.is_multiple_of(3000).then(|| "rare".to_owned());
        item.text = Some("stone and river".to_owned());
        item.metadata = Map::new();
    }
    let caches = f.stored_together(items).await;
    let blocks: Vec<(i64, i64)> = sqlx::query_as("SELECT first_at, n FROM cache_blocks ORDER BY first_at")
        .fetch_all(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(blocks.iter().map(|b| b.1).collect::<Vec<_>>(), [1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024, 808]);
    // nothing has both: every page ends two stretches further back
    let neither = CacheFilter { tags: tags(&["even", "odd"]), ..by() };
    let mut before = None;
    let mut ends = Vec::new();
    loop {
        let page = f.store.find_caches(T, &neither, PageRequest::newest(before, 50)).await.unwrap();
        assert_eq!(page.caches.len(), 0);
        before = page.next;
        let Some(next) = before else { break };
        ends.push(next.as_microsecond());
    }
    assert_eq!(ends, [7, 5, 3, 1].map(|block: usize| blocks[block].0));
    // counts go as far, and say that they stopped
    let count = async |filter: &CacheFilter| f.store.count_caches(T, filter).await.unwrap();
    assert_eq!(
        count(&neither).await,
        Count { total: 0, is_exact: false },
        "seven of the nine stretches were not looked at"
    );
    for (filter, total) in [
        (by(), 2000),
        // a stretch and what is in the newest, and half of that
        (text("stone"), 1024 + 808),
        (CacheFilter { tags: tags(&["odd"]), ..text("stone") }, (1024 + 808) / 2),
    ] {
        assert_eq!(count(&filter).await, Count { total, is_exact: false }, "{filter:?}");
    }
    // one page finds what is rare, however far back
    for filter in [
        CacheFilter { label: Some("rare".to_owned()), tags: tags(&["even"]), ..by() },
        CacheFilter { label: Some("rare".to_owned()), ..text("stone") },
    ] {
        let page = f.store.find_caches(T, &filter, PageRequest::newest(None, 50)).await.unwrap();
        let found: Vec<CacheId> = page.caches.iter().map(|c| c.id).collect();
        assert_eq!((found, page.next), (vec![caches[6000], caches[3000], caches[0]], None), "{filter:?}");
    }
    // a page within the stretches is whole, and what follows begins behind it
    let odd = CacheFilter { tags: tags(&["odd"]), ..text("stone") };
    let first = f.store.find_caches(T, &odd, PageRequest::newest(None, 3)).await.unwrap();
    assert_eq!(first.caches.iter().map(|c| c.id).collect::<Vec<_>>(), [caches[8999], caches[8997], caches[8995]]);
    let second = f.store.find_caches(T, &odd, PageRequest::newest(first.next, 1)).await.unwrap();
    assert_eq!(second.caches[0].id, caches[8993]);
    // pages go on within a stretch, and are full though most of them lies in the next
    let (mut before, mut walked) = (None, Vec::new());
    for (limit, n) in [(400, 400), (3, 3), (500, 500), (700, 13 + 512), (5_000, 2 * 512)] {
        let page = f.store.find_caches(T, &odd, PageRequest::newest(before, limit)).await.unwrap();
        walked.extend(page.caches.iter().map(|c| c.id));
        assert_eq!(page.caches.len(), n, "what is left of a stretch and another one, at most");
        before = page.next;
    }
    let all: Vec<CacheId> = (0..9_000).rev().filter(|i| i % 2 == 1).map(|i| caches[i]).collect();
    assert_eq!(walked, all[..walked.len()]);
    // where something is asked about each, a page ends after so many, and the next goes on with the one behind
    let asked = CacheFilter { bos: Some(true), ..odd.clone() };
    let page = f.store.find_caches(T, &asked, PageRequest::newest(None, 50)).await.unwrap();
    assert_eq!(page.caches.iter().map(|c| c.id).collect::<Vec<_>>(), all[..50]);
    let (mut before, mut walked) = (None, Vec::new());
    loop {
        let page = f.store.find_caches(T, &asked, PageRequest::newest(before, 1_900)).await.unwrap();
        walked.extend(page.caches.iter().map(|c| c.id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(walked, all);
    // few pinned caches are walked, and each looked up by every word
    for id in [caches[8998], caches[8999], caches[1]] {
        f.store.patch_cache(T, id, CachePatch { pinned: Some(true), ..CachePatch::default() }).await.unwrap();
    }
    assert_eq!(list(&f, CacheFilter { pinned: Some(true), ..odd.clone() }).await, [caches[8999], caches[1]]);
    assert_eq!(f.store.count_caches(T, &CacheFilter { pinned: Some(true), ..neither }).await.unwrap().total, 0);
    // an edited cache is entered again, where it was
    for label in ["a", "b"] {
        let patch = CachePatch { label: Some(Some(label.to_owned())), ..CachePatch::default() };
        f.store.patch_cache(T, caches[8999], patch).await.unwrap();
    }
    let after: Vec<(i64, i64)> = sqlx::query_as("SELECT first_at, n FROM cache_blocks ORDER BY first_at")
        .fetch_all(&mut *f.store.reader().await.unwrap())
        .await
        .unwrap();
    assert_eq!(after, blocks);
    f.assert_clean().await;
}

#[tokio::test]
async fn a_page_begins_where_all_words_do_and_ends_where_one_does() {
    let f = Fixture::new().await;
    let mut items: Vec<NewItem> = (0..9_000).map(|i| simple(&[i])).collect();
    for (i, item) in items.iter_mut().enumerate() {
        // both on four hundred caches a long way back, in two stretches of time
        item.tags = tags(if i < 3_000 {
            &["old"]
        } else if i < 3_400 {
            &["old", "new"]
        } else {
            &["new"]
        });
        item.label = (i % 3_000 == 2_999).then(|| "seldom".to_owned());
        item.metadata = Map::new();
    }
    let caches = f.stored_together(items).await;
    let both = CacheFilter { tags: tags(&["old", "new"]), ..by() };
    let page = f.store.find_caches(T, &both, PageRequest::newest(None, 300)).await.unwrap();
    let found: Vec<CacheId> = page.caches.iter().map(|c| c.id).collect();
    let expected: Vec<CacheId> = (3_100..3_400).rev().map(|i| caches[i]).collect();
    assert_eq!(found, expected);
    let page = f.store.find_caches(T, &both, PageRequest::newest(page.next, 300)).await.unwrap();
    assert_eq!((page.caches.len(), page.next), (100, None), "nothing older is new");
    assert_eq!(f.store.count_caches(T, &both).await.unwrap(), Count { total: 400, is_exact: true });
    // limits of time are kept within stretches, and what lies outside them is not asked for
    let at = async |i: usize| f.cache(caches[i]).await.created_at;
    let between =
        CacheFilter { created_from: Some(at(3_050).await), created_to: Some(at(3_060).await), ..both.clone() };
    let page = f.store.find_caches(T, &between, PageRequest::newest(None, 300)).await.unwrap();
    assert_eq!((page.caches.len(), page.next), (10, None));
    let before = CacheFilter { created_to: Some(at(3_000).await), ..both.clone() };
    let page = f.store.find_caches(T, &before, PageRequest::newest(None, 300)).await.unwrap();
    assert_eq!((page.caches.len(), page.next), (0, None));
    // a rare word is looked for everywhere once the newest stretch is left
    let seldom = CacheFilter { label: Some("seldom".to_owned()), tags: tags(&["new"]), ..by() };
    let page = f.store.find_caches(T, &seldom, PageRequest::newest(None, 300)).await.unwrap();
    let found: Vec<CacheId> = page.caches.iter().map(|c| c.id).collect();
    assert_eq!((found, page.next), (vec![caches[8_999], caches[5_999]], None));
}

/// Pieces of the index of words.
pub(super) async fn pieces(f: &Fixture) -> i64 {
    let count = "SELECT count(DISTINCT segid) FROM cache_terms_idx";
    sqlx::query_scalar(count).fetch_one(&mut *f.store.reader().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn merging_the_index_of_words_changes_no_answer() {
    let f = Fixture::new().await;
    let mut all = Vec::new();
    for i in 0..60 {
        let mut item = simple(&[i]);
        item.text = Some(format!("number {i} stone"));
        all.extend(f.stored(vec![item]).await.1);
        if i % 7 == 3 {
            assert!(f.store.delete_cache(T, all.remove(0)).await.unwrap());
        }
    }
    all.reverse();
    let before = pieces(&f).await;
    assert!(before > 4, "{before}");
    f.store.index().merge_terms_until(&true.into(), Duration::MAX).await.unwrap();
    f.store.index().merge_terms_until(&false.into(), Duration::ZERO).await.unwrap();
    assert_eq!(pieces(&f).await, before, "it was to stop, or had no time");
    f.store.index().merge_terms_until(&false.into(), Duration::MAX).await.unwrap();
    let after = pieces(&f).await;
    assert!(after <= 3, "{before} pieces became {after}");
    assert_eq!(list(&f, text("stone")).await, all);
    assert_eq!(list(&f, CacheFilter { tags: tags(&["zulu"]), ..text("\"number 41\"") }).await.len(), 1);
    assert!(f.store.delete_cache(T, all.remove(5)).await.unwrap());
    assert_eq!(list(&f, text("stone")).await, all);
    f.assert_clean().await;
    f.store.merge_terms().await.unwrap();
    assert!(!f.store.write(MergeTerms).await.unwrap(), "done is done");
    // the words that others enter in the same commit are no work that was done
    let mut n = 0;
    for at in 1..=20 {
        n += u32::from(f.store.write(Behind(at)).await.unwrap());
    }
    assert!(n < 20);
}

/// Enters a word, and merges in the same transaction.
struct Behind(i64);

impl Write for Behind {
    type Output = bool;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        tx.later("INSERT INTO cache_terms (rowid, terms) VALUES (?, 'behind')").bind(self.0);
        MergeTerms.apply(tx).await
    }
}

#[tokio::test]
async fn a_phrase_is_found_far_back_whatever_its_characters() {
    let f = Fixture::new().await;
    let mut items: Vec<NewItem> = (0..5_000).map(|i| simple(&[i])).collect();
    for item in &mut items {
        item.metadata = Map::new();
        item.text = Some("a house, a garden".to_owned());
    }
    items[7].text = Some("vitamin \u{24b6} of 2024-01-05, \u{4f60}\u{597d} caf\u{e9} \u{915}\u{93e} x".to_owned());
    let caches = f.stored_together(items).await;
    for query in [
        "vitamin",
        "\"vitamin \u{24b6}\"",
        "vitamin \u{24b6}",
        "\"\u{24b6} of\"",
        "2024-01-05",
        "\"of 2024\"",
        "\u{4f60}\u{597d}",
        "\"\u{4f60}\u{597d} cafe\u{301}\"",
        "\"\u{915}\u{93e} x\"",
    ] {
        for filter in [text(query), CacheFilter { tags: tags(&["zulu"]), ..text(query) }] {
            let page = f.store.find_caches(T, &filter, PageRequest::newest(None, 50)).await.unwrap();
            assert_eq!(page.caches.iter().map(|c| c.id).collect::<Vec<_>>(), [caches[7]], "{query}");
            assert_eq!(page.next, None, "{query}");
            let count = f.store.count_caches(T, &filter).await.unwrap();
            assert_eq!(count, Count { total: 1, is_exact: true }, "{query}");
        }
    }
    for query in ["\"vitamin x\"", "2024-01-06", "\u{4f60}\u{4f60}", "\"of vitamin\""] {
        let filter = CacheFilter { tags: tags(&["zulu"]), ..text(query) };
        let page = f.store.find_caches(T, &filter, PageRequest::newest(None, 50)).await.unwrap();
        assert_eq!((page.caches.len(), page.next), (0, None), "{query}");
    }
}

#[tokio::test]
async fn a_search_within_a_range_of_times_does_not_run_on_behind_it() {
    let f = Fixture::new().await;
    let mut items: Vec<NewItem> = (0..6_000).map(|i| simple(&[i])).collect();
    for (i, item) in items.iter_mut().enumerate() {
        item.tags = tags(if i.is_multiple_of(2) { &["even"] } else { &["odd"] });
        item.metadata = Map::new();
    }
    let caches = f.stored_together(items).await;
    // of both there are few within the range and many before it
    let from = f.cache(caches[2_950]).await.created_at;
    let filter = CacheFilter { tags: tags(&["even", "odd"]), created_from: Some(from), ..by() };
    let to = f.cache(caches[4_000]).await.created_at;
    let mut reader = f.store.reader().await.unwrap();
    let search = Search::new(&mut reader, T, &filter, Some(to.as_microsecond()), 0).await.unwrap();
    let parts = search.parts_within_partitions(&mut reader).await.unwrap();
    assert_eq!(parts, [true; 2]);
    // rare is what there is little of at all
    let filter = CacheFilter { created_from: Some(from), tags: tags(&["even"]), ..text("nothing") };
    let search = Search::new(&mut reader, T, &filter, None, 0).await.unwrap();
    assert_eq!(search.parts_within_partitions(&mut reader).await.unwrap(), [true]);
}

#[tokio::test]
async fn what_an_edit_changes_is_found_by_what_it_is_now() {
    let f = Fixture::new().await;
    let mut items = vec![simple(&[1]), simple(&[2])];
    items[0].text = Some("eiffel tower".to_owned());
    let (run, ids) = f.stored(items).await;
    let patch = CachePatch {
        tags: Some(tags(&["new", "new", "other"])),
        label: Some(Some("relabelled".to_owned())),
        ..CachePatch::default()
    };
    f.store.patch_cache(T, ids[0], patch).await.unwrap();
    for (filter, expected) in [
        (CacheFilter { tags: tags(&["new"]), ..by() }, vec![ids[0]]),
        (CacheFilter { tags: tags(&["zulu"]), ..by() }, vec![ids[1]]),
        (CacheFilter { label: Some("relabelled".to_owned()), ..by() }, vec![ids[0]]),
        (CacheFilter { label: Some("label".to_owned()), ..by() }, vec![ids[1]]),
        (CacheFilter { run: Some(run), ..text("tower") }, vec![ids[0]]),
        (metadata(json!({"n": 0.1})), vec![ids[1], ids[0]]),
    ] {
        assert_eq!(list(&f, filter.clone()).await, expected, "{filter:?}");
    }
    assert_eq!(f.cache(ids[0]).await.tags, ["new", "other"], "each once, in the order posted");
    let none = CachePatch { label: Some(None), tags: Some(Vec::new()), ..CachePatch::default() };
    f.store.patch_cache(T, ids[0], none).await.unwrap();
    assert_eq!(list(&f, CacheFilter { label: Some("relabelled".to_owned()), ..by() }).await, []);
    assert_eq!(list(&f, CacheFilter { tags: tags(&["other"]), ..by() }).await, []);
    f.assert_clean().await;
}

#[tokio::test]
async fn an_index_of_before_there_were_terms_is_brought_up_to_date() {
    let f = Fixture::new().await;
    let mut items = vec![simple(&[1]), simple(&[2]), simple(&[3])];
    items[1].tags = tags(&["second", "first"]);
    items[1].text = Some("eiffel tower".to_owned());
    items[2].text = None;
    items[2].tags = Vec::new();
    let (run, ids) = f.stored(items).await;
    let before = everything(&f.store, T).await;
    let Fixture { dir, store } = f;
    store.close().await;
    // the same rows in an index of the version before
    let (index, new) = (dir.path().join("index.sqlite"), dir.path().join("new.sqlite"));
    fs::rename(&index, &new).unwrap();
    let options = SqliteConnectOptions::new().filename(&index).create_if_missing(true).foreign_keys(true);
    let mut conn = options.connect().await.unwrap();
    MIGRATIONS.run_to(10, &mut conn).await.unwrap();
    sqlx::query("ATTACH ? AS new").bind(new.to_str().unwrap()).execute(&mut conn).await.unwrap();
    for table in
        ["hook_sets", "hook_set_hooks", "layouts", "provenances", "runs", "run_items", "packs", "extents", "caches"]
    {
        let columns: Vec<String> =
            sqlx::query_scalar("SELECT name FROM pragma_table_info(?)").bind(table).fetch_all(&mut conn).await.unwrap();
        let columns = columns.join(", ");
        let sql = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    sqlx::query(
        "INSERT INTO main.cache_tags (tenant_id, tag, created_at, cache_id, position) \
         SELECT c.tenant_id, j.value, c.created_at, c.id, j.key FROM new.caches c, json_each(c.tags) j",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    conn.close().await.unwrap();
    fs::remove_file(new).unwrap();

    let store = Store::open(dir.path()).await.unwrap();
    let f = Fixture { dir, store };
    assert_eq!(everything(&f.store, T).await, before);
    for (filter, expected) in [
        (CacheFilter { run: Some(run), ..metadata(json!({"n": 0.1})) }, vec![ids[2], ids[1], ids[0]]),
        (CacheFilter { tags: tags(&["first"]), ..by() }, vec![ids[1]]),
        (CacheFilter { label: Some("label".to_owned()), ..text("tower") }, vec![ids[1]]),
        (
            CacheFilter { model: Some("tiny".to_owned()), hooks: vec![RESID.parse().unwrap()], ..by() },
            vec![ids[2], ids[1], ids[0]],
        ),
    ] {
        assert_eq!(list(&f, filter.clone()).await, expected, "{filter:?}");
    }
    f.assert_clean().await;
    let (run, _) = f.stored(vec![simple(&[4])]).await;
    assert!(f.store.delete_run(T, run).await.unwrap());
    assert_eq!(f.store.stats().await.unwrap().n_caches, 3);
}
