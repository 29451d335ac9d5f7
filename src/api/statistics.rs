//! `POST /v1/statistics`.

use std::sync::Arc;

use axum::{Json, extract::State};
use rayon::prelude::*;
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
use residuum_analysis::{
    Summary,
    summary::{Spread, largest, outliers},
};
use residuum_domain::{Code, Hook, Layers, Positions, Problem, Selection, TenantId};
use residuum_engine::questions::{deleted_caches::again, row_reader::read_rows};
use residuum_store::{Store, StoredCache};

/// Caches in one request.
const MAX_CACHES: usize = 10_000;
/// Dimensions named in each list.
const MAX_TOP: usize = 1000;
/// Numbers read by one request: some ten seconds.
const MAX_READ: usize = 4_000_000_000;

/// What to describe.
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
    /// Layers, for short names.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    layers: Layers,
    /// Positions; all that each cache has if left out. Every position is a vector of its own.
    #[schema(value_type = Option<PositionsSchema>)]
    positions: Option<Positions>,
    /// Dimensions to name in each list, at most 1000.
    #[serde(default = "ten")]
    #[schema(default = 10)]
    top_k: usize,
    /// How many standard deviations from the others make a dimension an outlier, more than 0.
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
        "layer": 12, "n": 18, "n_non_finite": 0, "d": 576,
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

/// Statistics of the vectors of one hook. Variances and standard deviations divide by n. Null where there is no finite
/// vector.
#[derive(Debug, Serialize, ToSchema)]
struct LayerStatistics {
    /// The layer; null for a hook outside the blocks.
    layer: Option<usize>,
    /// Vectors taken in: positions of caches.
    n: u64,
    /// Vectors left out because a number of theirs is NaN or infinite.
    n_non_finite: u64,
    /// Numbers of a vector.
    d: usize,
    /// Lengths of the vectors.
    norm: Option<Range>,
    /// Length of the mean vector.
    mean_norm: Option<f64>,
    /// Variances of the dimensions; their sum is `total_variance`.
    variance: Option<Range>,
    /// Sum of the variances of all dimensions: the mean squared distance from the mean vector.
    total_variance: Option<f64>,
    /// Share of exact zeros among all numbers.
    zeros: Option<f64>,
    /// Dimensions with the largest |mean|, the largest first.
    top_mean: Vec<Dimension>,
    /// Dimensions with the largest variance, the largest first.
    top_variance: Vec<Dimension>,
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

impl From<Spread> for Range {
    fn from(s: Spread) -> Self {
        Self { mean: s.mean, std: s.std(), min: s.min, max: s.max }
    }
}

/// A dimension of the vectors.
#[derive(Debug, Serialize, ToSchema)]
struct Dimension {
    /// Its index.
    dimension: usize,
    /// Mean over the vectors.
    mean: f64,
    /// Standard deviation over the vectors.
    std: f64,
}

/// A dimension unlike the others.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutlierDimension)]
struct Outlier {
    /// Its index.
    dimension: usize,
    /// Mean over the vectors.
    mean: f64,
    /// Standard deviation over the vectors.
    std: f64,
    /// Whether its mean stands out.
    by_mean: bool,
    /// Whether its standard deviation stands out.
    by_std: bool,
}

/// Describe activations
///
/// One pass over the chosen vectors, accumulated in float64: lengths, mean, variances, the dimensions that carry most, and
/// those unlike the others.
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
    let request = body.value;
    if request.top_k > MAX_TOP {
        return Err(Problem::at(Code::InvalidValue, "/top_k", format!("at most {MAX_TOP} dimensions are named")).into());
    }
    if !(request.sigma.is_finite() && request.sigma > 0.0) {
        return Err(
            Problem::at(Code::InvalidValue, "/sigma", "sigma is a number of standard deviations above 0").into()
        );
    }
    Ok(Json(again(Code::UnknownCache, || statistics(&state, tenant, &request)).await?))
}

async fn statistics(state: &ApiState, tenant: TenantId, request: &StatisticsRequest) -> Result<StatisticsDto, Problem> {
    let store = state.engine.store().clone();
    let chosen = request.caches.selector("/caches")?.choose(&store, tenant, "/caches", MAX_CACHES).await?;
    let hooks = chosen.hooks(&request.hook, &request.layers)?;
    let rows = |hook: &Hook| chosen.selections(*hook, request.positions.as_ref());
    let selected: Vec<(Vec<Selection>, usize)> = hooks.iter().map(rows).collect::<Result<_, _>>()?;
    let n_read = selected.iter().flat_map(|(s, _)| s).map(Selection::n_read).fold(0, usize::saturating_add);
    if n_read > MAX_READ {
        let detail = format!("{n_read} numbers would be read; {MAX_READ} are allowed. Choose fewer caches or layers");
        return Err(Problem::new(Code::ResultTooLarge, detail));
    }
    let job = Job { store, caches: chosen.caches, hooks, selected, top_k: request.top_k, sigma: request.sigma };
    state.questions.analyse(move || job.run()).await
}

/// A request, checked.
struct Job {
    store: Store,
    caches: Vec<Arc<StoredCache>>,
    hooks: Vec<Hook>,
    /// For each hook the rows of each cache, and their width.
    selected: Vec<(Vec<Selection>, usize)>,
    top_k: usize,
    sigma: f64,
}

impl Job {
    fn run(self) -> Result<StatisticsDto, Problem> {
        let layers = self.hooks.par_iter().zip(&self.selected);
        let layers = layers.map(|(hook, (selections, width))| {
            let mut summary = Summary::new(*width);
            for (cache, selection) in self.caches.iter().zip(selections) {
                summary.add(&read_rows(&self.store, cache, selection)?);
            }
            Ok(self.describe(*hook, &summary))
        });
        let name = self.hooks[0].site().name();
        Ok(StatisticsDto {
            hook: name.strip_prefix("hook_").unwrap_or(name).to_owned(),
            n_caches: self.caches.len(),
            layers: layers.collect::<Result<_, Problem>>()?,
        })
    }

    fn describe(&self, hook: Hook, summary: &Summary) -> LayerStatistics {
        let (mean, variance) = (summary.mean(), summary.variance());
        let std: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
        let size: Vec<f64> = mean.iter().map(|m| m.abs()).collect();
        let any = summary.n() > 0;
        let named = |dimensions: Vec<usize>| {
            let dimension = |i: usize| Dimension { dimension: i, mean: mean[i], std: std[i] };
            if any { dimensions.into_iter().map(dimension).collect() } else { Vec::new() }
        };
        let (by_mean, by_std) = (outliers(mean, self.sigma), outliers(&std, self.sigma));
        let outlier = |i: usize| {
            let (by_mean, by_std) = (by_mean.binary_search(&i).is_ok(), by_std.binary_search(&i).is_ok());
            (by_mean || by_std).then(|| Outlier { dimension: i, mean: mean[i], std: std[i], by_mean, by_std })
        };
        LayerStatistics {
            layer: hook.layer(),
            n: summary.n(),
            n_non_finite: summary.n_non_finite(),
            d: mean.len(),
            norm: any.then(|| summary.norm().into()),
            mean_norm: any.then(|| mean.iter().map(|m| m * m).sum::<f64>().sqrt()),
            variance: any.then(|| Spread::of(variance.iter().copied()).into()),
            total_variance: any.then(|| variance.iter().sum()),
            zeros: any.then(|| summary.zeros()),
            top_mean: named(largest(&size, self.top_k)),
            top_variance: named(largest(&variance, self.top_k)),
            outliers: (0..mean.len()).filter_map(outlier).take(MAX_TOP).collect(),
        }
    }
}
