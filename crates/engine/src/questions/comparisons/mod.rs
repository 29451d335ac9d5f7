//! Comparisons of stored activations: of vectors pair by pair, each with each, or layer with layer; and of sets of rows.

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
    /// Whose rows, and how they are matched up.
    pub compared: Compared,
    /// Hook, short or full.
    pub hook: String,
    /// Layers, for short names.
    pub layers: Layers,
    /// What a row is; one a cache for metrics of vectors.
    pub rows: RowsOf,
    /// Metrics, all of one kind and each once, in the order of the answer's values.
    pub metrics: Vec<ComparisonMetric>,
    /// How many places `jaccard` takes; 10 if left out.
    pub k: Option<usize>,
    /// Whether a mean is subtracted first, layer by layer: the mean over all caches of the question, each counted once; of a
    /// set, the mean over its rows.
    pub center: bool,
    /// Whether vectors are then scaled to unit length. A zero vector stays one.
    pub normalize: bool,
    /// How many numbers the answer may hold.
    pub limit: AnswerLimit,
}

/// Whose rows are compared, and how they are matched up.
#[derive(Debug, Clone)]
pub enum Compared {
    /// Each of `a` with its counterpart in `b`; one against many is broadcast.
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
    /// Each group with each, layer by layer.
    Sets {
        /// The groups by their names, 64 at most.
        groups: BTreeMap<String, Selector>,
    },
}

/// The values of each metric asked for, and what was compared.
#[derive(Debug, Clone)]
pub struct ComparisonAnswer {
    /// Whose values they are.
    pub sides: ComparedCaches,
    /// The hooks, all of one site, in the order of the values: those of `a` where layers are compared.
    pub hooks: Vec<Hook>,
    /// Places that `jaccard` took, where it is asked for.
    pub k: Option<usize>,
    /// Extent of each axis, the same for every metric: `[layer, pair]`, `[layer, i, j]` of a matrix or of sets, or
    /// `[layer_a, layer_b]`.
    pub shape: Vec<usize>,
    /// For each metric of the question the values in that shape, row-major; NaN where undefined.
    pub values: Vec<Vec<f64>>,
}

/// The caches that were compared, in the order of the values.
#[derive(Debug, Clone)]
pub enum ComparedCaches {
    /// Each pair.
    Pairs(Vec<(CacheId, CacheId)>),
    /// Those of a matrix.
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

/// A group of caches whose rows made one set.
#[derive(Debug, Clone)]
pub struct ComparedGroup {
    /// Its name.
    pub name: String,
    /// Rows that it gave.
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
    /// # Errors
    /// [`Code::InvalidValue`] for fields that do not go together, for lists of different lengths and for a hook that holds
    /// indices; [`Code::ShapeMismatch`] for rows of different widths, for too few of them, and for sets whose rows do not
    /// correspond; [`Code::ResultTooLarge`] for more numbers than the limit, or more memory than a comparison may take; those
    /// of choosing caches, hooks and positions, and the store's.
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

/// The comparison of the caches that are there now.
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
            Err(Problem::new(Code::Internal, "metrics of one kind came to a comparison of the other"))
        }
    }
}
