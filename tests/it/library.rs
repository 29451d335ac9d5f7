//! Reading a data folder from Rust, beside the running server.

use axum::http::Method;
use residuum::{
    Archive, ArchiveError,
    domain::{CacheId, Scope},
};
use serde_json::json;

use crate::support::{D_MODEL, N_LAYERS, TestApp, flat, with_model};

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_is_read_without_the_server() {
    let app = TestApp::new().await;
    let last = app.capture("the cat", json!({})).await;
    let all = app
        .capture("the cat", json!({"hooks": ["resid_post", "attn.pattern"], "positions": "all", "dtype": "bfloat16"}))
        .await;
    let served = flat(&app.get(&format!("/v1/caches/{last}/layers")).await.json()["values"]);
    let (folder, last_id, all_id) =
        (app.data_dir().to_owned(), last.parse::<CacheId>().unwrap(), all.parse::<CacheId>().unwrap());
    let check = move || {
        let archive = Archive::open(folder).unwrap();
        assert_eq!(archive.caches(10).unwrap().len(), 2);
        let n_tokens = archive.cache(last_id).unwrap().token_ids.len();
        let cache = archive.activation_cache(last_id).unwrap();
        assert_eq!((cache.n_layers(), cache.get_layer(0).unwrap().dims()), (N_LAYERS, &[D_MODEL][..]));
        assert_eq!(cache.to_f32_vecs().unwrap().concat(), served);

        let rows = archive.position_cache(all_id).unwrap();
        assert_eq!((rows.n_layers(), rows.seq_len()), (N_LAYERS, n_tokens));
        let narrow = archive.activation_cache(all_id).unwrap().to_f32_vecs().unwrap().concat();
        let rounded: Vec<f32> = served.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
        assert_eq!(narrow, rounded);
        let attention = archive.attention_cache(all_id).unwrap();
        assert_eq!(attention.get_layer(0).unwrap().dims(), [4, n_tokens, n_tokens]);

        let unknown = CacheId::generate();
        assert!(matches!(archive.cache(unknown), Err(ArchiveError::NotFound(id)) if id == unknown));
        assert!(matches!(archive.position_cache(last_id), Err(ArchiveError::Activation(_))));
        assert!(Archive::open(std::path::Path::new("no/such/folder")).is_err());
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_is_read_as_one_tenant() {
    let app = TestApp::attentive().await;
    let key = app.key("lab", &[Scope::Write]).await.1;
    let body = with_model(json!({"input": "theirs"}));
    let run = app.send_as(&key, Method::POST, "/v1/runs?wait=60", &body).await.json();
    let id: CacheId = run["caches"][0].as_str().unwrap().parse().unwrap();
    let folder = app.data_dir().to_owned();
    let check = move || {
        let default = Archive::open(&folder).unwrap();
        assert_eq!(default.caches(10).unwrap().len(), 0);
        assert!(matches!(default.activation_cache(id), Err(ArchiveError::NotFound(_))));
        let lab = default.of_tenant("lab").unwrap();
        assert_eq!(lab.caches(10).unwrap()[0].id, id);
        assert_eq!(lab.activation_cache(id).unwrap().n_layers(), N_LAYERS);
        let other = lab.of_tenant("other").map(|_| ());
        assert!(matches!(other, Err(ArchiveError::NoTenant(_))));
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}
