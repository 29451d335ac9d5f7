//! The body of a comparison, and what of it can be refused without looking at a cache.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metric::{Kind, MetricName};
use crate::api::dto::{
    capture::LayersSchema,
    position::ComparedPositionSchema,
    selector::{CacheSelector, CacheSelectorSchema},
};
use residuum_analysis::{Preparation, SetMetric, VectorMetric};
use residuum_domain::ComparedPosition;
use residuum_domain::{Code, Layers, Problem};
use residuum_engine::questions::row_reader::RowsOf;

/// Groups in one comparison.
const MAX_GROUPS: usize = 64;
/// Places that `jaccard` takes unless told.
const DEFAULT_K: usize = 10;

/// What to compare. `pairs` takes `a` and `b`, `matrix` takes `caches`, `layers` takes `a` and perhaps `b`, `sets` takes
/// `groups`. Caches are named by an array of ids, or by conditions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ComparisonRequest, example = json!({
    "mode": "pairs", "a": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"], "b": ["0198c5a0-5b3f-7d51-8a3e-0242ac120003"],
    "hook": "resid_post", "layers": "all", "position": "last", "metrics": ["cosine"]
}))]
pub struct Comparison {
    /// How caches are matched up.
    pub mode: Mode,
    /// Left sides; in mode `pairs` one against many is broadcast.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub a: Option<CacheSelector>,
    /// Right sides. In mode `layers` the left side is compared with itself when this is left out.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub b: Option<CacheSelector>,
    /// Caches of a matrix.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub caches: Option<CacheSelector>,
    /// Groups of mode `sets`, 64 at most; answered in the order of their names.
    #[schema(value_type = Option<BTreeMap<String, CacheSelectorSchema>>)]
    pub groups: Option<BTreeMap<String, CacheSelector>>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Layers, for short names.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// One position, or the mean over all.
    #[schema(value_type = Option<ComparedPositionSchema>)]
    pub position: Option<ComparedPosition>,
    /// What a row of a set is.
    pub rows: Option<RowsDto>,
    /// Metrics, each once. By default `cosine`, in mode `sets` `cka`.
    pub metrics: Option<Vec<MetricName>>,
    /// How many places `jaccard` takes; 10 if left out.
    pub k: Option<usize>,
    /// What is subtracted first.
    #[serde(default)]
    pub center: Center,
    /// Whether vectors are then scaled to unit length. A zero vector stays one.
    #[serde(default)]
    pub normalize: bool,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

/// How caches are matched up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each of `a` with its counterpart in `b`.
    Pairs,
    /// Each with each.
    Matrix,
    /// Each layer of `a` with each layer of `b`.
    Layers,
    /// Each group with each, layer by layer.
    Sets,
}

/// What a row of a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowsDto {
    /// One row a cache, at `position`.
    #[default]
    Caches,
    /// Each stored position of each cache.
    Positions,
}

/// What is subtracted before anything else, layer by layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Center {
    /// Nothing.
    #[default]
    None,
    /// The mean over the caches of the request, each counted once; of a set, the mean over its rows.
    Mean,
}

/// The metrics of a request, all of one kind.
#[derive(Debug, Clone)]
pub enum Metrics {
    /// Of two vectors.
    Vector(Vec<VectorMetric>),
    /// Of two sets.
    Set(Vec<SetMetric>),
}

/// A request whose fields agree with each other.
#[derive(Debug)]
pub struct Asked {
    /// Metrics, in the order of the documentation.
    pub names: Vec<MetricName>,
    /// The same as they are computed.
    pub metrics: Metrics,
    /// What a row is; one a cache for metrics of vectors.
    pub rows: RowsOf,
    /// What is done to rows first.
    pub preparation: Preparation,
    /// Places that `jaccard` takes, where it is asked for.
    pub k: Option<usize>,
}

impl Asked {
    /// # Errors
    /// [`Code::InvalidBody`] for fields without a meaning in the mode, [`Code::InvalidValue`] for values that do not go
    /// together.
    pub fn of(request: &Comparison) -> Result<Self, Problem> {
        only_fields_of_the_mode(request)?;
        let names = distinct(request)?;
        let k = k_of(request, &names)?;
        let metrics = metrics(&names, request.mode, k.unwrap_or(DEFAULT_K))?;
        let rows = rows(request, matches!(metrics, Metrics::Set(_)))?;
        let preparation = Preparation { center: request.center == Center::Mean, normalize: request.normalize };
        let nothing_left = match &metrics {
            Metrics::Vector(_) if request.mode == Mode::Layers => Some("a vector minus the mean of itself is zero"),
            Metrics::Set(set) if set.iter().any(|m| !m.is_aligned()) => {
                Some("mean_difference, mean_cosine and effect_size compare the means, which this would remove")
            }
            _ => None,
        };
        if let (true, Some(why)) = (preparation.center, nothing_left) {
            return Err(Problem::at(Code::InvalidValue, "/center", why));
        }
        Ok(Self { names, metrics, rows, preparation, k })
    }
}

fn only_fields_of_the_mode(request: &Comparison) -> Result<(), Problem> {
    let given = [
        ("a", request.a.is_some(), matches!(request.mode, Mode::Pairs | Mode::Layers)),
        ("b", request.b.is_some(), matches!(request.mode, Mode::Pairs | Mode::Layers)),
        ("caches", request.caches.is_some(), request.mode == Mode::Matrix),
        ("groups", request.groups.is_some(), request.mode == Mode::Sets),
        ("rows", request.rows.is_some(), matches!(request.mode, Mode::Sets | Mode::Layers)),
    ];
    if let Some((name, ..)) = given.iter().find(|(_, given, meant)| *given && !meant) {
        let detail = format!("{name} has no meaning in this mode");
        return Err(Problem::at(Code::InvalidBody, format!("/{name}"), detail));
    }
    if request.groups.as_ref().is_some_and(|g| g.is_empty() || g.len() > MAX_GROUPS) {
        return Err(Problem::at(Code::InvalidValue, "/groups", format!("name between 1 and {MAX_GROUPS} groups")));
    }
    Ok(())
}

fn distinct(request: &Comparison) -> Result<Vec<MetricName>, Problem> {
    let default = if request.mode == Mode::Sets { MetricName::Cka } else { MetricName::Cosine };
    let mut names = request.metrics.clone().unwrap_or_else(|| vec![default]);
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(Problem::at(Code::InvalidValue, "/metrics", "name at least one metric, for example cosine"));
    }
    Ok(names)
}

fn k_of(request: &Comparison, names: &[MetricName]) -> Result<Option<usize>, Problem> {
    let refuse = |why: &str| Err(Problem::at(Code::InvalidValue, "/k", why));
    match (request.k, names.contains(&MetricName::Jaccard)) {
        (Some(_), false) => refuse("k belongs to the metric jaccard, which is not asked for"),
        (Some(0), true) => refuse("k is at least 1"),
        (k, true) => Ok(Some(k.unwrap_or(DEFAULT_K))),
        (None, false) => Ok(None),
    }
}

fn metrics(names: &[MetricName], mode: Mode, k: usize) -> Result<Metrics, Problem> {
    let (mut vector, mut set) = (Vec::new(), Vec::new());
    for name in names {
        let why = match (name.kind(k), mode) {
            (Kind::Vector(_), Mode::Sets) => {
                "compares two vectors; sets take cka, cka_debiased, rsa, procrustes, mean_difference, mean_cosine or effect_size"
            }
            (Kind::Set(_), Mode::Pairs | Mode::Matrix) => {
                "compares sets of rows; this mode takes cosine, dot, euclidean, mae, pearson or jaccard"
            }
            (Kind::Set(metric), Mode::Layers) if !metric.is_aligned() => {
                "compares groups at one layer; ask for it in mode sets"
            }
            (Kind::Vector(metric), _) => {
                vector.push(metric);
                continue;
            }
            (Kind::Set(metric), _) => {
                set.push(metric);
                continue;
            }
        };
        return Err(Problem::at(Code::InvalidValue, "/metrics", format!("{} {why}", name.name())));
    }
    match (vector.is_empty(), set.is_empty()) {
        (false, true) => Ok(Metrics::Vector(vector)),
        (true, _) => Ok(Metrics::Set(set)),
        (false, false) => {
            let detail =
                "metrics of vectors compare one cache with one, metrics of sets many with many; ask for them apart";
            Err(Problem::at(Code::InvalidValue, "/metrics", detail))
        }
    }
}

fn rows(request: &Comparison, of_sets: bool) -> Result<RowsOf, Problem> {
    let refuse = |pointer: &str, why: &str| Err(Problem::at(Code::InvalidValue, pointer, why));
    if request.rows == Some(RowsDto::Positions) {
        return match (of_sets, &request.position) {
            (false, _) => refuse("/rows", "metrics of vectors compare one position; leave rows out"),
            (true, Some(_)) => refuse("/position", "every stored position is a row already; leave position out"),
            (true, None) => Ok(RowsOf::Positions),
        };
    }
    let position = request.position.clone().unwrap_or_default();
    if !position.is_one() {
        return refuse("/position", "a comparison takes one position: an integer, \"last\", \"mean\" or \"stored\"");
    }
    Ok(RowsOf::Caches(position))
}
