//! `POST /v1/comparisons`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    dto::{
        capture::LayersSchema,
        position::{ComparedPosition, ComparedPositionSchema},
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query, Tenant},
    problems::ComparisonProblems,
    select::{Chosen, read_id},
    state::ApiState,
};
use crate::{
    analysis::{self, Metric},
    domain::{CacheId, Code, Hook, Layers, Problem, Site},
};

/// Numbers in one answer.
const MAX_VALUES: usize = 4_000_000;
/// Caches in one comparison.
const MAX_CACHES: usize = 10_000;

/// What to compare. `pairs` takes `a` and `b`, `matrix` takes `caches`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ComparisonRequest, example = json!({
    "mode": "pairs", "a": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"], "b": ["0198c5a0-5b3f-7d51-8a3e-0242ac120003"],
    "hook": "resid_post", "layers": "all", "position": "last", "metrics": ["cosine"]
}))]
pub struct Comparison {
    /// How caches are matched up.
    pub mode: Mode,
    /// Left sides; one against many is broadcast.
    pub a: Option<Vec<String>>,
    /// Right sides.
    pub b: Option<Vec<String>>,
    /// Caches of a matrix.
    pub caches: Option<Vec<String>>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Layers, for short names.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// One position of each cache; `last` if left out.
    #[schema(value_type = Option<ComparedPositionSchema>)]
    pub position: Option<ComparedPosition>,
    /// Metrics, each once.
    #[serde(default = "cosine")]
    #[schema(default = json!(["cosine"]), value_type = Vec<MetricSchema>)]
    pub metrics: Vec<Metric>,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

fn cosine() -> Vec<Metric> {
    vec![Metric::Cosine]
}

/// How caches are matched up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each of `a` with its counterpart in `b`.
    Pairs,
    /// Each with each.
    Matrix,
}

/// A metric of two vectors.
#[derive(Serialize, ToSchema)]
#[schema(as = Metric)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Metric for the specification")]
pub enum MetricSchema {
    /// Cosine of the angle; null with a zero vector.
    Cosine,
    /// Inner product.
    Dot,
    /// Length of the difference.
    Euclidean,
}

/// The answer to a comparison. `pairs` in that mode; `caches` and `values` in mode `matrix`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Comparison, example = json!({
    "mode": "pairs", "hook": "resid_post", "position": "last", "layers": [0, 1],
    "pairs": [{
        "a": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "b": "0198c5a0-5b3f-7d51-8a3e-0242ac120003",
        "values": {"cosine": [0.9997, 0.9993]}
    }]
}))]
pub struct ComparisonDto {
    /// As asked.
    mode: Mode,
    /// The hook, without its layer.
    hook: String,
    /// As asked.
    #[schema(value_type = ComparedPositionSchema)]
    position: ComparedPosition,
    /// Layers compared, in the order of the values; empty for a hook outside the blocks.
    layers: Vec<usize>,
    /// The pairs, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pairs: Option<Vec<Pair>>,
    /// The caches of the matrix, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    caches: Option<Vec<String>>,
    /// For each metric a matrix per layer, `[layer][i][j]`; null where undefined.
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<BTreeMap<&'static str, Vec<Matrix>>>,
}

/// `[i][j]`.
type Matrix = Vec<Vec<Option<f64>>>;

/// One pair.
#[derive(Debug, Serialize, ToSchema)]
struct Pair {
    /// Left.
    a: String,
    /// Right.
    b: String,
    /// For each metric one value per layer; null where undefined (a zero vector, NaN).
    values: BTreeMap<&'static str, Vec<Option<f64>>>,
}

/// Compare caches
///
/// Vectors of one hook at one position, layer by layer, pair by pair or each with each. Sums are accumulated in float64.
#[utoipa::path(
    post, path = "/v1/comparisons", operation_id = "compareCaches", tag = "comparisons", request_body = Comparison,
    responses((status = 200, description = "The values", body = ComparisonDto), ComparisonProblems)
)]
pub async fn compare(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<Comparison>,
) -> ApiResult<Json<ComparisonDto>> {
    let request = body.value;
    let metrics = distinct(&request.metrics)?;
    let position = request.position.clone().unwrap_or_default();
    if !position.is_one() {
        return Err(Problem::at(
            Code::InvalidValue,
            "/position",
            "a comparison takes one position: an integer, \"last\", a mean or \"stored\"",
        )
        .into());
    }
    let sides = Sides::of(&request)?;
    let caches = Chosen::of_ids(state.engine.store(), tenant, sides.ids.clone()).await?;
    let hooks = caches.hooks(&request.hook, &request.layers)?;
    let per_layer = sides.n_values() * metrics.len();
    if per_layer.saturating_mul(hooks.len()) > MAX_VALUES {
        let detail = format!(
            "the answer would hold {} numbers; {MAX_VALUES} are allowed. Compare fewer caches or layers at once",
            per_layer.saturating_mul(hooks.len())
        );
        return Err(Problem::new(Code::ResultTooLarge, detail).into());
    }
    let mut layers = Vec::new();
    for hook in &hooks {
        let vectors = caches.vectors(state.engine.store(), *hook, &position).await?;
        let (metrics, sides, pool) = (metrics.clone(), sides.clone(), Arc::clone(&state.analysis));
        let values =
            tokio::task::spawn_blocking(move || pool.install(|| layer_values(&metrics, &vectors, &sides))).await;
        layers.push(values.map_err(|_| Problem::new(Code::Internal, "the comparison could not be computed"))?);
    }
    let site = hooks[0].site();
    let numbers = hooks.iter().filter_map(Hook::layer).collect();
    Ok(Json(answer(&request, site, position, numbers, layers, &sides, &metrics)))
}

fn distinct(metrics: &[Metric]) -> Result<Vec<Metric>, Problem> {
    let distinct: Vec<Metric> = Metric::ALL.into_iter().filter(|m| metrics.contains(m)).collect();
    if distinct.is_empty() {
        return Err(Problem::at(Code::InvalidValue, "/metrics", "name at least one metric: cosine, dot or euclidean"));
    }
    Ok(distinct)
}

/// The caches of a request: each once, and which meet.
#[derive(Clone)]
struct Sides {
    mode: Mode,
    /// Each cache once, with where the body names it first.
    ids: Vec<(CacheId, String)>,
    /// Indices into `ids`: of `a` and `b`, or of `caches` twice.
    a: Vec<usize>,
    b: Vec<usize>,
}

impl Sides {
    fn of(request: &Comparison) -> Result<Self, Problem> {
        let mut ids: Vec<(CacheId, String)> = Vec::new();
        let mut place = std::collections::HashMap::new();
        let mut read = |name: &str, list: &Option<Vec<String>>| -> Result<Vec<usize>, Problem> {
            let list = list.as_ref().filter(|l| !l.is_empty());
            let list = list.ok_or_else(|| {
                Problem::at(
                    Code::InvalidBody,
                    format!("/{name}"),
                    format!("this mode needs {name}, a list of cache ids"),
                )
            })?;
            if list.len() > MAX_CACHES {
                return Err(Problem::at(
                    Code::ResultTooLarge,
                    format!("/{name}"),
                    format!("at most {MAX_CACHES} caches are compared at once"),
                ));
            }
            let index = |(i, text): (usize, &String)| {
                let pointer = format!("/{name}/{i}");
                let (id, pointer) = read_id(text, pointer)?;
                Ok(*place.entry(id).or_insert_with(|| {
                    ids.push((id, pointer));
                    ids.len() - 1
                }))
            };
            list.iter().enumerate().map(index).collect()
        };
        let unused = |name: &str, given: bool| {
            if given {
                Err(Problem::at(Code::InvalidBody, format!("/{name}"), format!("{name} has no meaning in this mode")))
            } else {
                Ok(())
            }
        };
        let (a, b) = match request.mode {
            Mode::Pairs => {
                unused("caches", request.caches.is_some())?;
                broadcast(read("a", &request.a)?, read("b", &request.b)?)?
            }
            Mode::Matrix => {
                unused("a", request.a.is_some())?;
                unused("b", request.b.is_some())?;
                let all = read("caches", &request.caches)?;
                (all.clone(), all)
            }
        };
        Ok(Self { mode: request.mode, ids, a, b })
    }

    /// Numbers that one metric gives for one layer.
    fn n_values(&self) -> usize {
        match self.mode {
            Mode::Pairs => self.a.len(),
            Mode::Matrix => self.a.len() * self.a.len(),
        }
    }
}

fn broadcast(mut a: Vec<usize>, mut b: Vec<usize>) -> Result<(Vec<usize>, Vec<usize>), Problem> {
    match (a.len(), b.len()) {
        (n, m) if n == m => {}
        (1, m) => a = vec![a[0]; m],
        (n, 1) => b = vec![b[0]; n],
        (n, m) => {
            let detail = format!("a has {n} caches and b {m}: give lists of one length, or one cache on one side");
            return Err(Problem::at(Code::InvalidValue, "/b", detail));
        }
    }
    Ok((a, b))
}

/// For each metric: the values of the pairs, or the rows of the matrix.
type LayerValues = Vec<Matrix>;

fn layer_values(metrics: &[Metric], vectors: &[Vec<f32>], sides: &Sides) -> LayerValues {
    metrics
        .iter()
        .map(|metric| match sides.mode {
            Mode::Pairs => {
                vec![sides.a.iter().zip(&sides.b).map(|(i, j)| metric.of(&vectors[*i], &vectors[*j])).collect()]
            }
            Mode::Matrix => {
                let views: Vec<&[f32]> = sides.a.iter().map(|i| vectors[*i].as_slice()).collect();
                analysis::matrix(*metric, &views)
            }
        })
        .collect()
}

fn answer(
    request: &Comparison,
    site: Site,
    position: ComparedPosition,
    numbers: Vec<usize>,
    layers: Vec<LayerValues>,
    sides: &Sides,
    metrics: &[Metric],
) -> ComparisonDto {
    let hook = site.name().strip_prefix("hook_").unwrap_or(site.name()).to_owned();
    let id = |i: &usize| sides.ids[*i].0.to_string();
    let mut dto =
        ComparisonDto { mode: request.mode, hook, position, layers: numbers, pairs: None, caches: None, values: None };
    match sides.mode {
        Mode::Pairs => {
            let of_pair = |p: usize| {
                metrics
                    .iter()
                    .enumerate()
                    .map(|(m, metric)| (metric.name(), layers.iter().map(|l| l[m][0][p]).collect()))
                    .collect()
            };
            let pair = |(p, (a, b)): (usize, (&usize, &usize))| Pair { a: id(a), b: id(b), values: of_pair(p) };
            dto.pairs = Some(sides.a.iter().zip(&sides.b).enumerate().map(pair).collect());
        }
        Mode::Matrix => {
            dto.caches = Some(sides.a.iter().map(id).collect());
            let mut values: BTreeMap<&'static str, Vec<Matrix>> = BTreeMap::new();
            for layer in layers {
                for (metric, matrix) in metrics.iter().zip(layer) {
                    values.entry(metric.name()).or_default().push(matrix);
                }
            }
            dto.values = Some(values);
        }
    }
    dto
}
