//! Captures in request bodies. The domain parses most of them; the schemas here only describe them for the
//! specification.

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
    /// Layers of the hooks with short names.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// Positions to keep.
    #[schema(value_type = Option<PositionsRequestSchema>)]
    pub positions: Option<PositionsRequest>,
    /// Type in which to store the values.
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

/// "all", one layer, or several; negative numbers count from the last.
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
    /// One; negative numbers count from the end.
    One(i64),
    /// Several.
    List(Vec<i64>),
    /// From `start` to before `end`.
    Range(PositionRange),
    /// The mean over positions.
    Mean(MeanOfPositions),
}

/// Positions of an input, by number or by its tokens. Positions by text, message or kind are found in the tokens when
/// the run is accepted; dry runs and caches show the numbers. In a truncated input, only the tokens that are left
/// count.
#[derive(Serialize, ToSchema)]
#[schema(as = PositionsRequest, example = json!({"text": "Tower", "occurrence": -1}))]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes PositionsRequest for the specification")]
pub enum PositionsRequestSchema {
    /// By name.
    Named(NamedPositionsRequest),
    /// One; negative numbers count from the end.
    One(i64),
    /// Several.
    List(Vec<i64>),
    /// From `start` to before `end`.
    Range(PositionRange),
    /// The tokens of a text.
    Text(PositionsByText),
    /// The tokens of a message.
    Message(PositionsByMessage),
    /// All special tokens, or all others.
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

/// Positions by name.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes PositionsRequest for the specification")]
pub enum NamedPositionsRequest {
    /// The final token.
    Last,
    /// The mean over all tokens.
    Mean,
    /// Every token.
    All,
    /// The tokens of the input, without what is generated after it; keeps the position axis.
    Prompt,
    /// The generated tokens; keeps the position axis. Only with `generate`.
    Generated,
}

/// A range of positions.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PositionRange {
    /// First position; 0 if left out.
    pub start: Option<i64>,
    /// Position after the last; the length if left out.
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

/// The tokens that overlap an occurrence of a text. It is searched for in the posted text, in the rendered chat, or in
/// the joined texts of posted token ids.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"text": "Tower", "occurrence": -1, "which": "last"}))]
#[serde(deny_unknown_fields)]
pub struct PositionsByText {
    /// The text to find; it must match exactly.
    #[schema(min_length = 1)]
    pub text: String,
    /// Which occurrence, from 0; negative numbers count from the last. Occurrences do not overlap.
    #[schema(default = 0)]
    pub occurrence: Option<i64>,
    /// Which of its tokens.
    pub which: Option<WhichSchema>,
}

/// The tokens that overlap the content of a message of a chat, without what the template puts around it. If the run
/// generates, the reply is the last message of the chat, without the special tokens that end it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"message": -1, "which": "all"}))]
#[serde(deny_unknown_fields)]
pub struct PositionsByMessage {
    /// Index of the message; negative numbers count from the last. With `generate`, -1 is the reply; with
    /// `continue_final_message` as well, -1 is the last message together with its continuation.
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
    /// The last one, which in a decoder attends to the whole span; drops the position axis.
    Last,
    /// Every one; keeps the position axis.
    All,
}

/// All special tokens, including BOS, or all other tokens; keeps the position axis.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"special": false}))]
#[serde(deny_unknown_fields)]
pub struct PositionsByKind {
    /// true: the special tokens; false: the others.
    pub special: bool,
}
