//! The checks of a comparison that need no cache.

use super::{
    Compared, ComparisonQuestion,
    comparison_metric::{ComparisonMetric, Kind},
};
use crate::questions::row_reader::RowsOf;
use residuum_analysis::{Preparation, SetMetric, VectorMetric};
use residuum_domain::{Code, Problem};

/// Most groups in one comparison.
const MAX_GROUPS: usize = 64;
/// Default `k` of `jaccard`.
const DEFAULT_K: usize = 10;

/// The metrics of a question, all of one kind.
#[derive(Debug, Clone)]
pub enum Metrics {
    /// Of two vectors.
    Vector(Vec<VectorMetric>),
    /// Of two sets.
    Set(Vec<SetMetric>),
}

/// A comparison whose fields agree with each other.
#[derive(Debug)]
pub struct Checked {
    /// The metrics, in the order of the question.
    pub metrics: Metrics,
    /// Applied to the rows first.
    pub preparation: Preparation,
    /// `k` of `jaccard`, if that metric is requested.
    pub k: Option<usize>,
}

impl Checked {
    /// Checks a question.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for values that contradict each other.
    pub fn of(question: &ComparisonQuestion) -> Result<Self, Problem> {
        if let Compared::Sets { groups } = &question.compared
            && (groups.is_empty() || groups.len() > MAX_GROUPS)
        {
            return Err(Problem::at(Code::InvalidValue, "/groups", format!("name between 1 and {MAX_GROUPS} groups")));
        }
        if question.metrics.is_empty() {
            return Err(Problem::at(Code::InvalidValue, "/metrics", "name at least one metric, for example cosine"));
        }
        let k = k_of(question)?;
        let metrics = metrics(question, k.unwrap_or(DEFAULT_K))?;
        check_rows(&question.rows, &metrics)?;
        let preparation = Preparation { center: question.center, normalize: question.normalize };
        let nothing_left = match &metrics {
            Metrics::Vector(_) if matches!(question.compared, Compared::Layers { .. }) => {
                Some("a vector minus the mean of itself is zero")
            }
            Metrics::Set(set) if set.iter().any(|m| !m.is_aligned()) => {
                Some("mean_difference, mean_cosine and effect_size compare the means, which this would remove")
            }
            _ => None,
        };
        if let (true, Some(why)) = (preparation.center, nothing_left) {
            return Err(Problem::at(Code::InvalidValue, "/center", why));
        }
        Ok(Self { metrics, preparation, k })
    }
}

/// `k` of `jaccard`, if that metric is requested.
fn k_of(question: &ComparisonQuestion) -> Result<Option<usize>, Problem> {
    let refuse = |why: &str| Err(Problem::at(Code::InvalidValue, "/k", why));
    match (question.k, question.metrics.contains(&ComparisonMetric::Jaccard)) {
        (Some(_), false) => refuse("k is for the metric jaccard, which is not requested"),
        (Some(0), true) => refuse("k is at least 1"),
        (k, true) => Ok(Some(k.unwrap_or(DEFAULT_K))),
        (None, false) => Ok(None),
    }
}

/// The metrics to compute. Refuses metrics that do not suit what is compared, or each other.
fn metrics(question: &ComparisonQuestion, k: usize) -> Result<Metrics, Problem> {
    let (mut vector, mut set) = (Vec::new(), Vec::new());
    for name in &question.metrics {
        let why = match (name.kind(k), &question.compared) {
            (Kind::Vector(_), Compared::Sets { .. }) => {
                "compares two vectors; sets take cka, cka_debiased, rsa, procrustes, mean_difference, mean_cosine or effect_size"
            }
            (Kind::Set(_), Compared::Pairs { .. } | Compared::Matrix { .. }) => {
                "compares sets of rows; this mode takes cosine, dot, euclidean, mae, pearson or jaccard"
            }
            (Kind::Set(metric), Compared::Layers { .. }) if !metric.is_aligned() => {
                "compares groups at one layer; use mode sets"
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
            let detail = "metrics of vectors compare one cache with one, metrics of sets many with many; request them separately";
            Err(Problem::at(Code::InvalidValue, "/metrics", detail))
        }
    }
}

/// Refuses rows that these metrics cannot compare, and several positions of a cache.
fn check_rows(rows: &RowsOf, metrics: &Metrics) -> Result<(), Problem> {
    let refuse = |pointer: &str, why: &str| Err(Problem::at(Code::InvalidValue, pointer, why));
    match (rows, metrics) {
        (RowsOf::Positions, Metrics::Vector(_)) => {
            refuse("/rows", "metrics of vectors compare one position; leave rows out")
        }
        (RowsOf::Caches(position), _) if !position.is_one() => {
            refuse("/position", "a comparison takes one position: an integer, \"last\", \"mean\" or \"stored\"")
        }
        _ => Ok(()),
    }
}
