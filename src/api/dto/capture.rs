//! Capture specifications in request bodies: the domain parses them, this describes them for the specification.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{CaptureRequest, Dtype, Layers, Positions};

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
    #[schema(value_type = Option<PositionsSchema>)]
    pub positions: Option<Positions>,
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

/// Positions of an input. "last", "mean" and a single integer drop the position axis; the others keep it.
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
pub struct PositionRange {
    /// First position; 0 if left out.
    pub start: Option<i64>,
    /// First position no longer meant; the length if left out.
    pub end: Option<i64>,
}
