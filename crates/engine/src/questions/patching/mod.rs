//! Activation patching and ablation: changes one part of the forward pass of an input at a time, and measures the effect on
//! the logits at one position.

mod cells;
mod experiment_queue;
mod sweep;
mod sweep_axes;
mod sweep_plan;

use tokio::sync::watch;

pub use experiment_queue::ExperimentPlace;
pub(crate) use experiment_queue::ExperimentQueue;
pub use sweep_axes::{SweptHook, SweptOver};
pub use sweep_plan::Patching;

use super::{
    Questions,
    chosen::Selector,
    deleted_caches::again,
    interventions::stored_values::StoredValues,
    token::{Token, TokenRef},
};
use residuum_domain::{Code, Problem, Site, TenantId};
use sweep::{Replacement, Swept};
use sweep_plan::Change;

/// An input or two, what to change in the forward pass of one, and how to measure the effect.
#[derive(Debug, Clone)]
pub struct PatchingQuestion {
    /// Name of a served model.
    pub model: String,
    /// The input that leads to the answer.
    pub clean: PatchingInput,
    /// For [`SweepOp::Patch`]: the input that leads to another answer, with as many tokens.
    pub corrupt: Option<PatchingInput>,
    /// The token to measure.
    pub answer: TokenRef,
    /// A token whose logit is subtracted. [`PatchingMetric::LogitDiff`] needs it; the other metrics do not accept it.
    pub against: Option<TokenRef>,
    /// If left out, the logit difference if there is `against`, else the probability.
    pub metric: Option<PatchingMetric>,
    /// What to change.
    pub sweep: SweptHook,
    /// For [`SweepOp::Patch`]: which input's forward pass is patched; if left out, the corrupt one's.
    pub direction: Option<PatchDirection>,
    /// The position of the logits; negatives count from the end. The last token if left out.
    pub position: Option<i64>,
    /// Whether to add a beginning-of-sequence token. If left out, the model's tokenizer decides.
    pub prepend_bos: Option<bool>,
}

/// What each cell of a sweep does, as the intervention of a run with this name.
#[derive(Debug, Clone)]
pub enum SweepOp {
    /// Replaces the values with those of the other input.
    Patch,
    /// Replaces the values with 0.
    Zero,
    /// Replaces the values with the mean over all rows that the caches stored at the hook.
    MeanAblate(Selector),
    /// Masks attention edges before the softmax.
    Knockout,
}

impl SweepOp {
    /// The name of the operation.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Zero => "zero",
            Self::MeanAblate(_) => "mean_ablate",
            Self::Knockout => "knockout",
        }
    }
}

/// Progress of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepProgress {
    /// Number of experiments whose turn comes before; `None` once it runs.
    pub queue_position: Option<usize>,
    /// Number of finished cells.
    pub done: usize,
}

/// The content of an input.
#[derive(Debug, Clone)]
pub enum PatchingInput {
    /// A text.
    Text(String),
    /// Token ids.
    TokenIds(Vec<u32>),
}

/// The number that is computed from the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchingMetric {
    /// The logit of the answer minus that of `against`.
    LogitDiff,
    /// The logit of the answer.
    Logit,
    /// The probability of the answer.
    Probability,
    /// The log-probability of the answer, in nats.
    LogProbability,
}

/// Which input's forward pass is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchDirection {
    /// The corrupt input gets values of the clean one.
    Denoise,
    /// The clean input gets values of the corrupt one.
    Noise,
}

/// What a sweep covers and what it measures.
#[derive(Debug, Clone)]
pub struct SweepInfo {
    /// Name of the model.
    pub model: String,
    /// Name of the operation.
    pub op: &'static str,
    /// The site whose values are changed.
    pub site: Site,
    /// The metric.
    pub metric: PatchingMetric,
    /// Which input's forward pass is patched; `None` if there is only one input.
    pub direction: Option<PatchDirection>,
    /// The measured token.
    pub answer: Token,
    /// The token whose logit is subtracted.
    pub against: Option<Token>,
    /// The position of the logits.
    pub position: usize,
    /// Tokens of the clean input.
    pub clean_tokens: Vec<String>,
    /// Tokens of the corrupt input, if there is one.
    pub corrupt_tokens: Option<Vec<String>>,
    /// Layers, in the order of the first axis.
    pub layers: Vec<usize>,
    /// Positions, if they are an axis.
    pub positions: Option<Vec<u32>>,
    /// Queries of a knockout, if they are an axis.
    pub to: Option<Vec<u32>>,
    /// Keys of a knockout, if they are an axis.
    pub from: Option<Vec<u32>>,
    /// Heads, if they are an axis.
    pub heads: Option<Vec<usize>>,
}

/// The effect of each change.
#[derive(Debug, Clone)]
pub struct PatchingAnswer {
    /// What was swept and measured.
    pub info: SweepInfo,
    /// The metric of the clean input.
    pub clean: f64,
    /// The metric of the corrupt input, if there is one.
    pub corrupt: Option<f64>,
    /// The metric of each changed pass, of shape [`SweepInfo::shape`].
    pub values: Vec<f64>,
    /// The same, less the metric of the unchanged pass over the same input.
    pub effect: Vec<f64>,
    /// The same, scaled to 0 for the unpatched input and 1 for the other input; `None` if there is no other input or both
    /// have the same metric.
    pub normalized: Option<Vec<f64>>,
}

impl SweepInfo {
    /// Length of each axis: layers, then those of positions, queries, keys and heads that are swept.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        let positions = [&self.positions, &self.to, &self.from].map(|axis| axis.as_ref().map(Vec::len));
        let swept = positions.into_iter().chain([self.heads.as_ref().map(Vec::len)]).flatten();
        std::iter::once(self.layers.len()).chain(swept).collect()
    }
}

impl Questions {
    /// Plans a sweep: checks the question against the model and, for a mean, the store.
    ///
    /// # Errors
    /// `Code::UnknownModel`, `Code::Unavailable` while the model loads, `Code::ShapeMismatch` for inputs of
    /// different length, `Code::NotReadable` for a model without logits, `Code::UnknownHook`,
    /// `Code::LayerOutOfRange`, `Code::PositionOutOfRange`, `Code::InvalidValue`, `Code::InvalidBody`,
    /// `Code::UnknownCache`, `Code::HookNotStored`, `Code::ResultTooLarge`, and those of tokenising and of the store.
    pub async fn patching(&self, tenant: TenantId, question: PatchingQuestion) -> Result<Patching, Problem> {
        let model = self.models().get(&question.model)?;
        let patching = self.analyse(move || question.plan(model)).await?;
        if let Change::MeanAblate(selector) = &patching.change {
            // only the numbers are read when its turn comes
            self.stored_values(tenant, &patching).check(selector).await.map_err(|p| p.under("/sweep"))?;
        }
        Ok(patching)
    }

    /// Waits for the turn of a sweep, and sends its place in the queue to `progress`. Dropping the future gives up the
    /// place.
    ///
    /// # Errors
    /// `Code::ClientQueueFull` and `Code::QueueFull` while too many experiments wait, `Code::Unavailable`.
    pub async fn experiment_turn(
        &self,
        tenant: TenantId,
        progress: &watch::Sender<SweepProgress>,
    ) -> Result<ExperimentPlace, Problem> {
        let at = |queue_position| progress.send_modify(|progress| progress.queue_position = queue_position);
        let place = self.engine().experiment_turn(tenant, |n| at(Some(n))).await?;
        at(None);
        Ok(place)
    }

    /// Runs a sweep whose turn has come, and sends the number of finished cells to `progress`. Dropping the future stops
    /// the sweep.
    ///
    /// # Errors
    /// Those of the caches of a mean, `Code::Unavailable`, `Code::WorkerFailed`.
    pub async fn patched(
        &self,
        tenant: TenantId,
        patching: Patching,
        place: ExperimentPlace,
        progress: &watch::Sender<SweepProgress>,
    ) -> Result<PatchingAnswer, Problem> {
        let replacement = match &patching.change {
            Change::Patch(source) => Replacement::Of(source.clone()),
            Change::Zero => Replacement::Zeros,
            Change::Knockout => Replacement::Masked,
            Change::MeanAblate(selector) => {
                let stored = self.stored_values(tenant, &patching);
                let means = again(Code::UnknownCache, || stored.means(selector)).await;
                Replacement::Rows(means.map_err(|p| p.under("/sweep"))?.0)
            }
        };
        let Patching { sweep, info, .. } = patching;
        let Swept { base, source, values } = self.engine().sweep(sweep, replacement, place, progress).await?;
        let (clean, corrupt) = match (info.direction, source) {
            (Some(PatchDirection::Denoise), Some(source)) => (source, Some(base)),
            (_, source) => (base, source),
        };
        let span = source.map(|source| source - base).filter(|span| *span != 0.0 && span.is_finite());
        let normalized = span.map(|span| values.iter().map(|v| (v - base) / span).collect());
        let effect = values.iter().map(|v| v - base).collect();
        Ok(PatchingAnswer { info, clean, corrupt, values, effect, normalized })
    }

    fn stored_values<'a>(&'a self, tenant: TenantId, patching: &'a Patching) -> StoredValues<'a> {
        let Patching { sweep, .. } = patching;
        StoredValues { questions: self, tenant, info: sweep.model.info(), hooks: &sweep.cells.hooks }
    }
}
