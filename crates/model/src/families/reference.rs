//! The fields and defaults of transformers' configuration classes: `reference.json`, written by `scripts/make_config_reference.py`.
//!
//! A key that a configuration does not have gets the default of its family's class. A key that neither the class nor other code of
//! transformers reads cannot change what the reference computes.

use std::{collections::HashMap, sync::OnceLock};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Keys that do not change what a forward pass computes: fields of many classes about training, other heads or the form of outputs,
/// and notes of other tools in `config.json`.
const WITHOUT_EFFECT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "activation_dropout",
    "add_cross_attention",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "dropout",
    "embd_pdrop",
    "embed_dropout",
    "embedding_dropout",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "init_std",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "layerdrop",
    "max_new_tokens",
    "model_type",
    "name_or_path",
    "output_attentions",
    "output_router_logits",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "pruned_heads",
    "reorder_and_upcast_attn",
    "resid_dropout",
    "residual_dropout",
    "resid_pdrop",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_flash_attn",
];

/// The content of the file.
#[derive(Debug, Deserialize)]
struct Reference {
    /// Version of transformers.
    transformers: String,
    /// Fields that every configuration class has.
    base: Vec<String>,
    /// Parameters of text generation, which transformers removes from a configuration before anything reads it.
    generation: Vec<String>,
    /// Keys that transformers reads although no class declares them.
    read_by_name: Vec<String>,
    families: HashMap<String, FamilyReference>,
}

/// The configuration class of one family.
#[derive(Debug, Deserialize)]
pub struct FamilyReference {
    /// Its name.
    pub class: String,
    /// Its fields with their defaults; null means that there is no default.
    fields: Map<String, Value>,
    /// Other spellings of fields.
    #[serde(default)]
    aliases: HashMap<String, String>,
    /// Default base of the rotary frequencies: a number, or one for each kind of layer.
    #[serde(default)]
    default_theta: Value,
    /// Keys that rope parameters are taken from.
    #[serde(default)]
    rope_keys: Vec<String>,
    /// Whether the family's own code rotates a part of each head.
    #[serde(default)]
    pub partial_rotary: bool,
}

impl FamilyReference {
    /// The family of this `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Self> {
        reference().families.get(model_type)
    }

    /// The class's default for `key`; `None` if it does not declare the key or has no default.
    pub fn default_of(&self, key: &str) -> Option<&Value> {
        let declared = self.fields.get(key);
        // A default may be declared under the other spelling.
        let aliased = || self.aliases.iter().find(|(_, to)| *to == key).and_then(|(alias, _)| self.fields.get(alias));
        declared.or_else(aliased).filter(|v| !v.is_null())
    }

    /// Whether the class declares `key` under this name.
    pub fn declares(&self, key: &str) -> bool {
        self.fields.contains_key(key) || self.aliases.contains_key(key)
    }

    /// Other spellings of keys, with the spelling that families read.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases.iter().map(|(alias, to)| (alias.as_str(), to.as_str()))
    }

    /// Default base of the rotary frequencies, for this kind of layers (`global`, `local`) if they differ.
    pub fn theta(&self, kind: Option<&str>) -> Option<f64> {
        match kind {
            None => self.default_theta.as_f64(),
            Some(kind) => self.default_theta.get(kind)?.as_f64(),
        }
    }

    /// Whether transformers reads a key although the class does not declare it.
    pub fn reads_by_name(&self, key: &str) -> bool {
        if key == "partial_rotary_factor" {
            return self.partial_rotary;
        }
        reference().read_by_name.iter().chain(&self.rope_keys).any(|name| name == key)
    }
}

/// Whether `key` has no effect on what a forward pass computes, in any family. It needs no warning.
pub fn is_without_effect(key: &str) -> bool {
    let Reference { base, generation, .. } = reference();
    WITHOUT_EFFECT.contains(&key) || base.iter().chain(generation).any(|name| name == key)
}

/// The version of transformers that the file was made from.
pub fn version() -> &'static str {
    &reference().transformers
}

#[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| serde_json::from_str(include_str!("reference.json")).expect("reference.json is readable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_found_under_both_spellings() {
        let gpt2 = FamilyReference::of("gpt2").unwrap();
        assert_eq!(gpt2.default_of("n_embd"), Some(&Value::from(768)));
        assert_eq!(gpt2.default_of("n_inner"), None);
        assert!(gpt2.declares("n_inner") && gpt2.declares("hidden_size") && !gpt2.declares("n_special"));
        // The class declares `num_experts` and makes it an alias.
        let qwen = FamilyReference::of("qwen3_moe").unwrap();
        assert_eq!(qwen.default_of("num_local_experts"), Some(&Value::from(128)));
    }

    /// `Config::flag` is false where the class declares nothing, so a flag that is true by default has to be declared.
    #[test]
    fn flags_that_are_true_by_default_are_declared() {
        for (model_type, keys) in [
            ("bert", &["tie_word_embeddings"][..]),
            ("bloom", &["tie_word_embeddings"]),
            ("distilbert", &["tie_word_embeddings"]),
            ("falcon", &["tie_word_embeddings", "multi_query", "parallel_attn"]),
            ("gemma", &["tie_word_embeddings"]),
            ("gemma2", &["tie_word_embeddings"]),
            ("gemma3", &["tie_word_embeddings"]),
            ("gemma3_text", &["tie_word_embeddings"]),
            ("gpt2", &["tie_word_embeddings"]),
            ("gpt_neo", &["tie_word_embeddings"]),
            ("gpt_neox", &["use_parallel_residual", "attention_bias"]),
            ("modernbert", &["tie_word_embeddings", "decoder_bias"]),
            ("opt", &["tie_word_embeddings", "do_layer_norm_before", "layer_norm_elementwise_affine", "enable_bias"]),
            ("qwen2_moe", &["qkv_bias"]),
            ("roberta", &["tie_word_embeddings"]),
            ("smollm3", &["tie_word_embeddings"]),
            ("starcoder2", &["tie_word_embeddings", "use_bias"]),
        ] {
            let reference = FamilyReference::of(model_type).unwrap();
            for key in keys {
                assert_eq!(reference.default_of(key), Some(&Value::Bool(true)), "{model_type} {key}");
            }
        }
    }

    #[test]
    fn names_read_without_a_declaration() {
        let [gpt2, llama, phi] = ["gpt2", "llama", "phi"].map(|name| FamilyReference::of(name).unwrap());
        assert!(llama.reads_by_name("sliding_window") && llama.reads_by_name("rope_theta"));
        assert!(!gpt2.reads_by_name("rope_theta") && !llama.reads_by_name("rope_local_base_freq"));
        assert!(phi.reads_by_name("partial_rotary_factor") && !llama.reads_by_name("partial_rotary_factor"));
    }

    #[test]
    fn bases_of_rotary_frequencies() {
        assert_eq!(FamilyReference::of("smollm3").unwrap().theta(None), Some(2e6));
        assert_eq!(FamilyReference::of("gemma3_text").unwrap().theta(Some("local")), Some(1e4));
        assert!(version().starts_with("5."));
    }
}
