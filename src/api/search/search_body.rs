//! What a search asks for, as a body.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::dto::{capture::PositionsSchema, direction_ref::FeatureSide, selector::FilterDto};
use residuum_domain::{Code, Positions, Problem};
use residuum_engine::questions::{
    read_id,
    search::{self, SearchQuestion, SearchSource},
};

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
    #[schema(default = "cosine")]
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
    /// The question that the body asks; a text may take `wait` to be captured.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] unless there is one source with what goes with it, and for a position that nothing is chosen by;
    /// [`Code::UnknownCache`] for what is no id; [`Code::InvalidValue`] for a condition that no cache can meet.
    pub fn question(self, wait: Duration) -> Result<SearchQuestion, Problem> {
        if self.exclude_self.is_some() && self.query.cache.is_none() {
            let detail = "exclude_self goes with query.cache";
            return Err(Problem::at(Code::InvalidBody, "/exclude_self", detail));
        }
        let over = match (self.over, self.position) {
            (Over::Caches, position) => search::Over::Caches(position),
            (Over::Positions, None) => search::Over::Positions,
            (Over::Positions, Some(_)) => {
                let detail = "position chooses the row of each cache; a search over positions goes through all of them";
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
    /// What is searched for.
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

    /// Checks that there is one source, with what goes with it.
    fn check(&self) -> Result<(), Problem> {
        let Self { cache, text, model, position, direction, component, sae, feature, side, vector, vectors } = self;
        let refuse = |pointer: &str, detail: &str| Err(Problem::at(Code::InvalidBody, pointer, detail));
        let given =
            [cache.is_some(), text.is_some(), direction.is_some(), sae.is_some(), vector.is_some(), vectors.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return refuse("/query", "give exactly one of cache, text, direction, sae, vector and vectors");
        }
        if feature.is_some() != sae.is_some() {
            return refuse("/query/feature", "a sparse autoencoder needs the feature, and nothing else takes one");
        }
        if side.is_some() && sae.is_none() {
            return refuse("/query/side", "side goes with a feature of a sparse autoencoder");
        }
        if component.is_some() && direction.is_none() {
            return refuse("/query/component", "component goes with a direction");
        }
        if text.is_some() != model.is_some() {
            return refuse("/query/model", "a text needs the model that reads it, and nothing else takes one");
        }
        if position.is_some() && cache.is_none() && text.is_none() {
            return refuse("/query/position", "position goes with a cache or a text");
        }
        Ok(())
    }
}
