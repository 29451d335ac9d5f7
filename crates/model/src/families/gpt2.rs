//! GPT-2: learned positions, layer norms with biases, a plain MLP, weights stored `[in, out]`.

use super::{Family, SizeKeys, activation, layer_norm, transformer_sources, unembedding};
use crate::{
    architecture::{Architecture, Embedding, LearnedPositions},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, RowOrder},
};

/// GPT-2.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("scale_attn_weights", true)?;
    config.only("scale_attn_by_inverse_layer_idx", false)?;
    config.only("add_cross_attention", false)?;
    config.ignore(&["n_ctx"]);
    let tied = config.flag("tie_word_embeddings")?;
    let size = SizeKeys::GPT2.read(config)?;
    let d_model = size.d_model;
    let architecture = Architecture {
        embedding: Embedding { positions: Some(LearnedPositions { offset: 0, padding: None }), ..Embedding::default() },
        norm: layer_norm(config, "layer_norm_epsilon")?,
        activation: activation(config, "activation_function", "gelu_new")?,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..Architecture::plain(size)
    };
    let mut sources = transformer_sources(checkpoint, "wte", move |block| layer_sources(block, d_model));
    sources.positions = Some(sources.embed.replace("wte", "wpe"));
    Ok(Family::new(architecture, sources))
}

fn layer_sources(block: &str, d: usize) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let linear = |part: &str| LinearSource::new(name(part), true).transposed();
    let qkv = |i: usize| linear("attn.c_attn").part(3 * d, RowOrder::From(i * d));
    LayerSources {
        ln1: name("ln_1"),
        q: qkv(0),
        k: qkv(1),
        v: qkv(2),
        o: linear("attn.c_proj"),
        ln2: name("ln_2"),
        gate: linear("mlp.c_fc"),
        down: linear("mlp.c_proj"),
        ..LayerSources::default()
    }
}
