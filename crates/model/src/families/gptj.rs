//! GPT-J: attention and MLP in parallel after one layer norm, interleaved rotary positions in a part of each head, and an
//! unembedding with a bias.

use super::{Family, SizeKeys, activation, layer_norm, transformer_sources, unembedding};
use crate::{
    architecture::{Architecture, Residual, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource},
};

/// GPT-J.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("rotary", true)?;
    config.only("scale_attn_weights", true)?;
    config.ignore(&["n_ctx"]);
    let tied = config.flag("tie_word_embeddings")?;
    let size = SizeKeys::GPT2.read(config)?;
    let rope = rope(config, size.d_head)?;
    let mut architecture = Architecture {
        norm: layer_norm(config, "layer_norm_epsilon")?,
        residual: Residual::Parallel,
        rope_interleaved: true,
        activation: activation(config, "activation_function", "gelu_new")?,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..Architecture::plain(size).with_ropes(vec![rope])
    };
    architecture.layers.iter_mut().for_each(|layer| layer.ln2 = false);
    let mut sources = transformer_sources(checkpoint, "wte", layer_sources);
    sources.unembed = LinearSource::new("lm_head", true);
    Ok(Family::new(architecture, sources))
}

/// The first `rotary_dim` dimensions of each head are rotated.
fn rope(config: &Config, d_head: usize) -> Result<Rope, LoadError> {
    let dim = config.count_opt("rotary_dim")?.unwrap_or(64);
    if dim > d_head || !dim.is_multiple_of(2) {
        return Err(config.refuse("rotary_dim", format!("is {dim}, not an even number up to {d_head}")));
    }
    Ok(Rope::of_dimensions(10_000.0, dim))
}

fn layer_sources(block: &str) -> LayerSources {
    let attention = |part: &str| LinearSource::new(format!("{block}attn.{part}_proj"), false);
    let mlp = |part: &str| LinearSource::new(format!("{block}mlp.{part}"), true);
    LayerSources {
        ln1: format!("{block}ln_1"),
        q: attention("q"),
        k: attention("k"),
        v: attention("v"),
        o: attention("out"),
        gate: mlp("fc_in"),
        down: mlp("fc_out"),
        ..LayerSources::default()
    }
}
