//! Llama and the families that differ from it in a few options: pre-norm RMS blocks, rotary positions, gated MLP.

use super::{Family, activation, epsilon, heads, unembedding, weight_prefix};
use crate::{
    architecture::{Architecture, NormKind, Size, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, Sources},
};

/// Llama (also SmolLM and SmolLM2, TinyLlama, Vicuna, …).
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.ignore(&["is_llama_config"]);
    config.only("rope_interleaved", false)?;
    let attention_bias = config.flag("attention_bias")?;
    let mlp_bias = config.flag("mlp_bias")?;
    with_biases(config, checkpoint, [attention_bias; 4], mlp_bias)
}

/// A family like Llama, without biases.
pub fn plain(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    with_biases(config, checkpoint, [false; 4], false)
}

/// A family with Llama's weight names; `biases` says which of query, key, value and output projection have one.
pub fn with_biases(
    config: &Config,
    checkpoint: &Checkpoint,
    biases: [bool; 4],
    mlp_bias: bool,
) -> Result<Family, LoadError> {
    let architecture = architecture(config, checkpoint, &Defaults::LLAMA)?;
    Ok(named(architecture, checkpoint, move |block| layer_sources(block, biases, mlp_bias)))
}

/// A family from an architecture; `layer` gets the prefix of a block and names its weights.
pub fn named(
    architecture: Architecture,
    checkpoint: &Checkpoint,
    layer: impl Fn(&str) -> LayerSources + 'static,
) -> Family {
    let prefixes = BASES.iter().map(|base| weight_prefix(checkpoint, base, "embed_tokens.weight"));
    let prefix = prefixes.max_by_key(String::len).unwrap_or_default();
    let blocks = format!("{prefix}layers.");
    let layer = move |l| layer(&format!("{blocks}{l}."));
    let sources = Sources::new(format!("{prefix}embed_tokens.weight"), format!("{prefix}norm"), layer);
    Family::new(architecture, sources)
}

/// Possible prefixes of the names of the base model; the longer ones occur if it is the text part of a multimodal model.
const BASES: &[&str] = &["model", "model.language_model", "language_model.model", "language_model"];

/// Defaults of keys, and keys that differ between families.
pub struct Defaults {
    /// `rms_norm_eps`.
    pub eps: f64,
    /// The key of the activation.
    pub activation_key: &'static str,
    /// The activation.
    pub activation: &'static str,
    /// Reads the rotary embeddings, given the width of a head.
    pub ropes: fn(&Config, usize) -> Result<Vec<Rope>, LoadError>,
}

impl Defaults {
    /// Llama's.
    pub const LLAMA: Self = Self { eps: 1e-6, activation_key: "hidden_act", activation: "silu", ropes: one_rope };
}

fn one_rope(config: &Config, d_head: usize) -> Result<Vec<Rope>, LoadError> {
    Ok(vec![Rope::from_config(config, d_head, 1.0)?])
}

/// The architecture that the families like Llama share. A family changes what differs in the result.
pub fn architecture(config: &Config, checkpoint: &Checkpoint, defaults: &Defaults) -> Result<Architecture, LoadError> {
    let d_model = config.count("hidden_size")?;
    let (n_heads, n_kv_heads, d_head) = heads(config, d_model)?;
    let tied = config.flag("tie_word_embeddings")?;
    let ropes = (defaults.ropes)(config, d_head)?;
    let n_ctx = config.count("max_position_embeddings")?;
    let size = Size {
        model_type: config.text_or("model_type", "llama")?,
        d_model,
        n_heads,
        n_kv_heads,
        d_head,
        d_mlp: config.count("intermediate_size")?,
        d_vocab: config.count("vocab_size")?,
        n_ctx: ropes.iter().map(|r| r.context(n_ctx)).min().unwrap_or(n_ctx),
        n_layers: config.layers_of(&["num_hidden_layers"])?,
    };
    Ok(Architecture {
        norm: NormKind::Rms { eps: epsilon(config, "rms_norm_eps", defaults.eps)?, gain_offset: 0.0 },
        activation: activation(config, defaults.activation_key, defaults.activation)?,
        gated: true,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..Architecture::plain(size).with_ropes(ropes)
    })
}

/// Weight names of a block; `biases` says which of query, key, value and output projection have one.
pub fn layer_sources(block: &str, biases: [bool; 4], mlp_bias: bool) -> LayerSources {
    let attention = |name: &str, bias| LinearSource::new(format!("{block}self_attn.{name}_proj"), bias);
    let mlp = |name: &str| LinearSource::new(format!("{block}mlp.{name}_proj"), mlp_bias);
    LayerSources {
        ln1: format!("{block}input_layernorm"),
        q: attention("q", biases[0]),
        k: attention("k", biases[1]),
        v: attention("v", biases[2]),
        o: attention("o", biases[3]),
        q_norm: format!("{block}self_attn.q_norm"),
        k_norm: format!("{block}self_attn.k_norm"),
        ln1_post: format!("{block}post_attention_layernorm"),
        ln2: format!("{block}post_attention_layernorm"),
        gate: mlp("gate"),
        up: Some(mlp("up")),
        down: mlp("down"),
        experts: None,
        ln2_post: format!("{block}post_feedforward_layernorm"),
    }
}
