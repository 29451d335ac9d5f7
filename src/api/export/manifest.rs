//! The fields of a manifest that describe the export.

use serde_json::{Value, json};

use residuum_domain::Dtype;
use residuum_engine::questions::export::{Arrangement, ExportPlan};

/// The description of the arrays in a manifest.
pub fn arrays(plan: &ExportPlan, sent: Dtype) -> Value {
    let arrays: Vec<Value> = plan
        .arrays
        .iter()
        .map(|a| json!({"name": a.name, "hook": a.hook, "layer": a.hook.layer(), "row_shape": a.row_shape}))
        .collect();
    let (order, shuffle) = match plan.question.arrangement {
        Arrangement::ByRun(order) => (Some(order.name()), None),
        Arrangement::Shuffled(seed) => (None, Some(seed)),
    };
    json!({
        "format": "residuum-export-1",
        "arrays": arrays,
        "dtype": sent.name(),
        "converted_from": (sent != plan.dtype).then_some(plan.dtype.name()),
        "positions": plan.question.positions,
        "order": order,
        "shuffle": shuffle,
        "n_left_out": plan.n_left_out,
    })
}
