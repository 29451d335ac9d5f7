//! Reads `model_from_pretrained_kwargs`: how TransformerLens processed the model's weights before activations were computed.

use serde_json::Value;

use crate::sae::cfg_keys::{Keys, Read, Refused};

/// How the model's weights were processed before activations were computed; `None` where `cfg.json` does not say, and
/// then SAELens does not process them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processing {
    /// `fold_ln`: gains and biases of norms are folded into the weights after them.
    pub fold_ln: Option<bool>,
    /// `center_writing_weights`: everything that is written to the residual stream has mean zero.
    pub center_writing_weights: Option<bool>,
    /// `center_unembed`: logits have mean zero.
    pub center_unembed: Option<bool>,
    /// `fold_value_biases`: biases of values are folded into the output bias of attention.
    pub fold_value_biases: Option<bool>,
}

/// Reads `model_from_pretrained_kwargs` and `model_kwargs`.
pub(super) fn processing(keys: &mut Keys) -> Read<Option<Processing>> {
    const KEY: &str = "model_from_pretrained_kwargs";
    if let Some(kwargs) = keys.take("model_kwargs").filter(|v| v.as_object().is_none_or(|o| !o.is_empty())) {
        return Err(Refused::new("model_kwargs", format!("is {kwargs}, which may change the forward pass")));
    }
    let kwargs = match keys.take(KEY) {
        None => return Ok(None),
        Some(Value::Object(kwargs)) => kwargs,
        Some(other) => return Err(Refused::new(KEY, format!("is {other}; expected an object"))),
    };
    let mut processing = Processing::default();
    for (key, value) in kwargs {
        let flag = || {
            let wrong = || Refused::new(&format!("{KEY}.{key}"), format!("is {value}; expected true or false"));
            value.as_bool().ok_or_else(wrong)
        };
        match key.as_str() {
            _ if value.is_null() => {}
            "fold_ln" => processing.fold_ln = Some(flag()?),
            "center_writing_weights" => processing.center_writing_weights = Some(flag()?),
            "center_unembed" => processing.center_unembed = Some(flag()?),
            "fold_value_biases" => processing.fold_value_biases = Some(flag()?),
            "refactor_factored_attn_matrices" | "move_to_device" | "trust_remote_code" | "local_files_only"
                if !flag()? || key != "refactor_factored_attn_matrices" => {}
            // where the weights are, and the type they are computed in
            "device" | "n_devices" | "dtype" | "torch_dtype" | "default_padding_side" => {}
            "revision" if value == "main" => {}
            _ => return Err(Refused::new(&format!("{KEY}.{key}"), format!("is {value}, which is not supported"))),
        }
    }
    Ok(Some(processing))
}
