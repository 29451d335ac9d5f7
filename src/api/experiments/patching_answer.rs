//! The answer to a patching sweep, as JSON or as a tensor.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::patching_body::{MetricName, PatchDirection};
use crate::api::{
    dto::token::Token,
    tensor::{Part, TensorAnswer},
};
use residuum_domain::{Axis, Dtype};
use residuum_engine::questions::{
    finite,
    patching::{PatchingAnswer, SweepInfo},
};

/// The effect of each replacement.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Patching, example = json!({
    "model": "smollm2-135m", "hook": "hook_resid_pre", "metric": "logit_diff", "direction": "denoise",
    "answer": {"id": 7042, "token": " Paris"}, "against": {"id": 9430, "token": " Rome"}, "position": 1,
    "clean_tokens": ["A", " b"], "corrupt_tokens": ["C", " b"], "axes": ["layer", "pos"], "layers": [0, 1], "positions": [0, 1],
    "heads": null, "clean": 3.25, "corrupt": -1.5, "values": [[3.25, -1.5], [2.0, 0.5]], "normalized": [[1.0, 0.0], [0.74, 0.42]],
    "n_cells": 4
}))]
pub struct PatchingDto {
    /// Name of the model.
    model: String,
    /// The hook, without its layer.
    hook: String,
    /// The metric.
    metric: MetricName,
    /// Which run was changed.
    direction: PatchDirection,
    /// The measured token.
    answer: Token,
    /// The token whose logit is subtracted.
    against: Option<Token>,
    /// Position of the logits.
    position: usize,
    /// Tokens of the clean input.
    clean_tokens: Vec<String>,
    /// Tokens of the corrupt input.
    corrupt_tokens: Vec<String>,
    /// Axes of `values`: `layer`, then `pos` and `head` if they are swept.
    axes: Vec<&'static str>,
    /// Layers, in the order of the axis.
    layers: Vec<usize>,
    /// Positions, if they are an axis.
    positions: Option<Vec<u32>>,
    /// Heads, if they are an axis.
    heads: Option<Vec<usize>>,
    /// The metric of the clean run.
    clean: Option<f64>,
    /// The metric of the corrupt run.
    corrupt: Option<f64>,
    /// The metric of each patched run, nested as `axes`.
    #[schema(value_type = Vec<Value>)]
    values: Value,
    /// The same values scaled: 0 if the patch had no effect, 1 if the metric reached that of the other run. Null if the
    /// two runs have the same metric.
    #[schema(value_type = Option<Vec<Value>>)]
    normalized: Option<Value>,
    /// Number of patched runs.
    n_cells: usize,
}

/// Progress of a sweep.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct PatchingProgress {
    /// Number of cells that are done.
    pub done: usize,
    /// Number of all cells.
    pub total: usize,
}

impl From<PatchingAnswer> for PatchingDto {
    fn from(PatchingAnswer { info, clean, corrupt, values, normalized }: PatchingAnswer) -> Self {
        let shape = info.shape();
        Self {
            axes: axes(&info).into_iter().map(|(name, _)| name).collect(),
            model: info.model,
            hook: info.site.name().to_owned(),
            metric: info.metric.into(),
            direction: info.direction.into(),
            answer: info.answer.into(),
            against: info.against.map(Into::into),
            position: info.position,
            clean_tokens: info.clean_tokens,
            corrupt_tokens: info.corrupt_tokens,
            layers: info.layers,
            positions: info.positions,
            heads: info.heads,
            clean: finite(clean),
            corrupt: finite(corrupt),
            values: nested(&values, &shape),
            normalized: normalized.map(|normalized| nested(&normalized, &shape)),
            n_cells: values.len(),
        }
    }
}

/// The values alone, as a tensor.
pub fn tensor(PatchingAnswer { info, values, .. }: PatchingAnswer) -> TensorAnswer {
    #[expect(clippy::cast_possible_truncation, reason = "the answer is float32")]
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let mut bytes = Vec::with_capacity(values.len() * 4);
    Dtype::Float32.encode(&values, &mut bytes);
    TensorAnswer {
        hook: format!("patching.{}", info.site.name()),
        layer: None,
        shape: info.shape(),
        axes: axes(&info).into_iter().map(|(_, axis)| axis).collect(),
        layers: Some(info.layers),
        caches: None,
        offsets: None,
        dtype: Dtype::Float32,
        widened: false,
        parts: vec![Part::Made(bytes.into())],
    }
}

/// Names of the axes of a sweep.
fn axes(info: &SweepInfo) -> Vec<(&'static str, Axis)> {
    let positions = info.positions.is_some().then_some(("pos", Axis::Pos));
    let heads = info.heads.is_some().then_some(("head", Axis::Head));
    [Some(("layer", Axis::Layer)), positions, heads].into_iter().flatten().collect()
}

/// Values of this shape as nested arrays; null if not finite.
fn nested(values: &[f64], shape: &[usize]) -> Value {
    match shape {
        [] | [_] => values.iter().map(|v| Value::from(finite(*v))).collect(),
        [_, rest @ ..] => {
            let width: usize = rest.iter().product();
            values.chunks(width.max(1)).map(|part| nested(part, rest)).collect()
        }
    }
}
