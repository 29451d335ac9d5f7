//! Bloom: ALiBi, a norm after the embedding, and queries, keys and values of each head stored together.

use super::{Family, SizeKeys, layer_norm, transformer_sources, unembedding};
use crate::{
    architecture::{Architecture, Embedding, alibi::Alibi},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LayerSources, LinearSource},
};

const KEYS: SizeKeys = SizeKeys {
    width: &["hidden_size", "n_embed"],
    heads: &["n_head", "num_attention_heads"],
    layers: &["n_layer", "num_hidden_layers"],
    neurons: &["n_inner"],
    context: &["seq_length"],
    // The context length of the published sizes. ALiBi itself has no limit.
    default_context: Some(2048),
};

/// Keys about how the training code computed; none of them changes the result.
const OF_TRAINING: &[&str] = &[
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "offset_alibi",
    "skip_bias_add",
    "skip_bias_add_qkv",
    "slow_but_exact",
];

/// Bloom.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.ignore(OF_TRAINING);
    config.only("apply_residual_connection_post_layernorm", false)?;
    let tied = config.flag("tie_word_embeddings")?;
    let size = KEYS.read(config)?;
    let (n_heads, d_head) = (size.n_heads, size.d_head);
    let architecture = Architecture {
        embedding: Embedding { norm: true, ..Embedding::default() },
        norm: layer_norm(config, "layer_norm_epsilon")?,
        alibi: Some(Alibi { scale: 1.0, bfloat16: false }),
        activation: Activation::GeluTanh,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..Architecture::plain(size)
    };
    let layer = move |block: &str| layer_sources(block, n_heads, d_head);
    let mut sources = transformer_sources(checkpoint, "word_embeddings", layer);
    sources.embed_norm = Some(sources.embed.replace("embeddings.weight", "embeddings_layernorm"));
    Ok(Family::new(architecture, sources))
}

fn layer_sources(block: &str, n_heads: usize, d_head: usize) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let linear = |part: &str| LinearSource::new(name(part), true);
    let [q, k, v] = LinearSource::fused(&name("self_attention.query_key_value"), true, n_heads, n_heads, d_head);
    LayerSources {
        ln1: name("input_layernorm"),
        q,
        k,
        v,
        o: linear("self_attention.dense"),
        ln2: name("post_attention_layernorm"),
        gate: linear("mlp.dense_h_to_4h"),
        down: linear("mlp.dense_4h_to_h"),
        ..LayerSources::default()
    }
}
