//! `POST /v1/statistics`: body, answer and handler.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    dto::capture::{LayersSchema, PositionsSchema},
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query, Tenant},
    problems::StatisticsProblems,
    state::ApiState,
};
use crate::api::dto::selector::{CacheSelector, CacheSelectorSchema};
use residuum_domain::{Layers, Positions, Problem};
use residuum_engine::questions::statistics::{self, Spread, StatisticsAnswer, StatisticsQuestion};

/// Which activations to describe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StatisticsRequest, example = json!({"caches": {"tags": ["demo"]}, "hook": "resid_post", "layers": "all", "top_k": 3}))]
pub struct StatisticsRequest {
    /// The caches.
    #[schema(value_type = CacheSelectorSchema)]
    caches: CacheSelector,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    hook: String,
    /// Layers, if the hook is a short name.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    layers: Layers,
    /// Positions; all that each cache has if left out. Every position is one vector.
    #[schema(value_type = Option<PositionsSchema>)]
    positions: Option<Positions>,
    /// Length of the lists of dimensions, at most 1000.
    #[serde(default = "ten")]
    #[schema(default = 10)]
    top_k: usize,
    /// A dimension is an outlier if it is more than this many standard deviations from the average dimension; above 0.
    #[serde(default = "three")]
    #[schema(default = 3.0)]
    sigma: f64,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

const fn ten() -> usize {
    10
}

const fn three() -> f64 {
    3.0
}

/// Statistics of stored activations, layer by layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Statistics, example = json!({
    "hook": "resid_post", "n_caches": 2, "layers": [{
        "layer": 12, "n": 18, "n_non_finite": 0, "width": 576,
        "norm": {"mean": 61.2, "std": 9.5, "min": 44.0, "max": 83.1}, "mean_norm": 40.3,
        "variance": {"mean": 3.9, "std": 11.0, "min": 0.2, "max": 190.4}, "total_variance": 2246.4, "zeros": 0.0,
        "top_mean": [{"dimension": 315, "mean": -21.7, "std": 4.1}],
        "top_variance": [{"dimension": 41, "mean": 2.2, "std": 13.8}],
        "outliers": [{"dimension": 315, "mean": -21.7, "std": 4.1, "by_mean": true, "by_std": false}]
    }]
}))]
pub struct StatisticsDto {
    /// The hook, without its layer.
    hook: String,
    /// How many caches were read.
    n_caches: usize,
    /// One entry for each hook, in order.
    layers: Vec<LayerStatistics>,
}

/// Statistics of the vectors of one hook. Variances and standard deviations divide by n. Null if there is no finite
/// vector.
#[derive(Debug, Serialize, ToSchema)]
struct LayerStatistics {
    /// The layer; null for a hook outside the blocks.
    layer: Option<usize>,
    /// Number of vectors: positions of caches.
    n: u64,
    /// Number of vectors left out because they contain NaN or infinity.
    n_non_finite: u64,
    /// Dimensions of a vector.
    width: usize,
    /// Lengths (L2 norms) of the vectors.
    norm: Option<Range>,
    /// Length of the mean vector.
    mean_norm: Option<f64>,
    /// Variances of the dimensions; their sum is `total_variance`.
    variance: Option<Range>,
    /// Sum of the variances of all dimensions: the mean squared distance from the mean vector.
    total_variance: Option<f64>,
    /// Fraction of values that are exactly 0.
    zeros: Option<f64>,
    /// Dimensions with the largest |mean|, the largest first.
    top_mean: Vec<DimensionStatistics>,
    /// Dimensions with the largest variance, the largest first.
    top_variance: Vec<DimensionStatistics>,
    /// Dimensions whose mean is more than `sigma` standard deviations from the average of the means of all dimensions, or whose
    /// standard deviation is that far from the average standard deviation; in ascending order, at most 1000.
    outliers: Vec<Outlier>,
}

/// Mean, standard deviation and extremes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SpreadOfNumbers)]
struct Range {
    /// Mean.
    mean: f64,
    /// Standard deviation.
    std: f64,
    /// Smallest.
    min: f64,
    /// Largest.
    max: f64,
}

/// A dimension of the vectors.
#[derive(Debug, Serialize, ToSchema)]
struct DimensionStatistics {
    /// Its index.
    dimension: usize,
    /// Mean over the vectors.
    mean: f64,
    /// Standard deviation over the vectors.
    std: f64,
}

/// A dimension that is an outlier.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutlierDimension)]
struct Outlier {
    /// Its index.
    dimension: usize,
    /// Mean over the vectors.
    mean: f64,
    /// Standard deviation over the vectors.
    std: f64,
    /// Whether it is an outlier by its mean.
    by_mean: bool,
    /// Whether it is an outlier by its standard deviation.
    by_std: bool,
}

/// Describe activations
///
/// Statistics of the chosen vectors, layer by layer: lengths, mean, variances, the dimensions with the largest mean and
/// variance, and outliers. They are accumulated in float64, in one pass.
#[utoipa::path(
    post, path = "/v1/statistics", operation_id = "describeActivations", tag = "analysis", request_body = StatisticsRequest,
    responses((status = 200, description = "The statistics", body = StatisticsDto), StatisticsProblems)
)]
pub async fn summarise(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<StatisticsRequest>,
) -> ApiResult<Json<StatisticsDto>> {
    let question = body.value.question()?;
    Ok(Json(state.questions.statistics(tenant, &question).await?.into()))
}

impl StatisticsRequest {
    /// The question that the body asks.
    ///
    /// # Errors
    /// Those of the selector, pointing into `/caches`.
    fn question(self) -> Result<StatisticsQuestion, Problem> {
        Ok(StatisticsQuestion {
            caches: self.caches.selector("/caches")?,
            hook: self.hook,
            layers: self.layers,
            positions: self.positions,
            top_k: self.top_k,
            sigma: self.sigma,
        })
    }
}

impl From<StatisticsAnswer> for StatisticsDto {
    fn from(StatisticsAnswer { site, n_caches, layers }: StatisticsAnswer) -> Self {
        let name = site.name();
        Self {
            hook: name.strip_prefix("hook_").unwrap_or(name).to_owned(),
            n_caches,
            layers: layers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<statistics::LayerStatistics> for LayerStatistics {
    fn from(found: statistics::LayerStatistics) -> Self {
        Self {
            layer: found.layer,
            n: found.n,
            n_non_finite: found.n_non_finite,
            width: found.d,
            norm: found.norm.map(Into::into),
            mean_norm: found.mean_norm,
            variance: found.variance.map(Into::into),
            total_variance: found.total_variance,
            zeros: found.zeros,
            top_mean: found.top_mean.into_iter().map(Into::into).collect(),
            top_variance: found.top_variance.into_iter().map(Into::into).collect(),
            outliers: found.outliers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Spread> for Range {
    fn from(s: Spread) -> Self {
        Self { mean: s.mean, std: s.std(), min: s.min, max: s.max }
    }
}

impl From<statistics::Dimension> for DimensionStatistics {
    fn from(statistics::Dimension { index, mean, std }: statistics::Dimension) -> Self {
        Self { dimension: index, mean, std }
    }
}

impl From<statistics::Outlier> for Outlier {
    fn from(statistics::Outlier { dimension, by_mean, by_std }: statistics::Outlier) -> Self {
        let statistics::Dimension { index, mean, std } = dimension;
        Self { dimension: index, mean, std, by_mean, by_std }
    }
}
