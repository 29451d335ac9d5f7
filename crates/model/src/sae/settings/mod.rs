//! Reads `cfg.json` of an autoencoder, in all formats that SAELens has written, so that no key is overlooked. It does not know the
//! model.
//!
//! Meanings and defaults are those of SAELens (`handle_pre_6_0_config`, `SAEConfig`). A key that SAELens reads and that is not
//! supported here is refused by name. A key that SAELens does not read is ignored with a warning, unless the file is from a
//! version newer than those known here, which might read it.
//!
//! There are three formats: the whole configuration of the training run (before version 3, and training checkpoints up to 5), the
//! settings of the autoencoder as one object (3 to 5), and the same with a `metadata` object (from 6 on).

mod excluded;
mod kind;
mod normalization;
mod processing;
mod version;

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    SCALER, SETTINGS,
    cfg_keys::{Keys, Read, Refused},
    input::Normalization,
};
use crate::error::LoadError;
pub use excluded::ExcludedTokens;
use excluded::excluded_tokens;
pub use kind::Kind;
use kind::kind;
use normalization::{normalization, scaling_factor};
pub use processing::Processing;
use processing::processing;
use residuum_domain::{Hook, HookName, Warning};
use version::Version;

/// The settings of an autoencoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The architecture.
    pub kind: Kind,
    /// Width of its input.
    pub d_in: usize,
    /// Number of features.
    pub d_sae: usize,
    /// The hook it was trained on.
    pub hook: Hook,
    /// The head it was trained on; `None`: all heads, concatenated.
    pub head: Option<usize>,
    /// The normalisation of its input.
    pub normalization: Normalization,
    /// Whether the decoder's bias is subtracted from the input.
    pub apply_b_dec_to_input: bool,
    /// Whether activations have finetuned factors in the decoder.
    pub finetuned: bool,
    /// Whether texts began with a BOS token in training; `None` if the file does not say.
    pub prepend_bos: Option<bool>,
    /// How the model's weights were processed; `None` if the file does not say.
    pub processing: Option<Processing>,
    /// Whether the SAELens version that trained it used processed weights by default (before 3.19.2).
    pub trained_processed: bool,
    /// SAELens's name of the model it was trained on.
    pub model_name: Option<String>,
    /// Context length in training, in tokens.
    pub context_size: Option<usize>,
    /// The positions of a text that it was trained on, as a Python slice (start, stop, step); `None`: all.
    pub seqpos_slice: Option<Value>,
    /// Tokens that it was not trained on.
    pub exclude_special_tokens: ExcludedTokens,
    /// The type its weights were trained in.
    pub dtype: Option<String>,
    /// The SAELens version that wrote the file; before version 6 only some files have it.
    pub sae_lens_version: Option<String>,
    /// The SAELens version that trained it.
    pub sae_lens_training_version: Option<String>,
    /// Warnings about the file.
    pub warnings: Vec<Warning>,
}

impl Settings {
    /// Reads `cfg.json` of a folder, and the activation scale next to it, if there is one.
    ///
    /// # Errors
    /// [`LoadError`] naming the file, and the setting that is missing, malformed or not supported.
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
        let sae_lens_training_version = keys.string("sae_lens_training_version")?;
        let written = version(sae_lens_version.as_deref())?;
        let old = written.is_none_or(|version| version < Version::SIX);
        let trained = sae_lens_training_version.as_deref().and_then(Version::parse).or(written);
        refuse_transcoders(&mut keys)?;
        let kind = kind(&mut keys, old)?;
        let (hook, name) = hook(&mut keys)?;
        let head = keys.size_of(&["hook_head_index", "hook_point_head_index"])?;
        reshaping(&mut keys, &name, head)?;
        let mut settings = Self {
            kind,
            d_in: keys.size("d_in")?,
            d_sae: keys.size("d_sae")?,
            hook,
            head,
            normalization: normalization(&mut keys, scale)?,
            apply_b_dec_to_input: keys.flag("apply_b_dec_to_input")?.unwrap_or(true),
            finetuned: finetuned(&mut keys, old)?,
            prepend_bos: keys.flag("prepend_bos")?.or(old.then_some(true)),
            processing: processing(&mut keys)?,
            trained_processed: trained.is_some_and(|version| version < Version::UNPROCESSED),
            model_name: keys.string("model_name")?,
            context_size: keys.size_of(&["context_size"])?,
            seqpos_slice: keys.take("seqpos_slice").filter(|v| !is_whole(v)),
            exclude_special_tokens: excluded_tokens(&mut keys)?,
            dtype: dtype(&mut keys)?,
            sae_lens_version,
            sae_lens_training_version,
            warnings: Vec::new(),
        };
        model_class(&mut keys)?;
        if let Kind::TopK { k, .. } = kind
            && !(1..=settings.d_sae).contains(&k)
        {
            return Err(Refused::new("k", format!("is {k}; it must be between 1 and the {} features", settings.d_sae)));
        }
        settings.warnings = keys.finish(written.is_none_or(|version| version <= Version::NEWEST))?;
        Ok(settings)
    }
}

fn object(path: &Path) -> Result<Map<String, Value>, LoadError> {
    let text = std::fs::read(path).map_err(|e| LoadError::file(path, e))?;
    serde_json::from_slice(&text).map_err(|e| LoadError::file(path, e))
}

/// The SAELens version that wrote the file, if it says so.
fn version(text: Option<&str>) -> Read<Option<Version>> {
    let refused = |text| Refused::new("sae_lens_version", format!("is \"{text}\", which is not a version"));
    text.map(|text| Version::parse(text).ok_or_else(|| refused(text))).transpose()
}

/// Whether activations have factors in the decoder. Before version 3 they always had, but all are one unless a finetuning method is
/// named.
fn finetuned(keys: &mut Keys, old: bool) -> Read<bool> {
    let method = keys.string("finetuning_method")?;
    Ok(keys.flag("finetuning_scaling_factor")?.unwrap_or(old && method.is_some()))
}

fn refuse_transcoders(keys: &mut Keys) -> Read<()> {
    for key in ["hook_name_out", "hook_head_index_out", "hook_layer_out", "hf_hook_name_out", "d_out"] {
        if let Some(value) = keys.take(key) {
            return Err(Refused::new(key, format!("is {value}: a transcoder reads one hook and writes another")));
        }
    }
    Ok(())
}

/// The hook, and its name in the file.
fn hook(keys: &mut Keys) -> Read<(Hook, String)> {
    let layer = keys.size_of(&["hook_layer", "hook_point_layer"])?;
    let Some((key, value)) = keys.take_of(&["hook_name", "hook_point"])? else {
        return Err(Refused::new("hook_name", "is missing"));
    };
    let Value::String(mut name) = value else {
        return Err(Refused::new(&key, format!("is {value}; expected a string")));
    };
    if let Some(layer) = layer {
        name = name.replace("{layer}", &layer.to_string());
    }
    let hook = match name.parse::<HookName>() {
        Ok(HookName::Full(hook)) => hook,
        Ok(HookName::Short(_)) => return Err(Refused::new(&key, format!("is \"{name}\", which names no layer"))),
        Err(_) => return Err(Refused::new(&key, format!("is \"{name}\", which is not a known hook point"))),
    };
    match (layer, hook.layer()) {
        (Some(said), Some(own)) if said != own => {
            Err(Refused::new("hook_layer", format!("is {said}, and `{key}` is \"{name}\"")))
        }
        _ => Ok((hook, name)),
    }
}

/// Checks `reshape_activations`: rows with heads are always flattened here, so it must not say otherwise.
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

fn dtype(keys: &mut Keys) -> Read<Option<String>> {
    let Some(name) = keys.string("dtype")? else { return Ok(None) };
    let short = name.strip_prefix("torch.").unwrap_or(&name).to_owned();
    if ["float32", "float64", "float16", "bfloat16"].contains(&short.as_str()) {
        return Ok(Some(short));
    }
    Err(Refused::new("dtype", format!("is \"{name}\"; float32, float64, float16 and bfloat16 are understood")))
}

/// Checks that the model class has TransformerLens's hook points.
fn model_class(keys: &mut Keys) -> Read<()> {
    let key = "model_class_name";
    match keys.string(key)?.as_deref() {
        None | Some("HookedTransformer" | "TransformerBridge") => Ok(()),
        Some(other) => {
            Err(Refused::new(key, format!("is \"{other}\"; HookedTransformer and TransformerBridge are understood")))
        }
    }
}

/// Whether a slice selects everything.
fn is_whole(slice: &Value) -> bool {
    slice.as_array().is_some_and(|bounds| bounds.iter().all(Value::is_null))
}

#[cfg(test)]
mod tests;
