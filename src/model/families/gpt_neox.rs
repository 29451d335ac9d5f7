//! GPT-NeoX (Pythia): parallel residual with two norms, partial rotary positions, queries, keys and values of each head
//! stored together.

use super::{Family, activation, epsilon, head_scale, heads, unembedding, weight_prefix};
use crate::model::{
    architecture::{Architecture, Embedding, Layer, NormKind, Residual},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    rope::Rope,
    sources::{LayerSources, LinearSource, RowOrder, Sources},
};

/// GPT-NeoX.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let d_model = config.count("hidden_size")?;
    let (n_heads, n_kv_heads, d_head) = heads(config, d_model)?;
    if n_kv_heads != n_heads {
        return Err(config.refuse("num_key_value_heads", "is not understood for gpt_neox"));
    }
    let parallel = config.flag_or("use_parallel_residual", true)?;
    let bias = config.flag_or("attention_bias", true)?;
    let tied = config.flag_or("tie_word_embeddings", false)?;
    let rope = rope(config, d_head)?;
    let architecture = Architecture {
        model_type: config.text_or("model_type", "gpt_neox")?,
        d_model,
        n_heads,
        n_kv_heads,
        d_head,
        d_mlp: config.count("intermediate_size")?,
        d_vocab: config.count("vocab_size")?,
        n_ctx: rope.context(config.count("max_position_embeddings")?),
        embedding: Embedding::default(),
        norm: NormKind::Layer { eps: epsilon(config, "layer_norm_eps", 1e-5)?, gain: true, bias: true },
        residual: if parallel { Residual::Parallel } else { Residual::Sequential },
        layers: vec![Layer::PRE_NORM; config.count("num_hidden_layers")?],
        ropes: vec![rope],
        rope_interleaved: false,
        qk_norm: None,
        qkv_clip: None,
        attention_scale: head_scale(d_head),
        score_softcap: None,
        alibi_slopes: None,
        causal: true,
        activation: activation(config, "hidden_act", "gelu")?,
        gated: false,
        experts: None,
        residual_multiplier: None,
        final_norm: true,
        unembedding: unembedding(config, checkpoint, "embed_out", tied)?,
    };
    let prefix = weight_prefix(checkpoint, "gpt_neox", "embed_in.weight");
    let blocks = format!("{prefix}layers.");
    let sources = Sources {
        embed: format!("{prefix}embed_in.weight"),
        positions: None,
        token_types: None,
        embed_norm: None,
        final_norm: format!("{prefix}final_layer_norm"),
        transform: None,
        unembed: LinearSource::new("embed_out", false),
        layer: Box::new(move |l| layer_sources(&format!("{blocks}{l}."), d_model, d_head, bias)),
    };
    Ok(Family { architecture, sources })
}

/// The rope parameters, with this family's own names in the old spelling.
fn rope(config: &Config, d_head: usize) -> Result<Rope, LoadError> {
    let theta = config.number_or("rotary_emb_base", 10_000.0)?;
    let partial = config.number_or("rotary_pct", 0.25)?;
    let old = config.object_opt("rope_scaling")?;
    let new = config.object_opt("rope_parameters")?;
    Rope::from_parameters(config, old.or(new).as_ref(), d_head, theta, partial)
}

fn layer_sources(block: &str, d_model: usize, d_head: usize, bias: bool) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let mlp = |part: &str| LinearSource::new(name(part), true);
    let qkv = |i: usize| {
        let order = RowOrder::PerHead { d_head, period: 3 * d_head, first: i * d_head };
        LinearSource::new(name("attention.query_key_value"), bias).part(3 * d_model, order)
    };
    LayerSources {
        ln1: name("input_layernorm"),
        q: qkv(0),
        k: qkv(1),
        v: qkv(2),
        o: LinearSource::new(name("attention.dense"), bias),
        ln2: name("post_attention_layernorm"),
        gate: mlp("mlp.dense_h_to_4h"),
        up: None,
        down: mlp("mlp.dense_4h_to_h"),
        experts: None,
        q_norm: String::new(),
        k_norm: String::new(),
        ln1_post: String::new(),
        ln2_post: String::new(),
    }
}
