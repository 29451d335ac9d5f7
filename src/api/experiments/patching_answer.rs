//! The answer to a patching sweep, as JSON or as a tensor.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::patching_body::{MetricName, PatchDirection, SweepOpName};
use crate::api::{
    dto::token::Token,
    error::ProblemDto,
    tensor::{NestedNumbers, Part, TensorAnswer},
};
use residuum_domain::{Axis, Dtype};
use residuum_engine::questions::{
    finite,
    patching::{PatchingAnswer, SweepInfo},
};

/// The effect of each change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Patching, example = json!({
    "model": "smollm2-135m", "op": "patch", "hook": "hook_resid_pre", "metric": "logit_diff", "direction": "denoise",
    "answer": {"id": 7042, "token": " Paris"}, "against": {"id": 9430, "token": " Rome"}, "position": 1,
    "clean_tokens": ["A", " b"], "corrupt_tokens": ["C", " b"], "axes": ["layer", "pos"], "layers": [0, 1], "positions": [0, 1],
    "to": null, "from": null, "heads": null, "clean": 3.25, "corrupt": -1.5, "values": [[3.25, -1.5], [2.0, 0.5]],
    "effect": [[4.75, 0.0], [3.5, 2.0]], "normalized": [[1.0, 0.0], [0.74, 0.42]],
    "n_cells": 4
}))]
pub struct PatchingDto {
    /// Name of the model.
    model: String,
    /// What each cell does.
    #[schema(value_type = SweepOpName)]
    op: &'static str,
    /// The hook, without its layer.
    hook: String,
    /// The metric.
    metric: MetricName,
    /// Which run was patched; null for the other operations, which change the clean run.
    direction: Option<PatchDirection>,
    /// The measured token.
    answer: Token,
    /// The token whose logit is subtracted.
    against: Option<Token>,
    /// Position of the logits.
    position: usize,
    /// Tokens of the clean input.
    clean_tokens: Vec<String>,
    /// Tokens of the corrupt input, if there is one.
    corrupt_tokens: Option<Vec<String>>,
    /// Axes of `values`: `layer`, then those of `pos`, `q_pos`, `k_pos` and `head` that are swept.
    axes: Vec<&'static str>,
    /// Layers, in the order of the axis.
    layers: Vec<usize>,
    /// Positions, if they are an axis.
    positions: Option<Vec<u32>>,
    /// Queries of a knockout (`q_pos`), if they are an axis.
    to: Option<Vec<u32>>,
    /// Keys of a knockout (`k_pos`), if they are an axis.
    from: Option<Vec<u32>>,
    /// Heads, if they are an axis.
    heads: Option<Vec<usize>>,
    /// The metric of the clean run: the baseline of an ablation.
    clean: Option<f64>,
    /// The metric of the corrupt run, if there is one.
    corrupt: Option<f64>,
    /// The metric of each changed run, nested as `axes`.
    #[schema(value_type = NestedNumbers)]
    values: Value,
    /// The same values, less the metric of the run that is changed: `corrupt` if clean values are put into the corrupt
    /// run, else `clean`. 0 if the change had no effect.
    #[schema(value_type = NestedNumbers)]
    effect: Value,
    /// Of a patch, `effect` as a fraction of the difference of the two runs: 0 if the patch had no effect, 1 if the metric
    /// reached that of the other run. Null if the two runs have the same metric, and for the other operations.
    #[schema(value_type = Option<NestedNumbers>)]
    normalized: Option<Value>,
    /// Number of changed runs.
    n_cells: usize,
}

/// An event of a sweep.
#[derive(Serialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the stream for the specification")]
pub enum PatchingEvent {
    /// Cells are done, or the place in the queue has changed.
    Progress(PatchingProgress),
    /// The last event: the answer.
    Result(Box<PatchingDto>),
    /// The last event: why there is no answer.
    Problem(ProblemDto),
}

/// Progress of a sweep.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct PatchingProgress {
    /// While the sweep waits for its turn, the number of experiments whose turn comes before; null once it runs.
    pub queue_position: Option<usize>,
    /// Number of cells that are done.
    pub done: usize,
    /// Number of all cells.
    pub total: usize,
}

impl From<PatchingAnswer> for PatchingDto {
    fn from(PatchingAnswer { info, clean, corrupt, values, effect, normalized }: PatchingAnswer) -> Self {
        let shape = info.shape();
        Self {
            axes: axes(&info).into_iter().map(|(name, _)| name).collect(),
            model: info.model,
            op: info.op,
            hook: info.site.name().to_owned(),
            metric: info.metric.into(),
            direction: info.direction.map(Into::into),
            answer: info.answer.into(),
            against: info.against.map(Into::into),
            position: info.position,
            clean_tokens: info.clean_tokens,
            corrupt_tokens: info.corrupt_tokens,
            layers: info.layers,
            positions: info.positions,
            to: info.to,
            from: info.from,
            heads: info.heads,
            clean: finite(clean),
            corrupt: corrupt.and_then(finite),
            values: nested(&values, &shape),
            effect: nested(&effect, &shape),
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
        hook: format!("{}.{}", info.op, info.site.name()),
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
    let swept = [
        (true, Axis::Layer),
        (info.positions.is_some(), Axis::Pos),
        (info.to.is_some(), Axis::QPos),
        (info.from.is_some(), Axis::KPos),
        (info.heads.is_some(), Axis::Head),
    ];
    swept.into_iter().filter_map(|(is_axis, axis)| is_axis.then_some((axis.name(), axis))).collect()
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
