//! Activation patching: the activations of one input put into the forward pass of another, piece by piece, and what that
//! does to the logits at one position.

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

/// Two inputs of equally many tokens, what is put from one into the other, and how the effect is measured.
#[derive(Debug, Clone)]
pub struct PatchingQuestion {
    /// Name of a served model.
    pub model: String,
    /// The input that leads to the answer.
    pub clean: PatchingInput,
    /// The input that leads elsewhere, of equally many tokens.
    pub corrupt: PatchingInput,
    /// The token that is measured.
    pub answer: TokenRef,
    /// A token whose logit is subtracted; [`PatchingMetric::LogitDiff`] needs it, the other metrics do not take it.
    pub against: Option<TokenRef>,
    /// The logit difference with `against`, otherwise the probability, if left out.
    pub metric: Option<PatchingMetric>,
    /// What is replaced.
    pub sweep: SweptHook,
    /// Which run is changed.
    pub direction: PatchDirection,
    /// Where the logits are read, negatives from the end; the last token if left out.
    pub position: Option<i64>,
    /// Whether a beginning-of-sequence token is added; as the model's tokenizer has it if left out.
    pub prepend_bos: Option<bool>,
}

/// What the model reads.
#[derive(Debug, Clone)]
pub enum PatchingInput {
    /// A text.
    Text(String),
    /// Token ids.
    TokenIds(Vec<u32>),
}

/// What the logits are reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchingMetric {
    /// The logit of the answer less that of `against`.
    LogitDiff,
    /// The logit of the answer.
    Logit,
    /// The probability of the answer.
    Probability,
    /// The log-probability of the answer, in nats.
    LogProbability,
}

/// Which run is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchDirection {
    /// The corrupt run gets values of the clean one.
    Denoise,
    /// The clean run gets values of the corrupt one.
    Noise,
}

/// What a sweep goes over and what it measures.
#[derive(Debug, Clone)]
pub struct SweepInfo {
    /// Name of the model.
    pub model: String,
    /// The kind of hook whose values are replaced.
    pub site: Site,
    /// The metric.
    pub metric: PatchingMetric,
    /// Which run is changed.
    pub direction: PatchDirection,
    /// The measured token.
    pub answer: Token,
    /// The token whose logit is subtracted.
    pub against: Option<Token>,
    /// Where the logits are read.
    pub position: usize,
    /// Tokens of the clean input.
    pub clean_tokens: Vec<String>,
    /// Tokens of the corrupt input.
    pub corrupt_tokens: Vec<String>,
    /// Layers, in the order of the first axis.
    pub layers: Vec<usize>,
    /// Positions, where they are an axis.
    pub positions: Option<Vec<u32>>,
    /// Heads, where they are an axis.
    pub heads: Option<Vec<usize>>,
}

/// The effect of each replacement.
#[derive(Debug, Clone)]
pub struct PatchingAnswer {
    /// What was swept, and what was measured.
    pub info: SweepInfo,
    /// The metric of the clean run.
    pub clean: f64,
    /// The metric of the corrupt run.
    pub corrupt: f64,
    /// The metric of each changed run, of shape [`SweepInfo::shape`].
    pub values: Vec<f64>,
    /// The same, 0 where nothing changed and 1 where the changed run does as the other; `None` where the two do alike.
    pub normalized: Option<Vec<f64>>,
}

impl SweepInfo {
    /// Extent of each axis: layers, then positions and heads where each of these is swept.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        let swept = [self.positions.as_ref().map(Vec::len), self.heads.as_ref().map(Vec::len)];
        std::iter::once(self.layers.len()).chain(swept.into_iter().flatten()).collect()
    }
}

impl Questions {
    /// A sweep that can be run: everything is checked against the model.
    ///
    /// # Errors
    /// `Code::UnknownModel`, `Code::Unavailable` while the model loads, `Code::ShapeMismatch` for inputs of different
    /// length, `Code::NotReadable` for a model without logits, `Code::UnknownHook`, `Code::LayerOutOfRange`,
    /// `Code::PositionOutOfRange`, `Code::InvalidValue`, `Code::InvalidBody`, `Code::ResultTooLarge`, and those of
    /// tokenising.
    pub async fn patching(&self, question: PatchingQuestion) -> Result<Patching, Problem> {
        let model = self.models().get(&question.model)?;
        self.analyse(move || question.plan(model)).await
    }

    /// Runs a sweep; `progress` is told how many cells are done. Dropping the future stops it.
    ///
    /// # Errors
    /// `Code::QueueFull` while enough sweeps wait for their turn, `Code::ResultTooLarge` for inputs whose traces do
    /// not fit, `Code::Unavailable`, `Code::WorkerFailed`.
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
