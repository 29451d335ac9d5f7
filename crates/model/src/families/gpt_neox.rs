//! GPT-NeoX (Pythia): parallel residual with two norms, partial rotary positions, queries, keys and values of each head
//! stored together.

use super::{Family, SizeKeys, activation, layer_norm, unembedding, weight_prefix};
use crate::{
    architecture::{Architecture, Residual, Size, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, Sources},
};

/// GPT-NeoX.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let size = SizeKeys::USUAL.read(config)?;
    let (n_heads, d_head) = (size.n_heads, size.d_head);
    let parallel = config.flag("use_parallel_residual")?;
    let bias = config.flag("attention_bias")?;
    let tied = config.flag("tie_word_embeddings")?;
    let rope = rope(config, d_head)?;
    let architecture = Architecture {
        norm: layer_norm(config, "layer_norm_eps")?,
        residual: if parallel { Residual::Parallel } else { Residual::Sequential },
        activation: activation(config, "hidden_act", "gelu")?,
        unembedding: unembedding(config, checkpoint, "embed_out", tied)?,
        ..Architecture::plain(Size { n_ctx: rope.context(size.n_ctx), ..size }).with_ropes(vec![rope])
    };
    let prefix = weight_prefix(checkpoint, "gpt_neox", "embed_in.weight");
    let blocks = format!("{prefix}layers.");
    let layer = move |l| layer_sources(&format!("{blocks}{l}."), n_heads, d_head, bias);
    let sources = Sources {
        unembed: LinearSource::new("embed_out", false),
        ..Sources::new(format!("{prefix}embed_in.weight"), format!("{prefix}final_layer_norm"), layer)
    };
    Ok(Family::new(architecture, sources))
}

/// The rope parameters; in the old spelling, this family has its own names.
fn rope(config: &Config, d_head: usize) -> Result<Rope, LoadError> {
    let theta = config.number_or("rotary_emb_base", 10_000.0)?;
    let partial = config.number_or("rotary_pct", 0.25)?;
    // The names of other families.
    config.unread(&["rope_theta", "partial_rotary_factor"]);
    let (old, new) = (config.rope_opt("rope_scaling")?, config.rope_opt("rope_parameters")?);
    Rope::from_parameters(config, old.or(new).as_ref(), d_head, theta, partial)
}

fn layer_sources(block: &str, n_heads: usize, d_head: usize, bias: bool) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let mlp = |part: &str| LinearSource::new(name(part), true);
    let [q, k, v] = LinearSource::fused(&name("attention.query_key_value"), bias, n_heads, n_heads, d_head);
    LayerSources {
        ln1: name("input_layernorm"),
        q,
        k,
        v,
        o: LinearSource::new(name("attention.dense"), bias),
        ln2: name("post_attention_layernorm"),
        gate: mlp("mlp.dense_h_to_4h"),
        down: mlp("mlp.dense_4h_to_h"),
        ..LayerSources::default()
    }
}
