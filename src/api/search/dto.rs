//! Bodies of a search.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::super::dto::capture::PositionsSchema;
use crate::api::dto::{direction_ref::FeatureSide, selector::FilterDto};
use residuum_analysis::scan::Nearness;
use residuum_domain::Positions;

/// Seconds that the capture of a text may take when the client does not say.
pub const DEFAULT_WAIT: f64 = 30.0;

/// How to search.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Seconds that the capture of a text may take, queue included, 0 to 600. Longer is a 503, and the capture is given up.
    #[param(minimum = 0, maximum = 600, default = 30)]
    pub wait: Option<f64>,
}

/// What to search for and where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "query": {"text": "The Eiffel Tower is in the city of", "model": "smollm2-135m"},
    "hook": "resid_post", "layer": 20, "metric": "cosine", "k": 5, "filter": {"model": "smollm2-135m"}, "over": "caches"
}))]
pub struct Search {
    /// What to search for.
    #[schema(value_type = SourceDto)]
    pub query: SourceDto,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Layer, for short names. Negatives count from the last of the query's model or of that in the filter.
    pub layer: Option<i64>,
    /// What makes a row near.
    #[serde(default)]
    #[schema(value_type = MetricSchema, default = "cosine")]
    pub metric: Nearness,
    /// Hits for each query.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub k: usize,
    /// Only these caches; all if left out.
    #[serde(default)]
    #[schema(value_type = FilterDto)]
    pub filter: FilterDto,
    /// What is ranked.
    #[serde(default)]
    pub over: Over,
    /// Over caches: the position that represents each of them. If left out: the only stored row where there is one, else
    /// the last token. Caches that did not store it are skipped and counted.
    #[schema(value_type = Option<PositionsSchema>)]
    pub position: Option<Positions>,
    /// With `query.cache`: leave out that cache, all of its positions. False if left out.
    pub exclude_self: Option<bool>,
    /// Tokens of context on either side of a hit.
    #[serde(default = "five")]
    #[schema(maximum = 64, default = 5)]
    pub context: usize,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

fn ten() -> usize {
    10
}

fn five() -> usize {
    5
}

/// What to search for: exactly one of `cache`, `text`, `direction`, `sae`, `vector` and `vectors`.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SearchSource, example = json!({"text": "The Eiffel Tower is in the city of", "model": "smollm2-135m"}))]
pub struct SourceDto {
    /// A stored cache, at the hook that is searched.
    pub cache: Option<String>,
    /// A text, captured now at the hook that is searched.
    pub text: Option<String>,
    /// With `text`: the model that reads it.
    pub model: Option<String>,
    /// With `cache` or `text`: one position, or the mean. If left out: with a cache the only stored row, else the last
    /// token's; with a text the model's default.
    #[schema(value_type = Option<PositionsSchema>)]
    pub position: Option<Positions>,
    /// A stored direction, by id or name: its vector at the layer that is searched.
    pub direction: Option<String>,
    /// With `direction`: which component; the first if left out.
    pub component: Option<usize>,
    /// A sparse autoencoder, one of whose features is the direction.
    pub sae: Option<String>,
    /// With `sae`: which feature.
    pub feature: Option<usize>,
    /// With `sae`: which of the feature's vectors; `decoder` if left out.
    pub side: Option<FeatureSide>,
    /// A vector.
    pub vector: Option<Vec<f32>>,
    /// Several vectors of one width, each a query of its own; 64 at most.
    pub vectors: Option<Vec<Vec<f32>>>,
}

/// What is ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = SearchOver)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// Caches, by one row each.
    #[default]
    Caches,
    /// Stored positions: every row of every cache, means left out.
    Positions,
}

/// What makes a row near.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchMetric)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Nearness for the specification")]
pub enum MetricSchema {
    /// Cosine of the angle, largest first.
    Cosine,
    /// Inner product, largest first.
    Dot,
    /// Length of the difference, smallest first.
    Euclidean,
}

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
    #[schema(value_type = MetricSchema)]
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
