//! A checkpoint's `config.json`, read so that nothing in it is overlooked.
//!
//! Every key a family reads is noted. [`Config::finish`] then refuses each key that nobody read, unless it is known
//! not to change numbers: a new option of a new checkpoint is an error with its name, not a silently wrong tensor.

use std::{cell::RefCell, collections::BTreeSet, path::Path};

use serde_json::{Map, Value};

use super::error::LoadError;

/// Keys of `config.json` that do not change what a forward pass computes.
const HARMLESS: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "activation_dropout",
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "embed_dropout",
    "embedding_dropout",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "init_std",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "layerdrop",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "model_type",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "reorder_and_upcast_attn",
    "resid_dropout",
    "residual_dropout",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
];

/// Most blocks of a model.
const MAX_LAYERS: usize = 10_000;

/// The keys of one JSON object and which of them have been understood.
#[derive(Debug)]
pub struct Config {
    /// The file, for messages.
    place: String,
    /// Path of this object inside the file (`rope_scaling.`), empty at the top.
    prefix: String,
    map: Map<String, Value>,
    seen: RefCell<BTreeSet<String>>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When the file cannot be read or is not a JSON object.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read(path).map_err(|e| LoadError::file(path, e))?;
        match serde_json::from_slice(&text) {
            Ok(Value::Object(map)) => Ok(Self::new(path.display().to_string(), map)),
            Ok(_) => Err(LoadError::file(path, "is not a JSON object")),
            Err(e) => Err(LoadError::file(path, e)),
        }
    }

    /// A configuration that was put together from somewhere else; `place` is what messages name.
    pub fn new(place: impl Into<String>, map: Map<String, Value>) -> Self {
        Self { place: place.into(), prefix: String::new(), map, seen: RefCell::default() }
    }

    /// An error about `key`.
    pub fn refuse(&self, key: &str, reason: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.place.clone(), format!("`{}{key}` {reason}", self.prefix))
    }

    /// An error about the file as a whole.
    pub fn error(&self, reason: impl std::fmt::Display) -> LoadError {
        LoadError::new(self.place.clone(), reason)
    }

    /// The value of `key`; null counts as absent.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.seen.borrow_mut().insert(key.to_owned());
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        get: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        get(value).map(Some).ok_or_else(|| {
            let shown: String = value.to_string().chars().take(60).collect();
            self.refuse(key, format!("is {shown}, not {expected}"))
        })
    }

    /// A count, if the key is there. Counts are positive and small enough that products of a few do not overflow.
    pub fn count_opt(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let get = |v: &Value| v.as_u64().filter(|n| (1..1 << 31).contains(n)).and_then(|n| usize::try_from(n).ok());
        self.typed(key, "a positive integer", get)
    }

    /// A count that must be there.
    pub fn count(&self, key: &str) -> Result<usize, LoadError> {
        self.count_opt(key)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// An index into the vocabulary, or `default` where the key is absent.
    pub fn index_or(&self, key: &str, default: u32) -> Result<u32, LoadError> {
        let get = |v: &Value| v.as_u64().filter(|n| *n < 1 << 31).and_then(|n| u32::try_from(n).ok());
        Ok(self.typed(key, "an index", get)?.unwrap_or(default))
    }

    /// A count that is spelled in one of several ways, if it is there. Where several are, they must agree.
    pub fn count_opt_of(&self, keys: &[&str]) -> Result<Option<usize>, LoadError> {
        let mut found: Option<(&str, usize)> = None;
        for key in keys {
            match (self.count_opt(key)?, found) {
                (Some(n), None) => found = Some((key, n)),
                (Some(n), Some((first, m))) if n != m => {
                    return Err(self.refuse(key, format!("is {n}, but `{first}` is {m}")));
                }
                _ => {}
            }
        }
        Ok(found.map(|(_, n)| n))
    }

    /// A count that must be there in one of several spellings; messages use the first.
    pub fn count_of(&self, keys: &[&str]) -> Result<usize, LoadError> {
        self.count_opt_of(keys)?.ok_or_else(|| self.refuse(keys[0], "is missing"))
    }

    /// The number of blocks, which must be there in one of several spellings. It is bounded: a description of each block
    /// is made before the first weight is looked for.
    pub fn layers_of(&self, keys: &[&str]) -> Result<usize, LoadError> {
        let n = self.count_of(keys)?;
        if n > MAX_LAYERS {
            return Err(self.refuse(keys[0], format!("is {n}; at most {MAX_LAYERS} layers are understood")));
        }
        Ok(n)
    }

    /// A finite number, if the key is there.
    pub fn number_opt(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", |v| v.as_f64().filter(|n| n.is_finite()))
    }

    /// A number, or `default` where the key is absent.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, LoadError> {
        Ok(self.number_opt(key)?.unwrap_or(default))
    }

    /// A number that must be there.
    pub fn number(&self, key: &str) -> Result<f64, LoadError> {
        self.number_opt(key)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// A list of numbers that must be there.
    pub fn numbers(&self, key: &str) -> Result<Vec<f64>, LoadError> {
        let get = |v: &Value| v.as_array()?.iter().map(Value::as_f64).collect();
        self.typed(key, "a list of numbers", get)?.ok_or_else(|| self.refuse(key, "is missing"))
    }

    /// A truth value, or `default` where the key is absent.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A string, if the key is there.
    pub fn text_opt(&self, key: &str) -> Result<Option<String>, LoadError> {
        self.typed(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// A string, or `default` where the key is absent.
    pub fn text_or(&self, key: &str, default: &str) -> Result<String, LoadError> {
        Ok(self.text_opt(key)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A list of strings, if the key is there.
    pub fn texts_opt(&self, key: &str) -> Result<Option<Vec<String>>, LoadError> {
        let get = |v: &Value| v.as_array()?.iter().map(|s| s.as_str().map(str::to_owned)).collect();
        self.typed(key, "a list of strings", get)
    }

    /// An object inside this one, if the key is there. Its own [`Config::finish`] must be called too.
    pub fn object_opt(&self, key: &str) -> Result<Option<Self>, LoadError> {
        let map = self.typed(key, "an object", |v| v.as_object().cloned())?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(map.map(|map| Self { place: self.place.clone(), prefix, map, seen: RefCell::default() }))
    }

    /// Notes keys that are known not to change what this family computes.
    pub fn ignore(&self, keys: &[&str]) {
        self.seen.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Gives a key that the file leaves out its default.
    pub fn with_default(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.map.entry(key).or_insert_with(|| value.into());
        self
    }

    /// Whether `key` is there, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Accepts `key` only when absent or equal to `value`: an option whose other settings are not implemented.
    pub fn only(&self, key: &str, value: impl Into<Value>) -> Result<(), LoadError> {
        let value = value.into();
        match self.value(key) {
            Some(v) if *v != value => {
                let shown: String = v.to_string().chars().take(60).collect();
                Err(self.refuse(key, format!("is {shown}; only {value} is understood")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a key that nobody has read and that is not known to be harmless.
    pub fn finish(&self) -> Result<(), LoadError> {
        let seen = self.seen.borrow();
        let unknown = |k: &&String| !seen.contains(k.as_str()) && !HARMLESS.contains(&k.as_str());
        match self.map.iter().find(|(k, v)| unknown(k) && !v.is_null()) {
            Some((k, _)) => Err(self.refuse(k, "is not understood and might change what the model computes")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: Value) -> Config {
        Config::new("config.json", json.as_object().unwrap().clone())
    }

    #[test]
    fn keys_nobody_read_are_refused_by_name() {
        let c = config(serde_json::json!({"hidden_size": 4, "use_cache": true, "new_trick": 1, "off": null}));
        assert_eq!(c.count("hidden_size"), Ok(4));
        let error = c.finish().unwrap_err().to_string();
        assert!(error.starts_with("config.json: `new_trick` is not understood"), "{error}");
        assert!(c.value("new_trick").is_some());
        assert_eq!(c.finish(), Ok(()));
    }

    #[test]
    fn nested_keys_are_named_with_their_path() {
        let c = config(serde_json::json!({"rope": {"factor": "x"}}));
        let rope = c.object_opt("rope").unwrap().unwrap();
        assert_eq!(rope.number("factor").unwrap_err().to_string(), "config.json: `rope.factor` is \"x\", not a number");
        assert_eq!(rope.number("base").unwrap_err().to_string(), "config.json: `rope.base` is missing");
    }

    #[test]
    fn spellings_of_a_count_must_agree() {
        let c = config(serde_json::json!({"n_head": 4, "num_heads": 4, "heads": 8, "none": null}));
        assert_eq!(c.count_of(&["none", "num_heads", "n_head"]), Ok(4));
        assert_eq!(c.count_opt_of(&["none", "nowhere"]), Ok(None));
        let error = c.count_of(&["n_head", "heads"]).unwrap_err().to_string();
        assert_eq!(error, "config.json: `heads` is 8, but `n_head` is 4");
        assert_eq!(c.count_of(&["none"]).unwrap_err().to_string(), "config.json: `none` is missing");
    }

    #[test]
    fn impossible_counts_are_refused() {
        for v in [serde_json::json!(0), serde_json::json!(-1), serde_json::json!(1u64 << 40), serde_json::json!(1.5)] {
            assert!(config(serde_json::json!({ "n": v })).count("n").is_err());
        }
    }
}
