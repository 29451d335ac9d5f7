//! What all kinds of comparisons share: selecting caches, limits, and computing on the analysis threads.

use super::{ComparedCaches, ComparisonAnswer, ComparisonQuestion, checked_comparison::Checked};
use crate::questions::{Chosen, Questions, Selector};
use residuum_domain::{CacheId, Code, Hook, Problem, TenantId};
use residuum_store::{Store, StoreError};

/// Most caches in one list or group.
const MAX_CACHES: usize = 10_000;
/// Most bytes that a comparison may hold at once, not counting its answer.
const MAX_BYTES: usize = 1 << 30;

/// One comparison with its context.
pub struct Comparing<'a> {
    /// The store and the analysis threads.
    pub questions: &'a Questions,
    /// The tenant of the request.
    pub tenant: TenantId,
    /// The question.
    pub question: &'a ComparisonQuestion,
    /// The result of checking the question.
    pub checked: &'a Checked,
}

impl Comparing<'_> {
    /// The store.
    pub fn store(&self) -> &Store {
        self.questions.store()
    }

    /// The caches that the question selects at `pointer`.
    ///
    /// # Errors
    /// Those of [`Selector::choose`].
    pub async fn choose(&self, selector: &Selector, pointer: &str) -> Result<Chosen, Problem> {
        selector.choose(self.store(), self.tenant, pointer, MAX_CACHES).await
    }

    /// The hooks of the question, in these caches.
    ///
    /// # Errors
    /// Those of [`Chosen::hooks`].
    pub fn hooks(&self, chosen: &Chosen) -> Result<Vec<Hook>, Problem> {
        chosen.hooks(&self.question.hook, &self.question.layers)
    }

    /// Refuses an answer that would exceed its limit, with values of this shape for each metric.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`].
    pub fn fits(&self, shape: &[usize]) -> Result<(), Problem> {
        let n_metrics = self.question.metrics.len();
        self.question.limit.check(shape.iter().fold(n_metrics, |n, axis| n.saturating_mul(*axis)))
    }

    /// Computes on the analysis threads, not on the async ones.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.questions.analyse(move || work().map_err(Problem::from)).await
    }

    /// The answer, with values of `shape` for each metric.
    pub fn answer(
        &self,
        sides: ComparedCaches,
        hooks: Vec<Hook>,
        shape: Vec<usize>,
        values: Vec<Vec<f64>>,
    ) -> ComparisonAnswer {
        ComparisonAnswer { sides, hooks, k: self.checked.k, shape, values }
    }
}

/// Refuses work that would hold more bytes than a comparison may hold.
///
/// # Errors
/// [`Code::ResultTooLarge`].
pub fn holds(bytes: usize) -> Result<(), Problem> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let detail = format!(
        "the comparison would hold {bytes} bytes at once; {MAX_BYTES} are allowed. Compare fewer or shorter rows, or fewer layers or groups at once"
    );
    Err(Problem::new(Code::ResultTooLarge, detail))
}

/// Appends the values of one more layer to the values of each metric.
pub fn append(values: &mut [Vec<f64>], of_layer: Vec<Vec<f64>>) {
    values.iter_mut().zip(of_layer).for_each(|(values, more)| values.extend(more));
}

/// The ids of these caches.
pub fn ids(chosen: &Chosen) -> Vec<CacheId> {
    chosen.caches.iter().map(|c| c.cache.id).collect()
}
