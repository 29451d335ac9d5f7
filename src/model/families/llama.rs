//! Llama and the families that differ from it in a few options: pre-norm RMS blocks, rotary positions, gated MLP.

use super::{Family, activation, head_scale, heads, weight_prefix};
use crate::model::{
    architecture::{Architecture, Embedding, Layer, NormKind, Residual, Unembedding},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    rope::Rope,
    sources::{LayerSources, LinearSource, Sources},
};

/// Llama (also SmolLM and SmolLM2, TinyLlama, Vicuna, …).
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("rope_interleaved", false)?;
    config.value("is_llama_config");
    let attention_bias = config.flag_or("attention_bias", false)?;
    let mlp_bias = config.flag_or("mlp_bias", false)?;
    with_biases(config, checkpoint, [attention_bias; 4], mlp_bias)
}

/// A relative without biases.
pub fn plain(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    with_biases(config, checkpoint, [false; 4], false)
}

/// A relative with Llama's weight names; `biases` says which of query, key, value and output projection have one.
pub fn with_biases(
    config: &Config,
    checkpoint: &Checkpoint,
    biases: [bool; 4],
    mlp_bias: bool,
) -> Result<Family, LoadError> {
    let architecture = architecture(config, checkpoint)?;
    let prefix = weight_prefix(checkpoint, "model", "embed_tokens.weight");
    let blocks = format!("{prefix}layers.");
    let layer = move |l: usize| layer_sources(&format!("{blocks}{l}."), biases, mlp_bias);
    Ok(Family { architecture, sources: sources(&prefix, Box::new(layer)) })
}

/// What all relatives of Llama share. Options a relative changes are set on the result.
pub fn architecture(config: &Config, checkpoint: &Checkpoint) -> Result<Architecture, LoadError> {
    let d_model = config.count("hidden_size")?;
    let (n_heads, n_kv_heads, d_head) = heads(config, d_model)?;
    #[expect(clippy::cast_possible_truncation, reason = "the forward pass computes in float32")]
    let eps = config.number_or("rms_norm_eps", 1e-6)? as f32;
    let tied = config.flag_or("tie_word_embeddings", false)?;
    let rope = Rope::from_config(config, d_head, 10_000.0)?;
    let n_ctx = rope.context(config.count("max_position_embeddings")?);
    Ok(Architecture {
        model_type: config.text_or("model_type", "llama")?,
        d_model,
        n_heads,
        n_kv_heads,
        d_head,
        d_mlp: config.count("intermediate_size")?,
        d_vocab: config.count("vocab_size")?,
        n_ctx,
        embedding: Embedding::default(),
        norm: NormKind::Rms { eps, gain_offset: 0.0 },
        residual: Residual::Sequential,
        layers: vec![Layer::PRE_NORM; config.count("num_hidden_layers")?],
        ropes: vec![rope],
        rope_interleaved: false,
        qk_norm: None,
        attention_scale: head_scale(d_head),
        score_softcap: None,
        alibi_slopes: None,
        causal: true,
        activation: activation(config, "hidden_act", "silu")?,
        gated: true,
        residual_multiplier: None,
        final_norm: true,
        unembedding: unembedding(config, checkpoint, tied)?,
    })
}

/// The unembedding; none when the checkpoint is a base model without an LM head.
fn unembedding(config: &Config, checkpoint: &Checkpoint, tied: bool) -> Result<Option<Unembedding>, LoadError> {
    let architectures = config.texts_opt("architectures")?.unwrap_or_default();
    let base_only = !architectures.is_empty() && !architectures.iter().any(|a| a.contains("CausalLM"));
    let present = if tied { !base_only } else { !base_only || checkpoint.has("lm_head.weight") };
    Ok(present.then(|| Unembedding { tied, ..Unembedding::default() }))
}

/// Weight names outside the blocks.
pub fn sources(prefix: &str, layer: Box<dyn Fn(usize) -> LayerSources>) -> Sources {
    Sources {
        embed: format!("{prefix}embed_tokens.weight"),
        positions: None,
        embed_norm: None,
        final_norm: format!("{prefix}norm"),
        unembed: LinearSource::new("lm_head", false),
        layer,
    }
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
        ln2_post: format!("{block}post_feedforward_layernorm"),
    }
}
