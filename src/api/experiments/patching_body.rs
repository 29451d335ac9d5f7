//! The body of a patching sweep, and its conversion to a question of the engine.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    dto::{
        capture::{LayersSchema, PositionsSchema},
        input::{Input, Many},
        token::TokenRef,
    },
    tensor::Format,
};
use residuum_domain::{
    Layers, Positions,
    forms::{Forms, WordOr},
};
use residuum_engine::questions::patching::{
    self, PatchingInput, PatchingMetric, PatchingQuestion, SweptHook, SweptOver,
};

/// Two inputs with the same number of tokens, which activations of one are put into the other, and how the effect is
/// measured.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PatchingRequest, example = json!({
    "model": "smollm2-135m", "clean": "The Eiffel Tower is in the city of", "corrupt": "The Colosseum is in the city of",
    "answer": " Paris", "against": " Rome", "sweep": {"hook": "resid_pre", "positions": "each"}
}))]
pub struct PatchingRequest {
    /// Name of a served model.
    pub model: String,
    /// The input that leads to the answer: a text or token ids.
    #[schema(value_type = ExperimentInput)]
    pub clean: ExperimentInput,
    /// The input that leads to another answer, with the same number of tokens.
    #[schema(value_type = ExperimentInput)]
    pub corrupt: ExperimentInput,
    /// The token to measure: its id, or a text that is exactly one token.
    pub answer: TokenRef,
    /// A token whose logit is subtracted. Required for `logit_diff`, not allowed for other metrics.
    pub against: Option<TokenRef>,
    /// By default `logit_diff` if `against` is given, otherwise `probability`.
    pub metric: Option<MetricName>,
    /// What is replaced.
    #[schema(value_type = SweepRequest)]
    pub sweep: SweepRequest,
    /// `denoise`, the default, puts values of the clean run into the corrupt one; `noise` does the opposite.
    #[serde(default)]
    pub direction: PatchDirection,
    /// Position of the logits; the last token if left out.
    pub position: Option<i64>,
    /// Beginning-of-sequence token, as in a run.
    pub prepend_bos: Option<bool>,
}

/// A text or token ids.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = "The Eiffel Tower is in the city of")]
pub enum ExperimentInput {
    /// A text.
    Text(String),
    /// Token ids.
    TokenIds(Vec<u32>),
}

impl<'de> Deserialize<'de> for ExperimentInput {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Input::read(d, Many::No)? {
            Input::TokenIds(ids) => Ok(Self::TokenIds(ids)),
            Input::Text(text) => Ok(Self::Text(text)),
            Input::Texts(_) | Input::TokenIdLists(_) => Err(serde::de::Error::custom("must be one input, not several")),
        }
    }
}

/// The cells of a sweep over one hook: an axis of layers, one of positions if `positions` is `each`, one of heads if
/// `heads` is.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"hook": "attn.z", "heads": "each"}))]
pub struct SweepRequest {
    /// A hook inside the blocks: `resid_pre` if left out; `attn.z` with `heads: each` for heads, `mlp_out` for MLPs.
    pub hook: Option<String>,
    /// Layers; all that have the hook if left out.
    #[serde(default)]
    #[schema(value_type = Option<LayersSchema>)]
    pub layers: Layers,
    /// `each`: one cell per position. Otherwise the positions that are replaced together; all if left out.
    #[schema(value_type = Option<SweptPositionsSchema>)]
    pub positions: Option<Swept<Positions>>,
    /// `each`: one cell per head. Otherwise the heads that are replaced together; all if left out.
    #[schema(value_type = Option<SweptHeadsSchema>)]
    pub heads: Option<Swept<Vec<usize>>>,
}

/// An axis of a sweep, or what is replaced together.
#[derive(Debug, Clone)]
pub enum Swept<T> {
    /// An axis: one cell for each.
    Each,
    /// These are replaced together.
    Together(T),
}

impl<'de, T: Deserialize<'de> + Forms> Deserialize<'de> for Swept<T> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match WordOr::read(d, &[("each", ())])? {
            WordOr::Word(()) => Self::Each,
            WordOr::Other(these) => Self::Together(these),
        })
    }
}

/// `each`, or positions.
#[derive(Serialize, ToSchema)]
#[schema(as = SweptPositions)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Swept for the specification")]
pub enum SweptPositionsSchema {
    /// One cell per position.
    Each(EachLiteral),
    /// These positions are replaced together.
    Together(PositionsSchema),
}

/// `each`, or heads.
#[derive(Serialize, ToSchema)]
#[schema(as = SweptHeads)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Swept for the specification")]
pub enum SweptHeadsSchema {
    /// One cell per head.
    Each(EachLiteral),
    /// These heads are replaced together.
    Together(Vec<usize>),
}

/// The word `each`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes Swept for the specification")]
pub enum EachLiteral {
    /// One cell for each.
    Each,
}

/// How the effect of a patch is measured from the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PatchingMetric)]
pub enum MetricName {
    /// The logit of the answer minus that of `against`.
    LogitDiff,
    /// The logit of the answer.
    Logit,
    /// The probability of the answer.
    Probability,
    /// The log-probability of the answer, in nats.
    LogProbability,
}

/// Which run is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PatchDirection {
    /// The corrupt run gets values of the clean one.
    #[default]
    Denoise,
    /// The clean run gets values of the corrupt one.
    Noise,
}

/// Query parameters of a sweep.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PatchingQuery {
    /// `json`, or the values alone as `npy`, `safetensors` or `raw` (float32). Takes precedence over the `Accept`
    /// header, which may also ask for `text/event-stream`: progress, then the JSON answer.
    pub format: Option<Format>,
}

impl From<PatchingRequest> for PatchingQuestion {
    fn from(request: PatchingRequest) -> Self {
        Self {
            model: request.model,
            clean: request.clean.into(),
            corrupt: request.corrupt.into(),
            answer: request.answer.into(),
            against: request.against.map(Into::into),
            metric: request.metric.map(Into::into),
            sweep: request.sweep.into(),
            direction: request.direction.into(),
            position: request.position,
            prepend_bos: request.prepend_bos,
        }
    }
}

impl From<ExperimentInput> for PatchingInput {
    fn from(input: ExperimentInput) -> Self {
        match input {
            ExperimentInput::Text(text) => Self::Text(text),
            ExperimentInput::TokenIds(ids) => Self::TokenIds(ids),
        }
    }
}

impl From<SweepRequest> for SweptHook {
    fn from(SweepRequest { hook, layers, positions, heads }: SweepRequest) -> Self {
        Self { hook, layers, positions: positions.map(Into::into), heads: heads.map(Into::into) }
    }
}

impl<T> From<Swept<T>> for SweptOver<T> {
    fn from(swept: Swept<T>) -> Self {
        match swept {
            Swept::Each => Self::Each,
            Swept::Together(these) => Self::Together(these),
        }
    }
}

impl From<MetricName> for PatchingMetric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::LogitDiff => Self::LogitDiff,
            MetricName::Logit => Self::Logit,
            MetricName::Probability => Self::Probability,
            MetricName::LogProbability => Self::LogProbability,
        }
    }
}

impl From<PatchingMetric> for MetricName {
    fn from(metric: PatchingMetric) -> Self {
        match metric {
            PatchingMetric::LogitDiff => Self::LogitDiff,
            PatchingMetric::Logit => Self::Logit,
            PatchingMetric::Probability => Self::Probability,
            PatchingMetric::LogProbability => Self::LogProbability,
        }
    }
}

impl From<PatchDirection> for patching::PatchDirection {
    fn from(direction: PatchDirection) -> Self {
        match direction {
            PatchDirection::Denoise => Self::Denoise,
            PatchDirection::Noise => Self::Noise,
        }
    }
}

impl From<patching::PatchDirection> for PatchDirection {
    fn from(direction: patching::PatchDirection) -> Self {
        match direction {
            patching::PatchDirection::Denoise => Self::Denoise,
            patching::PatchDirection::Noise => Self::Noise,
        }
    }
}
