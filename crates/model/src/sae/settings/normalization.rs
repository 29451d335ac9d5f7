//! Reads `normalize_activations`, and the scaling factor if it was not folded into the weights.

use serde_json::{Map, Value};

use crate::sae::{
    SCALER,
    cfg_keys::{Keys, Read, Refused},
    input::Normalization,
};

/// Reads the factor of `activation_scaler.json`, which training checkpoints have.
pub(super) fn scaling_factor(scaler: &Map<String, Value>) -> Read<Option<f32>> {
    if scaler.get("has_whitening").and_then(Value::as_bool) == Some(true) {
        return Err(Refused::new("has_whitening", "is true, and whitened activations are not understood; fold it in"));
    }
    match scaler.get("scaling_factor") {
        None | Some(Value::Null) => Ok(None),
        #[expect(clippy::cast_possible_truncation, reason = "the encoder computes in float32")]
        Some(factor) => match factor.as_f64().map(|f| f as f32).filter(|f| f.is_finite() && *f > 0.0) {
            Some(factor) => Ok(Some(factor)),
            None => Err(Refused::new("scaling_factor", format!("is {factor}; expected a positive number"))),
        },
    }
}

/// Reads `normalize_activations`; `scale` is the factor of `activation_scaler.json`.
pub(super) fn normalization(keys: &mut Keys, scale: Option<f32>) -> Read<Normalization> {
    let key = "normalize_activations";
    let name = match keys.take(key) {
        None | Some(Value::Bool(false)) => "none".to_owned(),
        Some(Value::Bool(true)) => "expected_average_only_in".to_owned(),
        Some(Value::String(name)) => name,
        Some(other) => return Err(Refused::new(key, format!("is {other}; expected a string"))),
    };
    let found = match (name.as_str(), scale) {
        ("expected_average_only_in", Some(factor)) => return Ok(Normalization::Scale(factor)),
        ("expected_average_only_in", None) => {
            let why =
                format!("is \"{name}\", and the factor is known neither from {SCALER} nor folded into the weights");
            return Err(Refused::new(
                key,
                format!("{why}; fold it (fold_activation_norm_scaling_factor) and save it again"),
            ));
        }
        ("none", _) => Normalization::None,
        ("constant_norm_rescale", _) => Normalization::ConstantNorm,
        ("layer_norm", _) => Normalization::LayerNorm,
        _ => {
            let understood = "none, expected_average_only_in, constant_norm_rescale and layer_norm are understood";
            return Err(Refused::new(key, format!("is \"{name}\"; {understood}")));
        }
    };
    match scale {
        None => Ok(found),
        Some(factor) => {
            Err(Refused::new(key, format!("is \"{name}\", and {SCALER} has a `scaling_factor` of {factor}")))
        }
    }
}
