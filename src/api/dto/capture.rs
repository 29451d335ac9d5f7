//! Capture specifications in request bodies: the domain parses them, this describes them for the specification.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use residuum_domain::{CaptureRequest, Dtype, Layers, PositionsRequest};

/// What to capture.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[schema(as = Capture)]
#[serde(deny_unknown_fields)]
pub struct CaptureDto {
    /// Full names (`blocks.5.hook_resid_post`) or short ones (`resid_post`, `attn.out`, `logits`).
    #[schema(example = json!(["resid_post"]))]
    pub hooks: Option<Vec<String>>,
    /// Layers that short names stand for.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// Positions to keep.
    #[schema(value_type = Option<PositionsRequestSchema>)]
    pub positions: Option<PositionsRequest>,
    /// Type to store.
    #[schema(value_type = Option<super::super::tensor::DtypeParam>)]
    #[serde(default)]
    pub dtype: Dtype,
}

impl From<CaptureDto> for CaptureRequest {
    fn from(dto: CaptureDto) -> Self {
        let CaptureDto { hooks, layers, positions, dtype } = dto;
        let hooks = hooks.unwrap_or_else(|| Self::default().hooks);
        Self { hooks, layers, positions, dtype }
    }
}

/// "all", one layer, or several; negatives count from the last.
#[derive(Serialize, ToSchema)]
#[schema(as = Layers, example = "all")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Layers for the specification")]
pub enum LayersSchema {
    /// `"all"`.
    All(AllLiteral),
    /// One layer.
    One(i64),
    /// Several.
    List(Vec<i64>),
}

/// The word `all`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Layers for the specification")]
pub enum AllLiteral {
    /// Every layer that has the hook.
    All,
}

/// Positions of an input, by number. "last", "mean", a single integer and the mean over positions drop the position axis;
/// the others keep it.
#[derive(Serialize, ToSchema)]
#[schema(as = Positions, example = "last")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Positions for the specification")]
pub enum PositionsSchema {
    /// By name.
    Named(NamedPositions),
    /// One; negatives count from the end.
    One(i64),
    /// Several.
    List(Vec<i64>),
    /// From `start` up to but not including `end`.
    Range(PositionRange),
    /// The mean over positions.
    Mean(MeanOfPositions),
}

/// Positions of an input, by number or by what its tokens are. What depends on the tokens is looked up when the input is
/// accepted; dry runs and caches name the positions found. Of a truncated input only what is left counts.
#[derive(Serialize, ToSchema)]
#[schema(as = PositionsRequest, example = json!({"text": "Tower", "occurrence": -1}))]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes PositionsRequest for the specification")]
pub enum PositionsRequestSchema {
    /// By name.
    Named(NamedPositions),
    /// One; negatives count from the end.
    One(i64),
    /// Several.
    List(Vec<i64>),
    /// From `start` up to but not including `end`.
    Range(PositionRange),
    /// The tokens at a text.
    Text(PositionsByText),
    /// The tokens of a message.
    Message(PositionsByMessage),
    /// Special tokens, or all but these.
    Kind(PositionsByKind),
    /// The mean over positions.
    Mean(MeanOfPositionsRequest),
}

/// Positions by name.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Positions for the specification")]
pub enum NamedPositions {
    /// The final token.
    Last,
    /// The mean over all tokens.
    Mean,
    /// Every token.
    All,
}

/// A range of positions.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PositionRange {
    /// First position; 0 if left out.
    pub start: Option<i64>,
    /// First position no longer meant; the length if left out.
    pub end: Option<i64>,
}

/// The mean over positions, accumulated in float64; drops the position axis.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"mean": {"start": 1, "end": 8}}))]
#[serde(deny_unknown_fields)]
pub struct MeanOfPositions {
    /// The positions; not a mean themselves.
    #[schema(no_recursion)]
    pub mean: Box<PositionsSchema>,
}

/// The mean over positions, accumulated in float64; drops the position axis.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"mean": {"special": false}}))]
#[serde(deny_unknown_fields)]
pub struct MeanOfPositionsRequest {
    /// The positions; not a mean themselves.
    #[schema(no_recursion)]
    pub mean: Box<PositionsRequestSchema>,
}

/// The tokens that overlap an occurrence of a text. What is searched is the text as posted, the chat as rendered, or what
/// token ids spell one after the other.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"text": "Tower", "occurrence": -1, "which": "last"}))]
#[serde(deny_unknown_fields)]
pub struct PositionsByText {
    /// The text to find, letter by letter.
    #[schema(min_length = 1)]
    pub text: String,
    /// Which occurrence, from 0; negatives count from the last. Occurrences do not overlap.
    #[schema(default = 0)]
    pub occurrence: Option<i64>,
    /// Which of its tokens.
    pub which: Option<WhichSchema>,
}

/// The tokens that overlap what a message of a chat says, without what the template puts around it. Where the run generates, the
/// reply is the last message of the conversation, without the special tokens that end it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"message": -1, "which": "all"}))]
#[serde(deny_unknown_fields)]
pub struct PositionsByMessage {
    /// Index of the message; negatives count from the last: with `generate` -1 is the reply, and with
    /// `continue_final_message` too the last message with what continues it.
    pub message: i64,
    /// Which of its tokens.
    pub which: Option<WhichSchema>,
}

/// Which tokens of a span; `last` if left out.
#[derive(Serialize, ToSchema)]
#[schema(as = Which)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Which for the specification")]
pub enum WhichSchema {
    /// The first one; drops the position axis.
    First,
    /// The last one, which has seen the whole span; drops the position axis.
    Last,
    /// Every one; keeps the position axis.
    All,
}

/// Every special token (BOS among them), or every other token; keeps the position axis.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"special": false}))]
#[serde(deny_unknown_fields)]
pub struct PositionsByKind {
    /// true: the special tokens; false: the others.
    pub special: bool,
}
