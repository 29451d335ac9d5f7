//! Falcon, with three kinds of blocks: parallel after one norm, with one key/value head (7B); parallel after one or two norms, with
//! grouped keys and values (40B, 11B); and sequential with ALiBi (RW).

use super::{Family, SizeKeys, activation, layer_norm, transformer_sources, unembedding};
use crate::{
    architecture::{Architecture, Residual, Size, alibi::Alibi, head_scale, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource},
};

const KEYS: SizeKeys = SizeKeys {
    width: &["hidden_size", "n_embed"],
    heads: &["num_attention_heads", "n_head"],
    layers: &["num_hidden_layers", "n_layer"],
    neurons: &["ffn_hidden_size"],
    default_context: Some(2048),
    ..SizeKeys::USUAL
};

/// The options that decide the kind of block.
#[derive(Clone, Copy)]
struct Kind {
    n_kv_heads: usize,
    parallel: bool,
    /// Whether attention and MLP, in parallel, have a norm each.
    two_norms: bool,
}

/// Falcon.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("apply_residual_connection_post_layernorm", false)?;
    let bias = config.flag("bias")?;
    let tied = config.flag("tie_word_embeddings")?;
    let size = KEYS.read(config)?;
    config.only("ff_factor", size.d_mlp / size.d_model)?;
    let kind = kind(config, size.n_heads)?;
    let size = Size { n_kv_heads: kind.n_kv_heads, ..size };
    let (n_heads, d_head) = (size.n_heads, size.d_head);
    let mut architecture = Architecture {
        norm: layer_norm(config, "layer_norm_epsilon")?,
        residual: if kind.parallel { Residual::Parallel } else { Residual::Sequential },
        activation: activation(config, "activation", "gelu")?,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..positions(config, size)?
    };
    architecture.layers.iter_mut().for_each(|layer| layer.ln2 = !kind.parallel || kind.two_norms);
    let layer = move |block: &str| layer_sources(block, kind, bias, n_heads, d_head);
    Ok(Family::new(architecture, transformer_sources(checkpoint, "word_embeddings", layer)))
}

fn kind(config: &Config, n_heads: usize) -> Result<Kind, LoadError> {
    let n_kv_heads = config.count_opt_of(&["num_kv_heads", "n_head_kv"])?;
    let multi_query = config.flag("multi_query")?;
    if config.flag("new_decoder_architecture")? {
        config.only("parallel_attn", true)?;
        let n_kv_heads = n_kv_heads.unwrap_or(n_heads);
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(config.refuse("num_kv_heads", format!("is {n_kv_heads}, which does not divide {n_heads}")));
        }
        let two_norms = match config.count_opt("num_ln_in_parallel_attn")?.unwrap_or(2) {
            1 => false,
            2 => true,
            n => return Err(config.refuse("num_ln_in_parallel_attn", format!("is {n}, not 1 or 2"))),
        };
        return Ok(Kind { n_kv_heads, parallel: true, two_norms });
    }
    config.only("num_ln_in_parallel_attn", 1)?;
    if !multi_query && n_kv_heads.is_some_and(|n| n != n_heads) {
        return Err(config.refuse("num_kv_heads", format!("is not {n_heads}, the number of heads")));
    }
    // With `multi_query` the older blocks have one key/value head, whatever `num_kv_heads` says.
    let n_kv_heads = if multi_query { 1 } else { n_heads };
    Ok(Kind { n_kv_heads, parallel: config.flag("parallel_attn")?, two_norms: false })
}

/// Rotary positions, or biases that are added before the scores are scaled.
fn positions(config: &Config, size: Size) -> Result<Architecture, LoadError> {
    let rope = Rope::from_config(config, size.d_head, 1.0)?;
    if config.flag("alibi")? {
        let alibi = Alibi { scale: head_scale(size.d_head), bfloat16: true };
        return Ok(Architecture { alibi: Some(alibi), ..Architecture::plain(size) });
    }
    let n_ctx = rope.context(size.n_ctx);
    Ok(Architecture::plain(Size { n_ctx, ..size }).with_ropes(vec![rope]))
}

fn layer_sources(block: &str, kind: Kind, bias: bool, n_heads: usize, d_head: usize) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let linear = |part: &str| LinearSource::new(name(part), bias);
    let [q, k, v] =
        LinearSource::fused(&name("self_attention.query_key_value"), bias, n_heads, kind.n_kv_heads, d_head);
    let (ln1, ln2) =
        if kind.two_norms { ("ln_attn", "ln_mlp") } else { ("input_layernorm", "post_attention_layernorm") };
    LayerSources {
        ln1: name(ln1),
        q,
        k,
        v,
        o: linear("self_attention.dense"),
        ln2: name(ln2),
        gate: linear("mlp.dense_h_to_4h"),
        down: linear("mlp.dense_4h_to_h"),
        ..LayerSources::default()
    }
}
