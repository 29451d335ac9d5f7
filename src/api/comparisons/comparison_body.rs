//! The body of a comparison, and its conversion to a question of the engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::metric_name::MetricName;
use crate::api::dto::{
    capture::LayersSchema,
    position::ComparedPositionSchema,
    selector::{CacheSelector, CacheSelectorSchema},
};
use residuum_domain::{Code, ComparedPosition, Layers, Problem};
use residuum_engine::questions::{
    Selector,
    answer_limit::AnswerLimit,
    comparisons::{Compared, ComparisonQuestion, group_pointer},
    row_reader::RowsOf,
};

/// What to compare. Mode `pairs` takes `a` and `b`, `matrix` takes `caches`, `layers` takes `a` and optionally `b`,
/// `sets` takes `groups`. Caches are selected by an array of ids, or by conditions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ComparisonRequest, example = json!({
    "mode": "pairs", "a": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"], "b": ["0198c5a0-5b3f-7d51-8a3e-0242ac120003"],
    "hook": "resid_post", "layers": "all", "position": "last", "metrics": ["cosine"]
}))]
pub struct Comparison {
    /// Which caches are compared with which.
    mode: Mode,
    /// Caches on the left. In mode `pairs`, if one side has one cache, it is compared with each cache of the other.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    a: Option<CacheSelector>,
    /// Caches on the right. In mode `layers`, if left out, the left side is compared with itself.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    b: Option<CacheSelector>,
    /// Caches of a matrix.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    caches: Option<CacheSelector>,
    /// Groups of mode `sets`, at most 64; the response has them in the order of their names.
    #[schema(value_type = Option<BTreeMap<String, CacheSelectorSchema>>)]
    groups: Option<BTreeMap<String, CacheSelector>>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    hook: String,
    /// Layers, if the hook is a short name.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    layers: Layers,
    /// One position, or the mean over all.
    #[schema(value_type = Option<ComparedPositionSchema>)]
    position: Option<ComparedPosition>,
    /// Which rows a set has.
    rows: Option<RowsDto>,
    /// Metrics, each once. By default `cosine`, or `cka` in mode `sets`.
    metrics: Option<Vec<MetricName>>,
    /// Number of dimensions in each set of `jaccard`; 10 if left out.
    k: Option<usize>,
    /// What is subtracted from the vectors first.
    #[serde(default)]
    center: Center,
    /// Whether vectors are then scaled to unit length. A zero vector is not changed.
    #[serde(default)]
    normalize: bool,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

/// Which caches are compared with which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each of `a` with its counterpart in `b`.
    Pairs,
    /// Each cache with each.
    Matrix,
    /// Each layer of `a` with each layer of `b`.
    Layers,
    /// Each group with each, layer by layer.
    Sets,
}

/// Which rows a set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowsDto {
    /// One row per cache, at `position`.
    #[default]
    Caches,
    /// All stored positions of each cache.
    Positions,
}

/// What is subtracted from the vectors first, layer by layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Center {
    /// Nothing.
    #[default]
    None,
    /// The mean over all caches of the request, each counted once; for sets, the mean over the rows of the set.
    Mean,
}

impl Comparison {
    /// Converts the body to a question, with each metric once, in the order of [`MetricName`].
    ///
    /// # Errors
    /// [`Code::InvalidBody`] for a field that the mode does not take, and for one that it lacks; [`Code::InvalidValue`]
    /// for `position` together with `rows: positions`; errors of the selectors.
    pub fn question(self, limit: AnswerLimit) -> Result<ComparisonQuestion, Problem> {
        self.only_fields_of_the_mode()?;
        let compared = self.compared()?;
        let rows = match (self.rows.unwrap_or_default(), self.position) {
            (RowsDto::Caches, position) => RowsOf::Caches(position.unwrap_or_default()),
            (RowsDto::Positions, None) => RowsOf::Positions,
            (RowsDto::Positions, Some(_)) => {
                let detail = "with rows=positions every stored position is a row; leave position out";
                return Err(Problem::at(Code::InvalidValue, "/position", detail));
            }
        };
        let default = if self.mode == Mode::Sets { MetricName::Cka } else { MetricName::Cosine };
        let mut metrics = self.metrics.unwrap_or_else(|| vec![default]);
        metrics.sort_unstable();
        metrics.dedup();
        Ok(ComparisonQuestion {
            compared,
            hook: self.hook,
            layers: self.layers,
            rows,
            metrics: metrics.into_iter().map(Into::into).collect(),
            k: self.k,
            center: self.center == Center::Mean,
            normalize: self.normalize,
            limit,
        })
    }

    fn only_fields_of_the_mode(&self) -> Result<(), Problem> {
        let given = [
            ("a", self.a.is_some(), matches!(self.mode, Mode::Pairs | Mode::Layers)),
            ("b", self.b.is_some(), matches!(self.mode, Mode::Pairs | Mode::Layers)),
            ("caches", self.caches.is_some(), self.mode == Mode::Matrix),
            ("groups", self.groups.is_some(), self.mode == Mode::Sets),
            ("rows", self.rows.is_some(), matches!(self.mode, Mode::Sets | Mode::Layers)),
        ];
        if let Some((name, ..)) = given.iter().find(|(_, given, meant)| *given && !meant) {
            let detail = format!("{name} cannot be used in this mode");
            return Err(Problem::at(Code::InvalidBody, format!("/{name}"), detail));
        }
        Ok(())
    }

    fn compared(&self) -> Result<Compared, Problem> {
        Ok(match self.mode {
            Mode::Pairs => Compared::Pairs { a: needed(self.a.as_ref(), "/a")?, b: needed(self.b.as_ref(), "/b")? },
            Mode::Matrix => Compared::Matrix { caches: needed(self.caches.as_ref(), "/caches")? },
            Mode::Layers => Compared::Layers {
                a: needed(self.a.as_ref(), "/a")?,
                b: self.b.as_ref().map(|b| needed(Some(b), "/b")).transpose()?,
            },
            Mode::Sets => {
                let groups = self.groups.as_ref().ok_or_else(|| {
                    let detail = "this mode needs groups: an object of names, each with its caches";
                    Problem::at(Code::InvalidBody, "/groups", detail)
                })?;
                let read = |(name, caches): (&String, &CacheSelector)| -> Result<(String, Selector), Problem> {
                    Ok((name.clone(), needed(Some(caches), &group_pointer(name))?))
                };
                Compared::Sets { groups: groups.iter().map(read).collect::<Result<_, _>>()? }
            }
        })
    }
}

/// The caches of a field that the mode requires.
fn needed(caches: Option<&CacheSelector>, pointer: &str) -> Result<Selector, Problem> {
    match caches {
        None => Err(missing(pointer)),
        Some(CacheSelector::Ids(ids)) if ids.is_empty() => Err(missing(pointer)),
        Some(caches) => caches.selector(pointer),
    }
}

fn missing(pointer: &str) -> Problem {
    let name = pointer.trim_start_matches('/');
    let detail = format!("this mode needs {name}: an array of cache ids, or conditions");
    Problem::at(Code::InvalidBody, pointer, detail)
}

impl From<&Compared> for Mode {
    fn from(compared: &Compared) -> Self {
        match compared {
            Compared::Pairs { .. } => Self::Pairs,
            Compared::Matrix { .. } => Self::Matrix,
            Compared::Layers { .. } => Self::Layers,
            Compared::Sets { .. } => Self::Sets,
        }
    }
}
