//! `cfg.json` of an autoencoder, in the forms that SAELens has written it in, read so that nothing in it is overlooked.
//!
//! Meanings and defaults are those of SAELens (`handle_pre_6_0_config`, `SAEConfig`). A key that nobody reads and that
//! does not belong to the training is refused by its name.

use std::{fmt, path::Path};

use serde_json::{Map, Value};

use super::{SCALER, SETTINGS, input::Normalization, training_keys::TRAINING};
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

/// Why a setting cannot be honoured.
pub(super) struct Refused(String);

impl Refused {
    fn new(key: &str, why: impl fmt::Display) -> Self {
        Self(format!("`{key}` {why}"))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Read<T> = Result<T, Refused>;

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

/// The keys of `cfg.json` and of its `metadata`, taken one by one. Null is as good as absent.
struct Keys(Map<String, Value>);

impl Keys {
    fn new(mut config: Map<String, Value>) -> Read<Self> {
        match config.remove("metadata") {
            None | Some(Value::Null) => {}
            Some(Value::Object(metadata)) => {
                for (key, value) in metadata {
                    match config.get(&key) {
                        Some(other) if !other.is_null() && !value.is_null() && *other != value => {
                            return Err(Refused::new(&key, format!("is {other}, and {value} in `metadata`")));
                        }
                        Some(other) if !other.is_null() => {}
                        _ => {
                            config.insert(key, value);
                        }
                    }
                }
            }
            Some(other) => return Err(Refused::new("metadata", format!("is {other}; an object is meant"))),
        }
        Ok(Self(config))
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.shift_remove(key).filter(|value| !value.is_null())
    }

    /// What stands under one of several names of one setting.
    fn take_of(&mut self, names: &[&str]) -> Read<Option<(String, Value)>> {
        let mut found: Option<(String, Value)> = None;
        for name in names {
            match (self.take(name), &found) {
                (Some(value), Some((other, before))) if value != *before => {
                    return Err(Refused::new(name, format!("is {value}, and `{other}` is {before}")));
                }
                (Some(value), None) => found = Some(((*name).to_owned(), value)),
                _ => {}
            }
        }
        Ok(found)
    }

    fn flag(&mut self, key: &str) -> Read<Option<bool>> {
        let wrong = |value: Value| Refused::new(key, format!("is {value}; true or false is meant"));
        self.take(key).map(|value| value.as_bool().ok_or_else(|| wrong(value))).transpose()
    }

    fn string(&mut self, key: &str) -> Read<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Refused::new(key, format!("is {other}; a text is meant"))),
        }
    }

    fn size_of(&mut self, names: &[&str]) -> Read<Option<usize>> {
        let Some((name, value)) = self.take_of(names)? else { return Ok(None) };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| Refused::new(&name, format!("is {value}; a whole number is meant")))
    }

    fn size(&mut self, key: &str) -> Read<usize> {
        match self.size_of(&[key])? {
            Some(0) => Err(Refused::new(key, "is 0")),
            Some(n) => Ok(n),
            None => Err(Refused::new(key, "is missing")),
        }
    }

    /// Refuses what nobody has read, unless it tells of the training.
    fn finish(self) -> Read<()> {
        let known = |key: &String| TRAINING.binary_search(&key.as_str()).is_ok();
        match self.0.iter().find(|(key, value)| !value.is_null() && !known(key)) {
            Some((key, value)) => Err(Refused::new(key, format!("is a setting that is not understood (here {value})"))),
            None => Ok(()),
        }
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
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: Value, scale: Option<f32>) -> Result<Settings, String> {
        let Value::Object(config) = config else { panic!("an object is meant") };
        Settings::of(config, scale).map_err(|refused| refused.to_string())
    }

    fn with(mut base: Value, more: &Value) -> Value {
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        base
    }

    /// What SAELens 3 writes for a residual stream.
    fn old() -> Value {
        json!({
            "architecture": "standard", "d_in": 32, "d_sae": 128, "activation_fn_str": "relu", "activation_fn_kwargs": {},
            "apply_b_dec_to_input": true, "finetuning_scaling_factor": false, "context_size": 64, "model_name": "tiny",
            "hook_name": "blocks.1.hook_resid_post", "hook_layer": 1, "hook_head_index": null, "prepend_bos": true,
            "dtype": "torch.float32", "device": "cpu", "normalize_activations": "none", "sae_lens_training_version": "3.18.2",
            "dataset_path": "x/y", "dataset_trust_remote_code": true, "neuronpedia_id": null, "model_from_pretrained_kwargs": {}
        })
    }

    /// What SAELens 6 writes.
    fn new() -> Value {
        json!({
            "architecture": "topk", "d_in": 32, "d_sae": 128, "k": 4, "rescale_acts_by_decoder_norm": true, "dtype": "float32",
            "device": "cpu", "apply_b_dec_to_input": false, "normalize_activations": "layer_norm", "reshape_activations": "none",
            "metadata": {
                "sae_lens_version": "6.5.0", "sae_lens_training_version": "6.5.0", "hook_name": "blocks.1.hook_mlp_out",
                "prepend_bos": false, "model_name": "tiny", "context_size": 128, "seqpos_slice": [null], "training_architecture": "topk",
                "model_from_pretrained_kwargs": {"center_writing_weights": false, "n_devices": 1}
            }
        })
    }

    #[test]
    fn the_training_keys_are_sorted() {
        assert!(TRAINING.is_sorted());
    }

    #[test]
    fn files_of_both_forms_are_read() {
        let settings = read(old(), None).unwrap();
        assert_eq!((settings.kind, settings.d_in, settings.d_sae), (Kind::Standard, 32, 128));
        assert_eq!(
            (settings.hook.to_string().as_str(), settings.prepend_bos),
            ("blocks.1.hook_resid_post", Some(true))
        );
        assert_eq!(settings.processing, Some(Processing::default()));
        let settings = read(new(), None).unwrap();
        assert_eq!(
            (settings.kind, settings.normalization),
            (Kind::TopK { k: 4, rescale: true }, Normalization::LayerNorm)
        );
        assert_eq!((settings.prepend_bos, settings.apply_b_dec_to_input), (Some(false), false));
        assert_eq!((settings.seqpos_slice, settings.sae_lens_version.as_deref()), (None, Some("6.5.0")));
        assert_eq!(settings.processing.unwrap().center_writing_weights, Some(false));
    }

    #[test]
    fn what_an_old_file_leaves_out_is_what_it_meant() {
        let least = json!({
            "d_in": 32, "d_sae": 64, "hook_point": "blocks.{layer}.hook_resid_pre", "hook_point_layer": 2, "lr": 0.1,
            "normalize_activations": false, "expansion_factor": 2
        });
        let settings = read(least.clone(), None).unwrap();
        assert_eq!((settings.kind, settings.hook.to_string().as_str()), (Kind::Standard, "blocks.2.hook_resid_pre"));
        assert_eq!(
            (settings.prepend_bos, settings.apply_b_dec_to_input, settings.processing),
            (Some(true), true, None)
        );
        let by_rank = with(least, &json!({"activation_fn": "topk", "activation_fn_kwargs": {"k": 7}}));
        assert_eq!(read(by_rank, None).unwrap().kind, Kind::TopK { k: 7, rescale: false });
        let mut silent = new();
        silent["metadata"].as_object_mut().unwrap().remove("prepend_bos");
        assert_eq!(read(silent, None).unwrap().prepend_bos, None, "a new file that does not say means nothing");
    }

    #[test]
    fn a_scale_that_was_not_folded_comes_from_the_file_beside() {
        let scaled = with(old(), &json!({"normalize_activations": "expected_average_only_in"}));
        assert_eq!(read(scaled.clone(), Some(0.5)).unwrap().normalization, Normalization::Scale(0.5));
        assert!(read(scaled, None).unwrap_err().starts_with("`normalize_activations` is \"expected_average_only_in\""));
        assert!(read(old(), Some(0.5)).unwrap_err().starts_with("`normalize_activations` is \"none\", and"));
        let scaler = |v: Value| scaling_factor(v.as_object().unwrap()).map_err(|refused| refused.to_string());
        assert_eq!(scaler(json!({"scaling_factor": 0.25, "has_whitening": false})), Ok(Some(0.25)));
        assert_eq!(scaler(json!({"scaling_factor": null})), Ok(None));
        assert!(scaler(json!({"scaling_factor": 0})).is_err() && scaler(json!({"has_whitening": true})).is_err());
    }

    #[test]
    fn what_changes_the_input_and_is_not_understood_is_refused_by_name() {
        for (more, name) in [
            (json!({"a_new_option": 1}), "a_new_option"),
            (json!({"architecture": "temporal"}), "architecture"),
            (json!({"activation_fn_str": "tanh-relu"}), "activation_fn_str"),
            (json!({"activation_fn_kwargs": {"tau": 1}}), "activation_fn_kwargs"),
            (json!({"activation_fn_str": "topk"}), "k"),
            (json!({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 129}}), "k"),
            (json!({"architecture": "gated", "activation_fn_str": "topk", "k": 3}), "activation_fn"),
            (json!({"k": 3}), "k"),
            (json!({"rescale_acts_by_decoder_norm": true}), "rescale_acts_by_decoder_norm"),
            (json!({"normalize_activations": "constant_scalar_rescale"}), "normalize_activations"),
            (json!({"normalize_activations": "covariance_whitening"}), "normalize_activations"),
            (json!({"normalize_activations": true}), "normalize_activations"),
            (json!({"reshape_activations": "hook_z"}), "reshape_activations"),
            (json!({"reshape_activations": "mean"}), "reshape_activations"),
            (json!({"model_kwargs": {"attention_mask": 1}}), "model_kwargs"),
            (
                json!({"model_from_pretrained_kwargs": {"checkpoint_index": 3}}),
                "model_from_pretrained_kwargs.checkpoint_index",
            ),
            (
                json!({"model_from_pretrained_kwargs": {"revision": "step1000"}}),
                "model_from_pretrained_kwargs.revision",
            ),
            (
                json!({"model_from_pretrained_kwargs": {"refactor_factored_attn_matrices": true}}),
                "model_from_pretrained_kwargs.refactor_factored_attn_matrices",
            ),
            (
                json!({"model_from_pretrained_kwargs": {"center_writing_weights": 1}}),
                "model_from_pretrained_kwargs.center_writing_weights",
            ),
            (json!({"model_class_name": "HookedMamba"}), "model_class_name"),
            (json!({"hook_name_out": "blocks.1.hook_mlp_out"}), "hook_name_out"),
            (json!({"hook_name": "model.layers.3"}), "hook_name"),
            (json!({"hook_name": "hook_resid_post"}), "hook_name"),
            (json!({"hook_layer": 2}), "hook_layer"),
            (json!({"hook_point": "blocks.0.hook_resid_post"}), "hook_point"),
            (json!({"hook_head_index": -1}), "hook_head_index"),
            (json!({"dtype": "int8"}), "dtype"),
            (json!({"d_sae": 0}), "d_sae"),
            (json!({"d_in": null}), "d_in"),
            (json!({"prepend_bos": "yes"}), "prepend_bos"),
            (json!({"metadata": {"prepend_bos": false}}), "prepend_bos"),
            (json!({"metadata": {"a_new_option": 1}}), "a_new_option"),
            (json!({"sae_lens_version": "next"}), "sae_lens_version"),
        ] {
            let refused = read(with(old(), &more), None).unwrap_err();
            assert!(refused.starts_with(&format!("`{name}` ")), "{more}: {refused}");
        }
    }
}
