//! Activation patching: puts activations of one input into the forward pass of another, cell by cell, and measures the
//! effect on the logits at one position.

mod sweep;
mod sweep_plan;

use tokio::sync::watch;

pub(crate) use sweep::{MAX_RUNNING, MAX_WAITING};
pub use sweep_plan::{Patching, SweptHook, SweptOver};

use super::{
    Questions,
    token::{Token, TokenRef},
};
use residuum_domain::{Problem, Site};
use sweep::Swept;

/// Two inputs with equally many tokens, what to patch from one into the other, and how to measure the effect.
#[derive(Debug, Clone)]
pub struct PatchingQuestion {
    /// Name of a served model.
    pub model: String,
    /// The input that leads to the answer.
    pub clean: PatchingInput,
    /// The input that leads to another answer, with as many tokens.
    pub corrupt: PatchingInput,
    /// The token to measure.
    pub answer: TokenRef,
    /// A token whose logit is subtracted. [`PatchingMetric::LogitDiff`] needs it; the other metrics do not accept it.
    pub against: Option<TokenRef>,
    /// If left out, the logit difference if there is `against`, else the probability.
    pub metric: Option<PatchingMetric>,
    /// What to patch.
    pub sweep: SweptHook,
    /// Which input's forward pass is patched.
    pub direction: PatchDirection,
    /// The position of the logits; negatives count from the end. The last token if left out.
    pub position: Option<i64>,
    /// Whether to add a beginning-of-sequence token. If left out, the model's tokenizer decides.
    pub prepend_bos: Option<bool>,
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
    /// The site whose values are patched.
    pub site: Site,
    /// The metric.
    pub metric: PatchingMetric,
    /// Which input's forward pass is patched.
    pub direction: PatchDirection,
    /// The measured token.
    pub answer: Token,
    /// The token whose logit is subtracted.
    pub against: Option<Token>,
    /// The position of the logits.
    pub position: usize,
    /// Tokens of the clean input.
    pub clean_tokens: Vec<String>,
    /// Tokens of the corrupt input.
    pub corrupt_tokens: Vec<String>,
    /// Layers, in the order of the first axis.
    pub layers: Vec<usize>,
    /// Positions, if they are an axis.
    pub positions: Option<Vec<u32>>,
    /// Heads, if they are an axis.
    pub heads: Option<Vec<usize>>,
}

/// The effect of each patch.
#[derive(Debug, Clone)]
pub struct PatchingAnswer {
    /// What was swept and measured.
    pub info: SweepInfo,
    /// The metric of the clean input.
    pub clean: f64,
    /// The metric of the corrupt input.
    pub corrupt: f64,
    /// The metric of each patched pass, of shape [`SweepInfo::shape`].
    pub values: Vec<f64>,
    /// The same, scaled to 0 for the unpatched input and 1 for the other input; `None` if both inputs have the same
    /// metric.
    pub normalized: Option<Vec<f64>>,
}

impl SweepInfo {
    /// Length of each axis: layers, then positions and heads if each of these is swept.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        let swept = [self.positions.as_ref().map(Vec::len), self.heads.as_ref().map(Vec::len)];
        std::iter::once(self.layers.len()).chain(swept.into_iter().flatten()).collect()
    }
}

impl Questions {
    /// Plans a sweep: checks the question against the model.
    ///
    /// # Errors
    /// `Code::UnknownModel`, `Code::Unavailable` while the model loads, `Code::ShapeMismatch` for inputs of
    /// different length, `Code::NotReadable` for a model without logits, `Code::UnknownHook`,
    /// `Code::LayerOutOfRange`, `Code::PositionOutOfRange`, `Code::InvalidValue`, `Code::InvalidBody`,
    /// `Code::ResultTooLarge`, and those of tokenising.
    pub async fn patching(&self, question: PatchingQuestion) -> Result<Patching, Problem> {
        let model = self.models().get(&question.model)?;
        self.analyse(move || question.plan(model)).await
    }

    /// Runs a sweep and sends the number of finished cells to `progress`. Dropping the future stops the sweep.
    ///
    /// # Errors
    /// `Code::QueueFull` while too many sweeps wait, `Code::ResultTooLarge` for inputs whose traces are too large,
    /// `Code::Unavailable`, `Code::WorkerFailed`.
    pub async fn patched(
        &self,
        patching: Patching,
        progress: &watch::Sender<usize>,
    ) -> Result<PatchingAnswer, Problem> {
        let Patching { sweep, info } = patching;
        let Swept { base, source, values } = self.engine().sweep(sweep, progress).await?;
        let (clean, corrupt) = match info.direction {
            PatchDirection::Denoise => (source, base),
            PatchDirection::Noise => (base, source),
        };
        let span = source - base;
        let differ = span != 0.0 && span.is_finite();
        let normalized = differ.then(|| values.iter().map(|v| (v - base) / span).collect());
        Ok(PatchingAnswer { info, clean, corrupt, values, normalized })
    }
}
