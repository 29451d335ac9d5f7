//! A whole server on a temporary folder, driven through its real router. Every answer is checked against the
//! specification.

use std::{path::PathBuf, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response},
};
use http_body_util::BodyExt;
use residuum::{
    api::ApiConfig,
    app::{App, Config},
    connections::ConnectionLimits,
    domain::{ApiKey, KeyRecord, NewKey, Scope},
    engine::{Engine, Limits, ModelSource, SaeSource},
    model::{LoadOptions, Placements},
    store::{KeyStore, Maintenance, Store},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

pub use crate::{
    answer::Answer,
    specification::{check_listed, operations, specification},
};

/// The tiny seeded llama of the goldens: 3 layers, d_model 32, vocabulary 272, context 64; BOS is added to text.
pub const MODEL: &str = "tiny";
pub const N_LAYERS: usize = 3;
pub const D_MODEL: usize = 32;
pub const D_VOCAB: usize = 272;
pub const N_CTX: usize = 64;

pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(path)
}

pub struct TestApp {
    app: Option<App>,
    router: Router,
    checkpoint: &'static str,
    folder: TempDir,
    limits: Limits,
    api: ApiConfig,
    saes: Vec<SaeSource>,
    flags: Flags,
}

/// What a server may load while it runs, and other models than that of its flags.
#[derive(Clone, Default)]
pub struct Flags {
    /// The models of the flags, in place of the usual one.
    pub models: Option<Vec<ModelSource>>,
    pub models_dir: Option<PathBuf>,
    pub allow_hub: bool,
    pub no_restore: bool,
    pub load: LoadOptions,
}

impl Flags {
    fn apply(&self, config: Config) -> Config {
        let Self { models, models_dir, allow_hub, no_restore, load } = self.clone();
        let models = models.unwrap_or_else(|| config.models.clone());
        Config { models, models_dir, allow_hub, no_restore, load, ..config }
    }
}

impl TestApp {
    pub async fn new() -> Self {
        Self::with(Limits::default(), ApiConfig::default()).await
    }

    /// A server of another tiny checkpoint.
    pub async fn serving(checkpoint: &'static str) -> Self {
        let mut this = Self::started(checkpoint, Limits::default(), ApiConfig::default()).await;
        this.load().await;
        this
    }

    /// A server of another tiny checkpoint that runs on a device.
    pub async fn serving_on(checkpoint: &'static str, placements: impl Into<Placements>) -> Self {
        let load = LoadOptions { placements: placements.into(), ..LoadOptions::default() };
        let (folder, limits, api) = (tempfile::tempdir().unwrap(), Limits::default(), ApiConfig::default());
        let config = Config { load: load.clone(), ..config(checkpoint, &folder, &limits, &api, &[]) };
        let app = App::start(&config).await.unwrap();
        let (saes, flags) = (Vec::new(), Flags::default());
        let this = Self { router: app.router(), app: Some(app), checkpoint, folder, limits, api, saes, flags };
        this.app.as_ref().unwrap().load(sources(checkpoint), load).await.unwrap();
        this
    }

    pub async fn with(limits: Limits, api: ApiConfig) -> Self {
        let mut this = Self::unloaded(limits, api).await;
        this.load().await;
        this
    }

    /// A server of another golden checkpoint.
    pub async fn of(path: &str) -> Self {
        let this = Self::unloaded(Limits::default(), ApiConfig::default()).await;
        let engine = this.app.as_ref().unwrap().engine().clone();
        let source = ModelSource { id: MODEL.to_owned(), path: golden(path) };
        engine.load(vec![source], LoadOptions::default()).await.unwrap();
        this
    }

    /// A server whose model has not been loaded yet.
    pub async fn unloaded(limits: Limits, api: ApiConfig) -> Self {
        Self::started("llama/gqa_tied", limits, api).await
    }

    /// A server whose model has these sparse autoencoders of the goldens.
    pub async fn with_saes(checkpoint: &'static str, names: &[&str]) -> Self {
        let saes = names.iter().map(|name| sae(name)).collect();
        let mut this = Self::started_with(checkpoint, Limits::default(), ApiConfig::default(), saes).await;
        this.load().await;
        this
    }

    async fn started(checkpoint: &'static str, limits: Limits, api: ApiConfig) -> Self {
        Self::started_with(checkpoint, limits, api, Vec::new()).await
    }

    pub async fn started_with(checkpoint: &'static str, limits: Limits, api: ApiConfig, saes: Vec<SaeSource>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = App::start(&config(checkpoint, &folder, &limits, &api, &saes)).await.unwrap();
        let flags = Flags::default();
        Self { router: app.router(), app: Some(app), checkpoint, folder, limits, api, saes, flags }
    }

    /// A server with other flags, which has loaded what they name.
    pub async fn with_flags(flags: Flags) -> Self {
        let api = ApiConfig { freshness: Duration::ZERO, ..ApiConfig::default() };
        Self::with_flags_and(flags, api).await
    }

    pub async fn with_flags_and(flags: Flags, api: ApiConfig) -> Self {
        let (folder, limits, saes) = (tempfile::tempdir().unwrap(), Limits::default(), Vec::new());
        let mut this =
            Self { router: Router::new(), app: None, checkpoint: "llama/gqa_tied", folder, limits, api, saes, flags };
        this.start_again().await;
        this.load().await;
        this
    }

    /// Stops the server and starts it with these flags on the same folder.
    pub async fn restart(&mut self, flags: Flags) {
        self.stop().await;
        self.flags = flags;
        self.start_again().await;
        self.load().await;
    }

    pub async fn load(&mut self) {
        let app = self.app.as_ref().unwrap();
        let models = self.flags.models.clone().unwrap_or_else(|| sources(self.checkpoint));
        app.load(models, self.flags.load.clone()).await.unwrap();
    }

    /// A server that notices new and revoked keys at the next request.
    pub async fn attentive() -> Self {
        Self::with(Limits::default(), ApiConfig { freshness: Duration::ZERO, ..ApiConfig::default() }).await
    }

    pub fn engine(&self) -> &Engine {
        self.app.as_ref().unwrap().engine()
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Makes a key in the index while the server runs, as the command line does. Returns its record and the header
    /// `Authorization`.
    pub async fn key(&self, tenant: &str, scopes: &[Scope]) -> (KeyRecord, String) {
        self.key_until(tenant, scopes, None).await
    }

    pub async fn key_until(
        &self,
        tenant: &str,
        scopes: &[Scope],
        expires_at: Option<jiff::Timestamp>,
    ) -> (KeyRecord, String) {
        let key = ApiKey::generate().unwrap();
        let (name, tenant, scopes) = ("a test's".to_owned(), tenant.to_owned(), scopes.to_vec());
        let mut keys = self.keys().await;
        let record = keys.create(&NewKey { key: key.clone(), name, tenant, scopes, expires_at }).await.unwrap();
        keys.close().await.unwrap();
        (record, format!("Bearer {}", key.reveal()))
    }

    pub async fn keys(&self) -> KeyStore {
        KeyStore::open(self.data_dir()).await.unwrap()
    }

    /// Sends a request with a key, and with a JSON body unless `body` is null.
    pub async fn send_as(&self, key: &str, method: Method, uri: &str, body: &Value) -> Answer {
        let headers = [("authorization", key), ("content-type", "application/json")];
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request(method, uri, &headers, body)).await
    }

    pub fn data_dir(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The store behind the server.
    pub fn store(&self) -> Store {
        self.app.as_ref().unwrap().engine().store().clone()
    }

    /// Sends a request and returns the response with an unread body.
    pub async fn open(&self, uri: &str) -> Response<Body> {
        self.router.clone().oneshot(request(Method::GET, uri, &[], Body::empty())).await.unwrap()
    }

    pub async fn stop(&mut self) {
        self.router = Router::new();
        self.app.take().unwrap().stop().await;
    }

    /// A new server on the same folder.
    pub async fn start_again(&mut self) {
        let config = config(self.checkpoint, &self.folder, &self.limits, &self.api, &self.saes);
        let app = App::start(&self.flags.apply(config)).await.unwrap();
        self.router = app.router();
        self.app = Some(app);
    }

    /// A new server on the same folder, which serves another golden checkpoint under the same name.
    pub async fn start_again_with(&mut self, checkpoint: &'static str) {
        self.checkpoint = checkpoint;
        self.start_again().await;
        self.load().await;
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(Duration::from_secs(60), body.collect())
            .await
            .expect("the body ends")
            .unwrap()
            .to_bytes();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        check_listed(&method, &path, &answer);
        answer
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.get_with(uri, &[]).await
    }

    pub async fn get_with(&self, uri: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request(Method::GET, uri, headers, Body::empty())).await
    }

    pub async fn post(&self, uri: &str, body: &Value) -> Answer {
        self.post_with(uri, &[], body).await
    }

    pub async fn post_with(&self, uri: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send(request(Method::POST, uri, &headers, Body::from(body.to_string()))).await
    }

    pub async fn patch(&self, uri: &str, body: &Value) -> Answer {
        self.send(request(Method::PATCH, uri, &[("content-type", "application/json")], Body::from(body.to_string())))
            .await
    }

    pub async fn delete(&self, uri: &str) -> Answer {
        self.send(request(Method::DELETE, uri, &[], Body::empty())).await
    }

    /// Posts a run and waits for it. Returns the run.
    pub async fn run(&self, body: Value) -> Value {
        let answer = self.post("/v1/runs?wait=60", &with_model(body)).await;
        let run = answer.json();
        assert_eq!((answer.status.as_u16(), run["status"].as_str()), (201, Some("completed")), "{run:#}");
        run
    }

    /// Captures one text. Returns the id of its cache.
    pub async fn capture(&self, text: &str, capture: Value) -> String {
        let run = self.run(json!({"input": text, "capture": capture})).await;
        run["caches"][0].as_str().unwrap().to_owned()
    }
}

pub fn with_model(mut body: Value) -> Value {
    body.as_object_mut().unwrap().entry("model").or_insert(json!(MODEL));
    body
}

pub fn request(method: Method, uri: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let builder = Request::builder().method(method).uri(uri);
    let builder =
        if headers.iter().any(|(name, _)| *name == "host") { builder } else { builder.header("host", "localhost") };
    headers.iter().fold(builder, |b, (name, value)| b.header(*name, *value)).body(body).unwrap()
}

fn sources(checkpoint: &str) -> Vec<ModelSource> {
    vec![ModelSource { id: MODEL.to_owned(), path: golden(checkpoint) }]
}

/// The folder of a golden autoencoder.
pub fn sae_golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens_analysis/sae").join(name)
}

/// A golden autoencoder for the tiny model, under its own name.
pub fn sae(name: &str) -> SaeSource {
    SaeSource { id: name.to_owned(), model: MODEL.to_owned(), path: sae_golden(name) }
}

pub fn config(checkpoint: &str, folder: &TempDir, limits: &Limits, api: &ApiConfig, saes: &[SaeSource]) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: folder.path().to_owned(),
        models: sources(checkpoint),
        saes: saes.to_vec(),
        load: LoadOptions::default(),
        models_dir: None,
        allow_hub: false,
        no_restore: false,
        limits: limits.clone(),
        api: api.clone(),
        connections: ConnectionLimits::default(),
        allow_unauthenticated: false,
        maintenance: Maintenance::default(),
        threads: 2,
    }
}

/// Little-endian float32 values.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The numbers of nested JSON arrays.
pub fn flat(values: &Value) -> Vec<f32> {
    match values {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap_or(f64::NAN) as f32],
    }
}
