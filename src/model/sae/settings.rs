//! `cfg.json` of an autoencoder, in the forms that SAELens has written it in, read so that nothing in it is overlooked.
//!
//! Meanings and defaults are those of SAELens (`handle_pre_6_0_config`, `SAEConfig`). A key that nobody reads and that
//! does not belong to the training is refused by its name.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    SCALER, SETTINGS,
    input::Normalization,
    keys::{Keys, Read, Refused},
};
use crate::{
    domain::{Hook, HookName},
    model::error::LoadError,
};

/// What turns pre-activations into activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ReLU.
    Standard,
    /// ReLU above a threshold a feature.
    JumpRelu,
    /// The `k` largest.
    TopK {
        /// How many.
        k: usize,
        /// Whether activations are measured in lengths of decoder rows.
        rescale: bool,
    },
    /// A gate and a magnitude.
    Gated,
}

impl Kind {
    /// As `cfg.json` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::JumpRelu => "jumprelu",
            Self::TopK { .. } => "topk",
            Self::Gated => "gated",
        }
    }
}

/// How the model's weights were processed before its activations were taken; `None` where `cfg.json` does not say, and
/// then SAELens takes them as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processing {
    /// `fold_ln`: gains and biases of norms moved into the weights behind them.
    pub fold_ln: Option<bool>,
    /// `center_writing_weights`: what is written to the residual stream has mean zero.
    pub center_writing_weights: Option<bool>,
    /// `center_unembed`: logits have mean zero.
    pub center_unembed: Option<bool>,
    /// `fold_value_biases`: biases of values moved behind the attention.
    pub fold_value_biases: Option<bool>,
}

/// The settings of an autoencoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What it computes.
    pub kind: Kind,
    /// Numbers it encodes.
    pub d_in: usize,
    /// Features.
    pub d_sae: usize,
    /// The hook it was trained on.
    pub hook: Hook,
    /// The head it was trained on; `None`: all of them side by side.
    pub head: Option<usize>,
    /// What is done to a row first.
    pub normalization: Normalization,
    /// Whether the decoder's bias is subtracted from the input.
    pub apply_b_dec_to_input: bool,
    /// Whether activations have factors of their own in the decoder.
    pub finetuned: bool,
    /// Whether texts began with a BOS token in training; `None`: not said.
    pub prepend_bos: Option<bool>,
    /// How the model's weights were processed; `None`: not said.
    pub processing: Option<Processing>,
    /// The model it was trained on, as SAELens calls it.
    pub model_name: Option<String>,
    /// Tokens of a text in training.
    pub context_size: Option<usize>,
    /// The positions of a text that it was trained on, as the bounds and step of a Python slice; `None`: all.
    pub seqpos_slice: Option<Value>,
    /// Special tokens that it was not trained on: true for all, or their ids; `None`: trained on all tokens.
    pub exclude_special_tokens: Option<Value>,
    /// The type its weights were trained in.
    pub dtype: Option<String>,
    /// The SAELens that wrote the file.
    pub sae_lens_version: Option<String>,
}

impl Settings {
    /// Reads `cfg.json` of a folder, and the activation scale beside it where there is one.
    ///
    /// # Errors
    /// [`LoadError`] naming the file and the setting that is missing, damaged or not understood.
    pub fn read(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join(SETTINGS);
        let scaler = folder.join(SCALER);
        let scale = if scaler.is_file() { scaling_factor(&object(&scaler)?) } else { Ok(None) };
        let scale = scale.map_err(|why| LoadError::file(&scaler, why))?;
        Self::of(object(&path)?, scale).map_err(|why| LoadError::file(&path, why))
    }

    fn of(config: Map<String, Value>, scale: Option<f32>) -> Read<Self> {
        let mut keys = Keys::new(config)?;
        let sae_lens_version = keys.string("sae_lens_version")?;
        let old = is_before_six(sae_lens_version.as_deref())?;
        refuse_transcoders(&mut keys)?;
        let kind = kind(&mut keys, old)?;
        let (hook, name) = hook(&mut keys)?;
        let head = keys.size_of(&["hook_head_index", "hook_point_head_index"])?;
        reshaping(&mut keys, &name, head)?;
        let settings = Self {
            kind,
            d_in: keys.size("d_in")?,
            d_sae: keys.size("d_sae")?,
            hook,
            head,
            normalization: normalization(&mut keys, scale)?,
            apply_b_dec_to_input: keys.flag("apply_b_dec_to_input")?.unwrap_or(true),
            finetuned: keys.flag("finetuning_scaling_factor")?.unwrap_or(false),
            prepend_bos: keys.flag("prepend_bos")?.or(old.then_some(true)),
            processing: processing(&mut keys)?,
            model_name: keys.string("model_name")?,
            context_size: keys.size_of(&["context_size"])?,
            seqpos_slice: keys.take("seqpos_slice").filter(|v| !is_whole(v)),
            exclude_special_tokens: keys.take("exclude_special_tokens").filter(|v| *v != Value::Bool(false)),
            dtype: dtype(&mut keys)?,
            sae_lens_version,
        };
        model_class(&mut keys)?;
        if let Kind::TopK { k, .. } = kind
            && !(1..=settings.d_sae).contains(&k)
        {
            return Err(Refused::new(
                "k",
                format!("is {k}; it must lie between 1 and the {} features", settings.d_sae),
            ));
        }
        keys.finish()?;
        Ok(settings)
    }
}

fn object(path: &Path) -> Result<Map<String, Value>, LoadError> {
    let text = std::fs::read(path).map_err(|e| LoadError::file(path, e))?;
    serde_json::from_slice(&text).map_err(|e| LoadError::file(path, e))
}

/// The factor of `activation_scaler.json`, which training checkpoints have.
fn scaling_factor(scaler: &Map<String, Value>) -> Read<Option<f32>> {
    if scaler.get("has_whitening").and_then(Value::as_bool) == Some(true) {
        return Err(Refused::new("has_whitening", "is true, and whitened activations are not understood; fold it in"));
    }
    match scaler.get("scaling_factor") {
        None | Some(Value::Null) => Ok(None),
        #[expect(clippy::cast_possible_truncation, reason = "the encoder computes in float32")]
        Some(factor) => match factor.as_f64().map(|f| f as f32).filter(|f| f.is_finite() && *f > 0.0) {
            Some(factor) => Ok(Some(factor)),
            None => Err(Refused::new("scaling_factor", format!("is {factor}; a positive number is meant"))),
        },
    }
}

/// Whether the file is older than version 6, whose defaults are others.
fn is_before_six(version: Option<&str>) -> Read<bool> {
    let Some(version) = version else { return Ok(true) };
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(major) => Ok(major < 6),
        None => Err(Refused::new("sae_lens_version", format!("is \"{version}\", which is no version"))),
    }
}

fn refuse_transcoders(keys: &mut Keys) -> Read<()> {
    for key in ["hook_name_out", "hook_head_index_out", "hook_layer_out", "hf_hook_name_out", "d_out"] {
        if let Some(value) = keys.take(key) {
            return Err(Refused::new(key, format!("is {value}: a transcoder reads one hook and writes another")));
        }
    }
    Ok(())
}

fn kind(keys: &mut Keys, old: bool) -> Read<Kind> {
    let named = keys.string("architecture")?;
    let activation = keys.take_of(&["activation_fn", "activation_fn_str"])?;
    let mut k = keys.size_of(&["k"])?;
    match keys.take("activation_fn_kwargs") {
        None => {}
        Some(Value::Object(kwargs)) => {
            for (key, value) in kwargs {
                match (key.as_str(), value.as_u64().and_then(|n| usize::try_from(n).ok())) {
                    ("k", Some(n)) if k.is_none_or(|k| k == n) => k = Some(n),
                    _ => return Err(Refused::new("activation_fn_kwargs", format!("has `{key}`: {value}"))),
                }
            }
        }
        Some(other) => return Err(Refused::new("activation_fn_kwargs", format!("is {other}; an object is meant"))),
    }
    let rescale = keys.flag("rescale_acts_by_decoder_norm")?.unwrap_or(false);
    let named = match named.as_deref() {
        None if old => "standard",
        None => return Err(Refused::new("architecture", "is missing")),
        Some(name) => name,
    };
    let by_rank = match activation {
        None => named == "topk",
        Some((_, Value::String(name))) if name == "relu" => named == "topk" && !old,
        Some((_, Value::String(name))) if name == "topk" => true,
        Some((key, value)) => return Err(Refused::new(&key, format!("is {value}; relu and topk are understood"))),
    };
    let kind = match (named, by_rank) {
        ("topk", true) | ("standard", true) => {
            Kind::TopK { k: k.take().ok_or_else(|| Refused::new("k", "is missing"))?, rescale }
        }
        ("standard", false) => Kind::Standard,
        ("jumprelu", false) => Kind::JumpRelu,
        ("gated", false) => Kind::Gated,
        (other, _) if !["standard", "jumprelu", "gated", "topk"].contains(&other) => {
            let detail = format!("is \"{other}\"; standard, jumprelu, topk and gated are understood");
            return Err(Refused::new("architecture", detail));
        }
        (other, _) => {
            return Err(Refused::new("activation_fn", format!("does not go with the architecture \"{other}\"")));
        }
    };
    match (kind, k, rescale) {
        (Kind::TopK { .. }, ..) | (_, None, false) => Ok(kind),
        (_, Some(k), _) => Err(Refused::new("k", format!("is {k} in a {} autoencoder", kind.name()))),
        (.., true) => {
            Err(Refused::new("rescale_acts_by_decoder_norm", format!("is true in a {} autoencoder", kind.name())))
        }
    }
}

/// The hook, and its name as it was written.
fn hook(keys: &mut Keys) -> Read<(Hook, String)> {
    let layer = keys.size_of(&["hook_layer", "hook_point_layer"])?;
    let Some((key, value)) = keys.take_of(&["hook_name", "hook_point"])? else {
        return Err(Refused::new("hook_name", "is missing"));
    };
    let Value::String(mut name) = value else {
        return Err(Refused::new(&key, format!("is {value}; a text is meant")));
    };
    if let Some(layer) = layer {
        name = name.replace("{layer}", &layer.to_string());
    }
    let hook = match name.parse::<HookName>() {
        Ok(HookName::Full(hook)) => hook,
        Ok(HookName::Short(_)) => return Err(Refused::new(&key, format!("is \"{name}\", which names no layer"))),
        Err(_) => return Err(Refused::new(&key, format!("is \"{name}\", which is no hook point that is known"))),
    };
    match (layer, hook.layer()) {
        (Some(said), Some(own)) if said != own => {
            Err(Refused::new("hook_layer", format!("is {said}, and `{key}` is \"{name}\"")))
        }
        _ => Ok((hook, name)),
    }
}

/// Heads are flattened wherever a row has them; what `reshape_activations` says must agree with that.
fn reshaping(keys: &mut Keys, hook: &str, head: Option<usize>) -> Read<()> {
    let key = "reshape_activations";
    match keys.string(key)?.as_deref() {
        None | Some("none") => Ok(()),
        Some("hook_z") if !hook.ends_with("_z") => {
            Err(Refused::new(key, format!("is \"hook_z\", and the hook is \"{hook}\"")))
        }
        Some("hook_z") if head.is_some() => {
            Err(Refused::new(key, "is \"hook_z\", and `hook_head_index` names one head"))
        }
        Some("hook_z") => Ok(()),
        Some(other) => Err(Refused::new(key, format!("is \"{other}\"; none and hook_z are understood"))),
    }
}

fn normalization(keys: &mut Keys, scale: Option<f32>) -> Read<Normalization> {
    let key = "normalize_activations";
    let name = match keys.take(key) {
        None | Some(Value::Bool(false)) => "none".to_owned(),
        Some(Value::Bool(true)) => "expected_average_only_in".to_owned(),
        Some(Value::String(name)) => name,
        Some(other) => return Err(Refused::new(key, format!("is {other}; a text is meant"))),
    };
    let found = match (name.as_str(), scale) {
        ("expected_average_only_in", Some(factor)) => return Ok(Normalization::Scale(factor)),
        ("expected_average_only_in", None) => {
            let why =
                format!("is \"{name}\", and the factor is known neither from {SCALER} nor folded into the weights");
            return Err(Refused::new(
                key,
                format!("{why}; fold it (fold_activation_norm_scaling_factor) and save anew"),
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

fn processing(keys: &mut Keys) -> Read<Option<Processing>> {
    const KEY: &str = "model_from_pretrained_kwargs";
    if let Some(kwargs) = keys.take("model_kwargs").filter(|v| v.as_object().is_none_or(|o| !o.is_empty())) {
        return Err(Refused::new("model_kwargs", format!("is {kwargs}, which may change the forward pass")));
    }
    let kwargs = match keys.take(KEY) {
        None => return Ok(None),
        Some(Value::Object(kwargs)) => kwargs,
        Some(other) => return Err(Refused::new(KEY, format!("is {other}; an object is meant"))),
    };
    let mut processing = Processing::default();
    for (key, value) in kwargs {
        let flag = || {
            let wrong = || Refused::new(&format!("{KEY}.{key}"), format!("is {value}; true or false is meant"));
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
            // where the weights lie and in what type they were computed with
            "device" | "n_devices" | "dtype" | "torch_dtype" | "default_padding_side" => {}
            "revision" if value == "main" => {}
            _ => return Err(Refused::new(&format!("{KEY}.{key}"), format!("is {value}, which cannot be honoured"))),
        }
    }
    Ok(Some(processing))
}

fn dtype(keys: &mut Keys) -> Read<Option<String>> {
    let Some(name) = keys.string("dtype")? else { return Ok(None) };
    let short = name.strip_prefix("torch.").unwrap_or(&name).to_owned();
    if ["float32", "float64", "float16", "bfloat16"].contains(&short.as_str()) {
        return Ok(Some(short));
    }
    Err(Refused::new("dtype", format!("is \"{name}\"; float32, float64, float16 and bfloat16 are understood")))
}

/// The classes whose hook points these are.
fn model_class(keys: &mut Keys) -> Read<()> {
    let key = "model_class_name";
    match keys.string(key)?.as_deref() {
        None | Some("HookedTransformer" | "TransformerBridge") => Ok(()),
        Some(other) => {
            Err(Refused::new(key, format!("is \"{other}\"; HookedTransformer and TransformerBridge are understood")))
        }
    }
}

/// Whether a slice leaves nothing out.
fn is_whole(slice: &Value) -> bool {
    slice.as_array().is_some_and(|bounds| bounds.iter().all(Value::is_null))
}

#[cfg(test)]
mod tests;
