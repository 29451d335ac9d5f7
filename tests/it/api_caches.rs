//! Listing, filtering, editing and deleting caches.

use axum::http::Method;
use residuum::domain::Scope;
use serde_json::{Value, json};

use crate::support::{N_CTX, TestApp, with_model};

fn ids(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_filter_filters() {
    let app = TestApp::new().await;
    let run = app.run(json!({"items": [
        {"text": "The Cat", "tags": ["pets", "cats"], "label": "one", "metadata": {"n": 1, "s": "1", "deep": {"x": true}}},
        {"text": "a dog", "tags": ["pets"], "metadata": {"n": 2, "s": "two words"}}, {"token_ids": [1]}
    ]})).await;
    let other = app.run(json!({"input": "a dog", "capture": {"hooks": ["logits"]}})).await;
    let of = |run: &Value, i: usize| run["caches"][i].as_str().unwrap().to_owned();
    let (cat, dog, bare, logits) = (of(&run, 0), of(&run, 1), of(&run, 2), of(&other, 0));
    let run_id = run["id"].as_str().unwrap();
    let created = app.get(&format!("/v1/caches/{logits}")).await.json()["created_at"].as_str().unwrap().to_owned();
    for (query, expected) in [
        (String::new(), vec![&logits, &bare, &dog, &cat]),
        ("?model=tiny".to_owned(), vec![&logits, &bare, &dog, &cat]),
        ("?model=other".to_owned(), vec![]),
        (format!("?run={run_id}"), vec![&bare, &dog, &cat]),
        ("?tag=pets".to_owned(), vec![&dog, &cat]),
        ("?tag=pets&tag=cats".to_owned(), vec![&cat]),
        ("?label=one".to_owned(), vec![&cat]),
        ("?hook=logits".to_owned(), vec![&logits]),
        ("?hook=blocks.1.hook_resid_post".to_owned(), vec![&bare, &dog, &cat]),
        ("?text=cat".to_owned(), vec![&cat]),
        ("?text=CAT%20the".to_owned(), vec![&cat]),
        ("?text=%22the%20cat%22".to_owned(), vec![&cat]),
        ("?text=%22cat%20the%22".to_owned(), vec![]),
        ("?metadata.n=1".to_owned(), vec![&cat]),
        ("?metadata.n=2.0".to_owned(), vec![&dog]),
        ("?metadata.s=1".to_owned(), vec![]),
        ("?metadata.s=%221%22".to_owned(), vec![&cat]),
        ("?metadata.s=two+words".to_owned(), vec![&dog]),
        ("?metadata.deep.x=true&metadata.n=1&tag=cats".to_owned(), vec![&cat]),
        ("?metadata.deep.x=false".to_owned(), vec![]),
        ("?metadata[n]=1".to_owned(), vec![&cat]),
        ("?metadata%5Bs%5D=two%20words&metadata[n]=2".to_owned(), vec![&dog]),
        ("?metadata[deep][x]=true".to_owned(), vec![&cat]),
        ("?metadata[deep.x]=true&metadata.n=1".to_owned(), vec![&cat]),
        ("?pinned=false".to_owned(), vec![&logits, &bare, &dog, &cat]),
        ("?pinned=true".to_owned(), vec![]),
        ("?expires_from=2020-01-01T00:00:00Z".to_owned(), vec![]),
        ("?hook=blocks.1.hook_resid_post&hook=blocks.0.hook_resid_post".to_owned(), vec![&bare, &dog, &cat]),
        (format!("?created_from={created}"), vec![&logits]),
        (format!("?created_to={created}"), vec![&bare, &dog, &cat]),
        ("?text=a%20dog&hook=logits".to_owned(), vec![&logits]),
    ] {
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        let mut found = ids(&app.get(&format!("/v1/caches{query}")).await.json());
        // Caches of one batch are created at the same time, so their order among each other is not defined.
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{query}");
    }
    for (query, pointer) in [
        ("run=x", "run"),
        ("hook=nonsense", "hook"),
        ("created_from=yesterday", "created_from"),
        ("expires_to=now", "expires_to"),
        ("limit=0", "limit"),
        ("text=%25", "text"),
        ("text=%22open", "text"),
        ("pinned=1", "pinned"),
        ("metadata.a=1&metadata.a=2", "metadata.a"),
        ("metadata.a=1&metadata[a]=1", "metadata[a]"),
        ("limit=1001", "limit"),
        ("fields=", "fields"),
        ("fields=id,colour", "fields"),
        ("order=up", "order"),
    ] {
        let pointers = app.get(&format!("/v1/caches?{query}")).await.problem(400, "invalid_query");
        assert_eq!(pointers, [pointer], "{query}");
    }
    for query in ["colour=red", "metadata=1", "metadata.=1", "metadata[]=1", "metadata[a=1"] {
        app.get(&format!("/v1/caches?{query}")).await.problem(400, "invalid_query");
    }
    let counted = app.get("/v1/caches?tag=pets&limit=1&count=true").await.json();
    assert_eq!((&counted["total"], &counted["total_is_exact"]), (&json!(2), &json!(true)));
    assert!(counted["next_cursor"].is_string());
    assert_eq!(app.get("/v1/caches").await.json().get("total"), None);
    // the same conditions in a body
    let found = app
        .post(
            "/v1/comparisons",
            &json!({"mode": "matrix", "hook": "resid_post", "layers": [0], "caches": {
                "text": "the \"cat\"", "hooks": ["blocks.0.hook_resid_post"], "metadata": {"deep.x": true}, "pinned": false,
                "created_from": "2020-01-01T00:00:00Z"
            }}),
        )
        .await;
    assert_eq!((found.status.as_u16(), &found.json()["caches"]), (200, &json!([cat])));
    for (condition, pointer) in [
        (json!({"text": "-"}), "/caches/text"),
        (json!({"hooks": ["logits", "x"]}), "/caches/hooks/1"),
        (json!({"created_to": "soon"}), "/caches/created_to"),
    ] {
        let body = json!({"mode": "matrix", "hook": "resid_post", "caches": condition});
        let pointers = app.post("/v1/comparisons", &body).await.problem(422, "invalid_value");
        assert_eq!(pointers, [pointer]);
    }
    app.get("/v1/caches?cursor=c_1").await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn pages_do_not_repeat_or_skip_while_caches_are_added() {
    let app = TestApp::new().await;
    let run = app.run(json!({"input": (1..8).map(|i| vec![i]).collect::<Vec<_>>()})).await;
    let expected: std::collections::BTreeSet<String> =
        run["caches"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_owned()).collect();
    let (mut seen, mut uri) = (Vec::new(), "/v1/caches?limit=3".to_owned());
    loop {
        let page = app.get(&uri).await.json();
        seen.extend(ids(&page));
        app.run(json!({"input": [200]})).await;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        uri = format!("/v1/caches?limit=3&cursor={cursor}");
    }
    assert_eq!(seen.len(), expected.len());
    assert_eq!(seen.into_iter().collect::<std::collections::BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn annotations_can_be_edited_and_nothing_else() {
    let app = TestApp::new().await;
    let id = app.capture("the cat", json!({})).await;
    let uri = format!("/v1/caches/{id}");
    let before = app.get(&uri).await.json();
    let edited =
        app.patch(&uri, &json!({"tags": ["b", "a"], "label": "l", "metadata": {"x": 1, "y": {"z": 2}}})).await.json();
    assert_eq!((&edited["label"], &edited["metadata"]), (&json!("l"), &json!({"x": 1, "y": {"z": 2}})));
    let merged = app.patch(&uri, &json!({"metadata": {"x": null, "w": 3}})).await.json();
    assert_eq!((&merged["metadata"], &merged["label"]), (&json!({"y": {"z": 2}, "w": 3}), &json!("l")));
    let cleared = app.patch(&uri, &json!({"label": null, "tags": []})).await.json();
    assert_eq!((&cleared["label"], &cleared["tags"]), (&Value::Null, &json!([])));
    for field in ["token_ids", "provenance", "hooks", "content_hash", "created_at"] {
        assert_eq!(before[field], cleared[field], "{field}");
    }
    app.patch(&uri, &json!({"text": "other"})).await.problem(400, "invalid_body");
    app.patch(&uri, &json!({"tags": ["x".repeat(200)]})).await.problem(422, "invalid_value");
    app.patch("/v1/caches/nonsense", &json!({})).await.problem(404, "cache_not_found");
}

#[tokio::test]
async fn deleting_the_last_cache_of_a_pack_deletes_its_file() {
    let app = TestApp::new().await;
    let run = app.run(json!({"input": [[1], [2]]})).await;
    let uris: Vec<String> =
        run["caches"].as_array().unwrap().iter().map(|c| format!("/v1/caches/{}", c.as_str().unwrap())).collect();
    assert_eq!(app.delete(&uris[0]).await.status, 204);
    app.get(&uris[0]).await.problem(404, "cache_not_found");
    app.delete(&uris[0]).await.problem(404, "cache_not_found");
    assert_eq!(app.get(&format!("{}/layers/0", uris[1])).await.status, 200, "the other cache of the pack stays");
    let listed = app.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await.json();
    assert_eq!((&listed["n_done"], listed["caches"].as_array().unwrap().len()), (&json!(2), 1));
    assert_eq!(app.delete(&uris[1]).await.status, 204);
    let files = std::fs::read_dir(app.data_dir().join("blobs"))
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap())
        .count();
    assert_eq!(files, 0, "no cache, no blob");
}

#[tokio::test]
async fn a_listing_has_two_directions_and_a_cursor_keeps_its_own() {
    let app = TestApp::new().await;
    app.run(json!({"input": (1..8).map(|i| vec![i]).collect::<Vec<_>>(), "tags": ["t"]})).await;
    let newest = ids(&app.get("/v1/caches").await.json());
    assert_eq!(ids(&app.get("/v1/caches?order=desc").await.json()), newest);
    for (order, expected) in [("desc", newest.clone()), ("asc", newest.into_iter().rev().collect())] {
        for filter in ["", "&tag=t", "&tag=t&model=tiny"] {
            let (mut seen, mut uri) = (Vec::new(), format!("/v1/caches?limit=3&order={order}{filter}"));
            loop {
                let page = app.get(&uri).await.json();
                seen.extend(ids(&page));
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                // with and without the order
                let order = if seen.len() > 3 { String::new() } else { format!("&order={order}") };
                uri = format!("/v1/caches?limit=3&cursor={cursor}{order}{filter}");
                let other = if cursor.starts_with('a') { "desc" } else { "asc" };
                let answer = app.get(&format!("/v1/caches?cursor={cursor}&order={other}")).await;
                assert_eq!(answer.problem(400, "invalid_cursor"), ["cursor"]);
            }
            assert_eq!(seen, expected, "{order}{filter}");
        }
    }
    assert_eq!(ids(&app.get("/v1/caches?limit=1000").await.json()).len(), 7);
}

#[tokio::test]
async fn members_can_be_chosen() {
    let app = TestApp::new().await;
    app.run(
        json!({"items": [{"text": "the cat", "label": "l", "tags": ["t"], "metadata": {"k": 1}}, {"token_ids": [5]}]}),
    )
    .await;
    let whole = app.get("/v1/caches").await.json();
    let names: Vec<&str> = whole["items"][0].as_object().unwrap().keys().map(String::as_str).collect();
    // each by itself, all of them, and some that need no tokens
    let all = names.join(",");
    let mut choices = names.clone();
    choices.extend([all.as_str(), "id,label,tags,metadata,created_at", "id,%20n_tokens", "provenance,bos,n_bytes"]);
    for fields in choices {
        let chosen: Vec<&str> = fields.split(',').map(|name| name.trim_start_matches("%20")).collect();
        let page = app.get(&format!("/v1/caches?fields={fields}")).await.json();
        assert_eq!(page["next_cursor"], Value::Null);
        for (found, whole) in page["items"].as_array().unwrap().iter().zip(whole["items"].as_array().unwrap()) {
            let mut expected = whole.as_object().unwrap().clone();
            expected.retain(|name, _| chosen.contains(&name.as_str()));
            assert_eq!(found, &Value::Object(expected), "{fields}");
        }
    }
    let page = app.get("/v1/caches?fields=id&count=true&limit=1").await.json();
    assert_eq!((&page["total"], page["items"].as_array().unwrap().len()), (&json!(2), 1));
    assert!(page["next_cursor"].is_string());
}

#[tokio::test]
async fn caches_are_deleted_by_conditions() {
    let app = TestApp::new().await;
    let item = |text: &str, tag: &str, n: u32| json!({"text": text, "tags": [tag], "metadata": {"n": n}});
    let items = json!([item("one", "a", 1), item("two", "a", 2), item("three", "b", 1), item("four", "b", 2)]);
    let run = app.run(json!({"items": items})).await;
    let uri = |i: usize| format!("/v1/caches/{}", run["caches"][i].as_str().unwrap());
    app.patch(&uri(1), &json!({"pinned": true})).await;

    assert!(app.delete("/v1/caches").await.problem(400, "filter_missing").is_empty());
    for query in ["colour=red", "limit=1", "order=asc", "fields=id", "cursor=c_1", "tag=a&run=x", "metadata=1"] {
        app.delete(&format!("/v1/caches?{query}")).await.problem(400, "invalid_query");
    }
    assert_eq!(ids(&app.get("/v1/caches").await.json()).len(), 4, "a refused request deletes nothing");
    let delete = async |query: &str| {
        let answer = app.delete(&format!("/v1/caches?{query}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        (answer.json()["deleted"].as_u64().unwrap(), answer.json()["kept_pinned"].as_u64().unwrap())
    };
    assert_eq!(delete("tag=none").await, (0, 0));
    assert_eq!(delete("tag=a").await, (1, 1), "the pinned one stays");
    assert_eq!(delete("tag=a").await, (0, 1), "again");
    app.get(&uri(0)).await.problem(404, "cache_not_found");
    assert_eq!(app.get(&uri(1)).await.status, 200);
    assert_eq!(delete("metadata[n]=1&tag=b&model=tiny").await, (1, 0));
    assert_eq!(delete("pinned=true&metadata.n=2").await, (1, 0));
    let listed = app.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap())).await.json();
    assert_eq!((&listed["n_done"], &listed["caches"]), (&json!(4), &json!([run["caches"][3]])));
    assert_eq!(delete("created_to=9999-01-01T00:00:00Z").await, (1, 0));
    let files = std::fs::read_dir(app.data_dir().join("blobs"))
        .unwrap()
        .flat_map(|d| std::fs::read_dir(d.unwrap().path()).unwrap())
        .count();
    assert_eq!(files, 0, "no cache, no blob");
}

#[tokio::test]
async fn deleting_by_conditions_needs_write_and_stays_with_its_tenant() {
    let app = TestApp::attentive().await;
    let (_, ann) = app.key("ann", &[Scope::Write]).await;
    let (_, bob) = app.key("bob", &[Scope::Write]).await;
    let (_, reader) = app.key("ann", &[Scope::Read]).await;
    let body = with_model(json!({"input": "the cat", "tags": ["t"]}));
    for key in [&ann, &bob] {
        assert_eq!(app.send_as(key, Method::POST, "/v1/runs?wait=60", &body).await.status, 201);
    }
    let delete = async |key: &str| app.send_as(key, Method::DELETE, "/v1/caches?tag=t", &Value::Null).await;
    delete(&reader).await.problem(403, "scope_missing");
    assert_eq!(delete(&bob).await.json()["deleted"], 1);
    assert_eq!(delete(&bob).await.json()["deleted"], 0);
    let kept = app.send_as(&ann, Method::GET, "/v1/caches", &Value::Null).await.json();
    assert_eq!(ids(&kept).len(), 1, "another tenant's stay");
}

#[tokio::test]
async fn what_is_unusual_about_a_cache_is_a_warning() {
    let app = TestApp::new().await;
    let long: Vec<u32> = vec![7; N_CTX + 5];
    let run = app.run(json!({"input": [long, [1, 2]], "truncate": "left"})).await;
    let warnings = async |i: usize| {
        let id = run["caches"][i].as_str().unwrap();
        app.get(&format!("/v1/caches/{id}")).await.json()["provenance"]["warnings"].clone()
    };
    let cut = warnings(0).await;
    assert_eq!((&cut[0]["code"], cut.as_array().unwrap().len()), (&json!("input_truncated"), 1));
    assert!(cut[0]["detail"].as_str().unwrap().contains("5 tokens"), "{cut}");
    assert_eq!(warnings(1).await, json!([]));
    // also where only some members are listed
    let listed = app.get("/v1/caches?fields=provenance,n_truncated").await.json();
    let found = listed["items"].as_array().unwrap().iter().find(|item| item["n_truncated"] == 5).unwrap();
    assert_eq!(found["provenance"]["warnings"], cut);
}
