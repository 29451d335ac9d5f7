//! The body of a search, and its conversion to a question of the engine.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::dto::{capture::PositionsSchema, direction_ref::FeatureSide, selector::FilterDto};
use residuum_domain::{Code, Positions, Problem};
use residuum_engine::questions::{
    read_id,
    search::{self, SearchQuestion, SearchSource},
};

/// Default time limit for capturing the text of a query, in seconds.
pub const DEFAULT_WAIT: f64 = 30.0;

/// Query parameters of a search.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Maximum seconds for capturing the text of the query, including time in the queue, 0 to 600. After that the
    /// answer is 503, and the capture is cancelled.
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
    /// Layer, if the hook is a short name. Negative numbers count from the last layer of the query's model or of the
    /// filter's.
    pub layer: Option<i64>,
    /// How similarity is measured.
    #[serde(default)]
    #[schema(default = "cosine")]
    pub metric: Nearness,
    /// Number of hits for each query.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub k: usize,
    /// Search only caches that meet these conditions; all if left out.
    #[serde(default)]
    #[schema(value_type = FilterDto)]
    pub filter: FilterDto,
    /// What is ranked.
    #[serde(default)]
    pub over: Over,
    /// With `over: caches`: the position that represents each cache. If left out: its only row if it has one row, else
    /// the last token. Caches that did not store that position are skipped and counted.
    #[schema(value_type = Option<PositionsSchema>)]
    pub position: Option<Positions>,
    /// With `query.cache`: leave out that cache with all its positions. False if left out.
    pub exclude_self: Option<bool>,
    /// Number of tokens of context before and after a hit.
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
    /// A stored cache: its vector at the hook of the search.
    pub cache: Option<String>,
    /// A text, which is captured now at the hook of the search.
    pub text: Option<String>,
    /// With `text`: the model to use.
    pub model: Option<String>,
    /// With `cache` or `text`: one position, or the mean. By default, for a cache its only row or else the last token,
    /// and for a text the model's default.
    #[schema(value_type = Option<PositionsSchema>)]
    pub position: Option<Positions>,
    /// A stored direction, by id or name: its vector at the layer of the search.
    pub direction: Option<String>,
    /// With `direction`: which component; the first if left out.
    pub component: Option<usize>,
    /// A sparse autoencoder: the vector of one of its features.
    pub sae: Option<String>,
    /// With `sae`: index of the feature.
    pub feature: Option<usize>,
    /// With `sae`: which of the feature's vectors; `decoder` if left out.
    pub side: Option<FeatureSide>,
    /// A vector.
    pub vector: Option<Vec<f32>>,
    /// Several vectors of one width, each a separate query; at most 64.
    pub vectors: Option<Vec<Vec<f32>>>,
}

/// What is ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = SearchOver)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// Caches, each represented by one row.
    #[default]
    Caches,
    /// Stored positions: every row of every cache, except means.
    Positions,
}

/// How similarity is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = SearchMetric)]
#[serde(rename_all = "lowercase")]
pub enum Nearness {
    /// Cosine of the angle, largest first.
    #[default]
    Cosine,
    /// Inner product, largest first.
    Dot,
    /// Length of the difference, smallest first.
    Euclidean,
}

impl From<Nearness> for search::Nearness {
    fn from(metric: Nearness) -> Self {
        match metric {
            Nearness::Cosine => Self::Cosine,
            Nearness::Dot => Self::Dot,
            Nearness::Euclidean => Self::Euclidean,
        }
    }
}

impl Search {
    /// Converts the body to a question; `wait` is the time limit for capturing a text.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] unless there is exactly one source with its own fields, and for a position in a search
    /// over positions; [`Code::UnknownCache`] for a malformed id; [`Code::InvalidValue`] for a condition that no cache
    /// can meet.
    pub fn question(self, wait: Duration) -> Result<SearchQuestion, Problem> {
        if self.exclude_self.is_some() && self.query.cache.is_none() {
            let detail = "exclude_self can only be used with query.cache";
            return Err(Problem::at(Code::InvalidBody, "/exclude_self", detail));
        }
        let over = match (self.over, self.position) {
            (Over::Caches, position) => search::Over::Caches(position),
            (Over::Positions, None) => search::Over::Positions,
            (Over::Positions, Some(_)) => {
                let detail =
                    "position cannot be used in a search over positions, which compares every row of each cache";
                return Err(Problem::at(Code::InvalidBody, "/position", detail));
            }
        };
        Ok(SearchQuestion {
            source: self.query.source(self.exclude_self == Some(true), wait)?,
            hook: self.hook,
            layer: self.layer,
            metric: self.metric.into(),
            k: self.k,
            filter: self.filter.filter("/filter")?,
            over,
            context: self.context,
        })
    }
}

impl SourceDto {
    /// Converts it to the source of a question.
    fn source(self, exclude_self: bool, wait: Duration) -> Result<SearchSource, Problem> {
        self.check()?;
        let Self { cache, text, model, position, direction, component, sae, feature, side, vector, vectors } = self;
        if let Some(direction) = direction {
            return Ok(SearchSource::Direction { direction, component: component.unwrap_or(0) });
        }
        if let (Some(sae), Some(feature)) = (sae, feature) {
            return Ok(SearchSource::Feature { sae, feature, side: side.unwrap_or_default().into() });
        }
        Ok(match (cache, text, model, vector) {
            (Some(cache), ..) => {
                SearchSource::Cache { cache: read_id(&cache, "/query/cache")?, position, exclude_self }
            }
            (_, Some(text), Some(model), _) => SearchSource::Text { text, model, position, wait },
            (.., Some(vector)) => SearchSource::Vector(vector),
            _ => SearchSource::Vectors(vectors.unwrap_or_default()),
        })
    }

    /// Checks that there is exactly one source, and no field of another.
    fn check(&self) -> Result<(), Problem> {
        let Self { cache, text, model, position, direction, component, sae, feature, side, vector, vectors } = self;
        let refuse = |pointer: &str, detail: &str| Err(Problem::at(Code::InvalidBody, pointer, detail));
        let given =
            [cache.is_some(), text.is_some(), direction.is_some(), sae.is_some(), vector.is_some(), vectors.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return refuse("/query", "give exactly one of cache, text, direction, sae, vector and vectors");
        }
        if feature.is_some() != sae.is_some() {
            return refuse("/query/feature", "feature is required with sae, and can only be used with it");
        }
        if side.is_some() && sae.is_none() {
            return refuse("/query/side", "side can only be used with sae");
        }
        if component.is_some() && direction.is_none() {
            return refuse("/query/component", "component can only be used with direction");
        }
        if text.is_some() != model.is_some() {
            return refuse("/query/model", "model is required with text, and can only be used with it");
        }
        if position.is_some() && cache.is_none() && text.is_none() {
            return refuse("/query/position", "position can only be used with cache or text");
        }
        Ok(())
    }
}
