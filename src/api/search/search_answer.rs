//! What a search found, as JSON; its hits are those of other scans too.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::search_body::{Nearness, Over};
use residuum_engine::questions::{
    hits,
    search::{self, SearchAnswer},
};

/// What was found.
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
    /// As asked.
    pub metric: Nearness,
    /// As asked.
    pub over: Over,
    /// As asked.
    pub k: usize,
    /// One for each query, in order.
    pub results: Vec<SearchResult>,
    /// What was gone through.
    pub scanned: Scanned,
}

/// What one query found.
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
    /// The token there.
    pub token: Option<String>,
    /// Whether it is a special token, such as BOS; null for a mean, and where its id is not known or the model that made the
    /// cache is not served.
    pub special: Option<bool>,
    /// That token among its neighbours.
    pub context: Option<HitContext>,
    /// Label of the cache.
    pub label: Option<String>,
    /// Tags of the cache.
    pub tags: Vec<String>,
    /// Metadata of the cache.
    pub metadata: Map<String, Value>,
}

/// A token among its neighbours.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HitContext {
    /// Position of the first of `tokens`.
    pub start: usize,
    /// The tokens.
    pub tokens: Vec<String>,
    /// Index of the hit in `tokens`.
    pub hit: usize,
}

/// What was gone through.
#[derive(Debug, Serialize, ToSchema)]
pub struct Scanned {
    /// Caches that the filter found and whose rows took part.
    pub caches: u64,
    /// Rows that were read.
    pub rows: u64,
    /// Bytes of these rows.
    pub bytes: u64,
    /// Caches that captured the hook, but not at the position that was to be compared.
    pub skipped: u64,
    /// Caches whose rows could not all be read, because their blob is missing or short. What could be read took part.
    pub damaged: u64,
    /// Caches that were deleted before all of their rows were read.
    pub deleted: u64,
}

impl SearchDto {
    /// What was found, with what was asked for.
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
