//! What a sweep answers.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::request::{MetricName, PatchDirection, Plan};
use crate::api::{
    dto::token::Token,
    tensor::{Part, TensorAnswer},
};
use residuum_domain::{Axis, Dtype};
use residuum_engine::Swept;
use residuum_engine::questions::finite;

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
    /// Where the logits were read.
    position: usize,
    /// Tokens of the clean input.
    clean_tokens: Vec<String>,
    /// Tokens of the corrupt input.
    corrupt_tokens: Vec<String>,
    /// Axes of `values`: `layer`, then `pos` and `head` where each of these is swept.
    axes: Vec<&'static str>,
    /// Layers, in the order of the axis.
    layers: Vec<usize>,
    /// Positions, where they are an axis.
    positions: Option<Vec<u32>>,
    /// Heads, where they are an axis.
    heads: Option<Vec<usize>>,
    /// The metric of the clean run.
    clean: Option<f64>,
    /// The metric of the corrupt run.
    corrupt: Option<f64>,
    /// The metric of each changed run, nested as `axes`.
    #[schema(value_type = Vec<Value>)]
    values: Value,
    /// The same, 0 where nothing changed and 1 where the changed run does as the other; null where the two do alike.
    #[schema(value_type = Option<Vec<Value>>)]
    normalized: Option<Value>,
    /// Changed runs.
    n_cells: usize,
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct PatchingProgress {
    /// Cells that are done.
    pub done: usize,
    /// All cells.
    pub total: usize,
}

/// What the answer says beside the numbers.
pub struct Described {
    dto: PatchingDto,
    shape: Vec<usize>,
}

impl Described {
    /// A sweep before it has run.
    pub fn of(plan: &Plan) -> Self {
        let mut axes = vec!["layer"];
        let mut shape = vec![plan.layers.len()];
        if let Some(positions) = &plan.positions {
            axes.push("pos");
            shape.push(positions.len());
        }
        if let Some(heads) = &plan.heads {
            axes.push("head");
            shape.push(heads.len());
        }
        let dto = PatchingDto {
            model: plan.sweep.model.info().id.clone(),
            hook: plan.hook.clone(),
            metric: plan.metric,
            direction: plan.direction,
            answer: plan.answer.clone().into(),
            against: plan.against.clone().map(Into::into),
            position: plan.sweep.position,
            clean_tokens: plan.clean.tokens.clone(),
            corrupt_tokens: plan.corrupt.tokens.clone(),
            axes,
            layers: plan.layers.clone(),
            positions: plan.positions.clone(),
            heads: plan.heads.clone(),
            clean: None,
            corrupt: None,
            values: Value::Null,
            normalized: None,
            n_cells: plan.sweep.cells.len(),
        };
        Self { dto, shape }
    }

    /// The whole answer.
    pub fn with(self, swept: &Swept) -> PatchingDto {
        let (clean, corrupt) = match self.dto.direction {
            PatchDirection::Denoise => (swept.source, swept.base),
            PatchDirection::Noise => (swept.base, swept.source),
        };
        let span = swept.source - swept.base;
        let normalized: Vec<f64> = swept.values.iter().map(|v| (v - swept.base) / span).collect();
        PatchingDto {
            clean: finite(clean),
            corrupt: finite(corrupt),
            values: nested(&swept.values, &self.shape),
            normalized: (span != 0.0 && span.is_finite()).then(|| nested(&normalized, &self.shape)),
            ..self.dto
        }
    }

    /// The values alone, as a tensor.
    pub fn tensor(self, swept: &Swept) -> TensorAnswer {
        #[expect(clippy::cast_possible_truncation, reason = "the answer is float32")]
        let values: Vec<f32> = swept.values.iter().map(|v| *v as f32).collect();
        let mut bytes = Vec::with_capacity(values.len() * 4);
        Dtype::Float32.encode(&values, &mut bytes);
        let axis = |name: &&str| match *name {
            "pos" => Axis::Pos,
            "head" => Axis::Head,
            _ => Axis::Layer,
        };
        TensorAnswer {
            hook: format!("patching.{}", self.dto.hook),
            layer: None,
            layers: Some(self.dto.layers),
            caches: None,
            offsets: None,
            shape: self.shape,
            axes: self.dto.axes.iter().map(axis).collect(),
            dtype: Dtype::Float32,
            widened: false,
            parts: vec![Part::Made(bytes.into())],
        }
    }
}

fn nested(values: &[f64], shape: &[usize]) -> Value {
    match shape {
        [] | [_] => values.iter().map(|v| Value::from(finite(*v))).collect(),
        [_, rest @ ..] => {
            let width: usize = rest.iter().product();
            values.chunks(width.max(1)).map(|part| nested(part, rest)).collect()
        }
    }
}
