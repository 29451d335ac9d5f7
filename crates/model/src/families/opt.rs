//! OPT: learned positions that start at the third row of their table, and ReLU. One size (350m) has an embedding with another
//! width than the residual stream, and norms after the sublayers instead of before.

use super::{Family, SizeKeys, activation, unembedding, weight_prefix};
use crate::{
    architecture::{Architecture, Embedding, LearnedPositions, NormKind, Residual},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, Sources},
};

const KEYS: SizeKeys = SizeKeys { neurons: &["ffn_dim"], ..SizeKeys::USUAL };

/// OPT.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let norm_before = config.flag("do_layer_norm_before")?;
    config.only("learned_embeddings", true)?;
    config.only("scale_embeddings", false)?;
    let without_final = config.flag("_remove_final_layer_norm")?;
    let affine = config.flag("layer_norm_elementwise_affine")?;
    let bias = config.flag("enable_bias")?;
    let tied = config.flag("tie_word_embeddings")?;
    let size = KEYS.read(config)?;
    let d_embed = config.count_opt("word_embed_proj_dim")?;
    let architecture = Architecture {
        embedding: Embedding {
            projected: d_embed.filter(|d| *d != size.d_model),
            positions: Some(LearnedPositions { offset: 2, padding: None }),
            ..Embedding::default()
        },
        norm: NormKind::Layer { eps: 1e-5, gain: affine, bias: affine },
        activation: activation(config, "activation_function", "relu")?,
        residual: if norm_before { Residual::Sequential } else { Residual::PostNorm },
        final_norm: norm_before && !without_final,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..Architecture::plain(size)
    };
    Ok(Family::new(architecture, sources(checkpoint, bias)))
}

fn sources(checkpoint: &Checkpoint, bias: bool) -> Sources {
    let base = weight_prefix(checkpoint, "model", "decoder.embed_tokens.weight") + "decoder.";
    let blocks = format!("{base}layers.");
    let layer = move |l| layer_sources(&format!("{blocks}{l}."), bias);
    Sources {
        project_in: LinearSource::new(format!("{base}project_in"), false),
        project_out: LinearSource::new(format!("{base}project_out"), false),
        positions: Some(format!("{base}embed_positions.weight")),
        ..Sources::new(format!("{base}embed_tokens.weight"), format!("{base}final_layer_norm"), layer)
    }
}

fn layer_sources(block: &str, bias: bool) -> LayerSources {
    let attention = |part: &str| LinearSource::new(format!("{block}self_attn.{part}_proj"), bias);
    let mlp = |part: &str| LinearSource::new(format!("{block}{part}"), bias);
    LayerSources {
        ln1: format!("{block}self_attn_layer_norm"),
        q: attention("q"),
        k: attention("k"),
        v: attention("v"),
        o: attention("out"),
        ln2: format!("{block}final_layer_norm"),
        gate: mlp("fc1"),
        down: mlp("fc2"),
        ..LayerSources::default()
    }
}
