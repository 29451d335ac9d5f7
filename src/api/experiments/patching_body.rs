//! The body of a patching sweep.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    dto::{
        capture::{LayersSchema, PositionsSchema},
        input::{Input, Many},
        selector::{CacheSelector, CacheSelectorSchema},
        token::TokenRef,
    },
    tensor::Format,
};
use residuum_domain::{
    Layers, Positions,
    forms::{Forms, WordOr},
};

/// An input, or two with the same number of tokens; what is changed in the forward pass of one, cell by cell; and how the
/// effect is measured.
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
    /// For the `op` `patch`, and only then: the input that leads to another answer, with the same number of tokens.
    #[schema(value_type = Option<ExperimentInput>)]
    pub corrupt: Option<ExperimentInput>,
    /// The token to measure: its id, or a text that is exactly one token.
    pub answer: TokenRef,
    /// A token whose logit is subtracted. Required for `logit_diff`, not allowed for other metrics.
    pub against: Option<TokenRef>,
    /// By default `logit_diff` if `against` is given, otherwise `probability`.
    pub metric: Option<MetricName>,
    /// What is changed.
    #[schema(value_type = SweepRequest)]
    pub sweep: SweepRequest,
    /// For the `op` `patch`: `denoise`, the default, puts values of the clean run into the corrupt one; `noise` does the
    /// opposite.
    pub direction: Option<PatchDirection>,
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

/// The cells of a sweep over one hook: an axis of layers, and one of positions, queries, keys or heads where `positions`,
/// `to`, `from` or `heads` is `each`. Each cell is a forward pass with one change, as a run with one intervention:
///
/// | `op` | a cell | fields |
/// |---|---|---|
/// | `patch` | replaces the values by those of the other input | `hook`, `positions`, `heads` |
/// | `zero` | replaces the values by 0 | `hook`, `positions`, `heads` |
/// | `mean_ablate` | replaces the values by the mean of all rows that the caches stored at the hook | `hook`, `positions`, `heads`, `caches` |
/// | `knockout` | masks attention edges before the softmax | `from` (keys), `to` (queries), `heads` |
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"op": "zero", "hook": "attn.z", "heads": "each"}))]
pub struct SweepRequest {
    /// What a cell does; `patch` if left out.
    #[serde(default)]
    pub op: SweepOpName,
    /// A hook inside the blocks: `resid_pre` if left out; `attn.z` with `heads: each` for heads, `mlp_out` for MLPs. A
    /// knockout is always at `attn.hook_attn_scores`.
    pub hook: Option<String>,
    /// Layers; all that have the hook if left out.
    #[serde(default)]
    #[schema(value_type = Option<LayersSchema>)]
    pub layers: Layers,
    /// `each`: one cell per position. Otherwise the positions that are changed together; all if left out. In a knockout
    /// the same as `to`.
    #[schema(value_type = Option<SweptPositionsSchema>)]
    pub positions: Option<Swept<Positions>>,
    /// Queries of a knockout. `each`: one cell per query. Otherwise those that are changed together; all if left out.
    #[schema(value_type = Option<SweptPositionsSchema>)]
    pub to: Option<Swept<Positions>>,
    /// Keys of a knockout. `each`: one cell per key. Otherwise those that are hidden together; all if left out.
    #[schema(value_type = Option<SweptPositionsSchema>)]
    pub from: Option<Swept<Positions>>,
    /// `each`: one cell per head. Otherwise the heads that are changed together; all if left out.
    #[schema(value_type = Option<SweptHeadsSchema>)]
    pub heads: Option<Swept<Vec<usize>>>,
    /// For `mean_ablate`, and only then: the caches to average.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub caches: Option<CacheSelector>,
}

/// What each cell of a sweep does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SweepOp)]
pub enum SweepOpName {
    /// Replaces the values by those of the other input.
    #[default]
    Patch,
    /// Replaces the values by 0.
    Zero,
    /// Replaces the values by the mean of stored activations. `mean` is short for it.
    #[serde(alias = "mean")]
    MeanAblate,
    /// Masks attention edges.
    Knockout,
}

/// An axis of a sweep, or what is changed together.
#[derive(Debug, Clone)]
pub enum Swept<T> {
    /// An axis: one cell for each.
    Each,
    /// These are changed together.
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
    /// These positions are changed together.
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
    /// These heads are changed together.
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
