//! Comparisons of stored activations: of vectors in pairs, each with each, or layer with layer; and of sets of rows.

mod checked_comparison;
mod comparing;
mod comparison_metric;
mod set_comparisons;
mod vector_comparisons;

use std::collections::BTreeMap;

pub use comparison_metric::ComparisonMetric;

use self::{
    checked_comparison::{Checked, Metrics},
    comparing::Comparing,
};
use super::{Questions, Selector, answer_limit::AnswerLimit, deleted_caches::again, row_reader::RowsOf};
use residuum_domain::{CacheId, Code, Hook, Layers, Problem, TenantId};

/// What to compare.
#[derive(Debug, Clone)]
pub struct ComparisonQuestion {
    /// The caches to compare, and how they are paired.
    pub compared: Compared,
    /// Hook, short or full.
    pub hook: String,
    /// Layers, for short names.
    pub layers: Layers,
    /// What counts as a row. Metrics of vectors take one row from each cache.
    pub rows: RowsOf,
    /// Metrics, all of one kind and without repeats, in the order of the answer's values.
    pub metrics: Vec<ComparisonMetric>,
    /// How many of the largest magnitudes `jaccard` compares; 10 if left out.
    pub k: Option<usize>,
    /// Whether to subtract a mean first, layer by layer: for vectors, the mean over all caches of the question, each
    /// counted once; for sets, the mean over the rows of each set.
    pub center: bool,
    /// Whether vectors are then scaled to unit length. A zero vector stays zero.
    pub normalize: bool,
    /// How many numbers the answer may hold.
    pub limit: AnswerLimit,
}

/// The caches to compare, and how they are paired.
#[derive(Debug, Clone)]
pub enum Compared {
    /// Each of `a` with its counterpart in `b`. If one side has only one cache, it is compared with each of the other
    /// side.
    Pairs {
        /// Left sides.
        a: Selector,
        /// Right sides.
        b: Selector,
    },
    /// Each cache with each.
    Matrix {
        /// The caches.
        caches: Selector,
    },
    /// Each layer of `a` with each layer of `b`.
    Layers {
        /// Left side.
        a: Selector,
        /// Right side; the left one itself if left out.
        b: Option<Selector>,
    },
    /// Each group with each, at each layer.
    Sets {
        /// The groups by name, at most 64.
        groups: BTreeMap<String, Selector>,
    },
}

/// The values of each requested metric, and what was compared.
#[derive(Debug, Clone)]
pub struct ComparisonAnswer {
    /// The caches that the values belong to.
    pub sides: ComparedCaches,
    /// The hooks, all of one site, in the order of the values. If layers are compared, the hooks of `a`.
    pub hooks: Vec<Hook>,
    /// The `k` that `jaccard` used, if that metric is requested.
    pub k: Option<usize>,
    /// Extent of each axis, the same for every metric: `[layer, pair]`, `[layer, i, j]` of a matrix or of sets, or
    /// `[layer_a, layer_b]`.
    pub shape: Vec<usize>,
    /// For each metric of the question, the values in that shape, row-major; NaN if undefined.
    pub values: Vec<Vec<f64>>,
}

/// The caches that were compared, in the order of the values.
#[derive(Debug, Clone)]
pub enum ComparedCaches {
    /// The two caches of each pair.
    Pairs(Vec<(CacheId, CacheId)>),
    /// The caches of a matrix.
    Matrix(Vec<CacheId>),
    /// Both sides, in the order of their rows.
    Layers {
        /// The left side.
        a: Vec<CacheId>,
        /// The right side.
        b: Vec<CacheId>,
        /// The hooks of the right side.
        hooks_b: Vec<Hook>,
    },
    /// The groups, in the order of their names.
    Sets(Vec<ComparedGroup>),
}

/// A group of caches whose rows form one set.
#[derive(Debug, Clone)]
pub struct ComparedGroup {
    /// Its name.
    pub name: String,
    /// Number of its rows.
    pub n_rows: usize,
    /// Its caches, in the order of their rows.
    pub caches: Vec<CacheId>,
}

/// The JSON pointer at a group of [`Compared::Sets`].
#[must_use]
pub fn group_pointer(name: &str) -> String {
    format!("/groups/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl Questions {
    /// Compares caches; sums are accumulated in float64.
    ///
    /// [`Code::InvalidValue`] for fields that contradict each other, for lists of different lengths and for a hook that
    /// holds indices; [`Code::ShapeMismatch`] for rows of different widths, for too few rows, and for sets whose rows
    /// do not correspond; [`Code::ResultTooLarge`] for an answer above the limit, or for more memory than a comparison
    /// may take; those of selecting caches, hooks and positions, and those of the store.
    pub async fn comparison(
        &self,
        tenant: TenantId,
        question: &ComparisonQuestion,
    ) -> Result<ComparisonAnswer, Problem> {
        let checked = Checked::of(question)?;
        let comparing = Comparing { questions: self, tenant, question, checked: &checked };
        again(Code::UnknownCache, || compare(&comparing)).await
    }
}

/// The comparison of the caches as they are now.
async fn compare(comparing: &Comparing<'_>) -> Result<ComparisonAnswer, Problem> {
    match (&comparing.question.compared, &comparing.checked.metrics) {
        (Compared::Pairs { a, b }, Metrics::Vector(metrics)) => {
            vector_comparisons::pairs(comparing, metrics, a, b).await
        }
        (Compared::Matrix { caches }, Metrics::Vector(metrics)) => {
            vector_comparisons::matrix(comparing, metrics, caches).await
        }
        (Compared::Layers { a, b }, Metrics::Vector(metrics)) => {
            vector_comparisons::layers(comparing, metrics, a, b.as_ref()).await
        }
        (Compared::Layers { a, b }, Metrics::Set(metrics)) => {
            set_comparisons::layers(comparing, metrics, a, b.as_ref()).await
        }
        (Compared::Sets { groups }, Metrics::Set(metrics)) => set_comparisons::sets(comparing, metrics, groups).await,
        (Compared::Pairs { .. } | Compared::Matrix { .. }, Metrics::Set(_))
        | (Compared::Sets { .. }, Metrics::Vector(_)) => {
            Err(Problem::new(Code::Internal, "metrics of one kind in a comparison of the other"))
        }
    }
}
