//! The answer to a search, as JSON. [`Hit`] is also used by the search for tokens of features.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::search_body::{Nearness, Over};
use residuum_engine::questions::{
    hits,
    search::{self, SearchAnswer},
};

/// The results of a search.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SearchAnswer, example = json!({
    "hook": "blocks.20.hook_resid_post", "metric": "cosine", "over": "caches", "k": 1,
    "results": [{"hits": [{
        "cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "run": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "model": "smollm2-135m",
        "score": 0.98, "position": 3, "token": " Tower", "special": false, "context": {"start": 0, "tokens": ["The", " E", "iffel", " Tower"], "hit": 3},
        "label": null, "tags": ["demo"], "metadata": {}
    }]}],
    "scanned": {"caches": 1000, "rows": 1000, "bytes": 2_304_000, "skipped": 0, "damaged": 0, "deleted": 0}
}))]
pub struct SearchDto {
    /// The hook, by its full name.
    pub hook: String,
    /// As requested.
    pub metric: Nearness,
    /// As requested.
    pub over: Over,
    /// As requested.
    pub k: usize,
    /// One result for each query, in order.
    pub results: Vec<SearchResult>,
    /// What was scanned.
    pub scanned: Scanned,
}

/// The result of one query.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResult {
    /// Best first.
    pub hits: Vec<Hit>,
}

/// A cache or a position that was found.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = SearchHit)]
pub struct Hit {
    /// The cache.
    pub cache: String,
    /// The run that made it.
    pub run: String,
    /// Its model.
    pub model: String,
    /// The metric's value, in float32.
    pub score: f32,
    /// Position of the row in the input; null for a mean.
    pub position: Option<u32>,
    /// The token at that position.
    pub token: Option<String>,
    /// Whether it is a special token, such as BOS. Null for a mean, if its id is not known, or if the server does not
    /// have the model that made the cache.
    pub special: Option<bool>,
    /// The token with its context.
    pub context: Option<HitContext>,
    /// Label of the cache.
    pub label: Option<String>,
    /// Tags of the cache.
    pub tags: Vec<String>,
    /// Metadata of the cache.
    pub metadata: Map<String, Value>,
}

/// A token with those before and after it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HitContext {
    /// Position of the first of `tokens`.
    pub start: usize,
    /// The tokens.
    pub tokens: Vec<String>,
    /// Index of the hit in `tokens`.
    pub hit: usize,
}

/// What was scanned.
#[derive(Debug, Serialize, ToSchema)]
pub struct Scanned {
    /// Number of caches that matched the filter and whose rows were compared.
    pub caches: u64,
    /// Number of rows that were read.
    pub rows: u64,
    /// Bytes of these rows.
    pub bytes: u64,
    /// Number of caches that captured the hook, but not at the position to compare.
    pub skipped: u64,
    /// Number of caches with rows that could not be read, because their blob is missing or too short. Their other rows
    /// were compared.
    pub damaged: u64,
    /// Number of caches that were deleted before all of their rows were read.
    pub deleted: u64,
}

impl SearchDto {
    /// The results, with the parameters of the request.
    pub fn new(answer: SearchAnswer, metric: Nearness, over: Over, k: usize) -> Self {
        let result = |hits: Vec<hits::Hit>| SearchResult { hits: hits.into_iter().map(Into::into).collect() };
        Self {
            hook: answer.hook.to_string(),
            metric,
            over,
            k,
            results: answer.results.into_iter().map(result).collect(),
            scanned: answer.scanned.into(),
        }
    }
}

impl From<hits::Hit> for Hit {
    fn from(hit: hits::Hit) -> Self {
        let cache = &hit.cache;
        Self {
            cache: cache.id.to_string(),
            run: cache.run.to_string(),
            model: cache.model.clone(),
            score: hit.score,
            position: hit.position,
            token: hit.token,
            special: hit.special,
            context: hit.context.map(|hits::HitContext { start, tokens, hit }| HitContext { start, tokens, hit }),
            label: cache.label.clone(),
            tags: cache.tags.clone(),
            metadata: cache.metadata.clone(),
        }
    }
}

impl From<search::Scanned> for Scanned {
    fn from(scanned: search::Scanned) -> Self {
        let search::Scanned { caches, rows, bytes, skipped, damaged, deleted } = scanned;
        Self { caches, rows, bytes, skipped, damaged, deleted }
    }
}
