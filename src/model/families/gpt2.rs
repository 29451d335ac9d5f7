//! GPT-2: learned positions, layer norms with biases, a plain MLP, weights stored `[in, out]`.

use super::{Family, activation, epsilon, head_scale, unembedding, weight_prefix};
use crate::model::{
    architecture::{Architecture, Embedding, Layer, LearnedPositions, NormKind, Residual},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, RowOrder, Sources},
};

/// GPT-2.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("scale_attn_weights", true)?;
    config.only("scale_attn_by_inverse_layer_idx", false)?;
    config.only("add_cross_attention", false)?;
    config.value("n_ctx");
    let (d_model, n_heads) = (config.count("n_embd")?, config.count("n_head")?);
    if !d_model.is_multiple_of(n_heads) {
        return Err(config.refuse("n_head", format!("is {n_heads}, which does not divide {d_model}")));
    }
    let d_head = d_model / n_heads;
    let tied = config.flag_or("tie_word_embeddings", true)?;
    let norm = NormKind::Layer { eps: epsilon(config, "layer_norm_epsilon", 1e-5)?, gain: true, bias: true };
    let architecture = Architecture {
        model_type: config.text_or("model_type", "gpt2")?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp: config.count_opt("n_inner")?.unwrap_or(4 * d_model),
        d_vocab: config.count("vocab_size")?,
        n_ctx: config.count("n_positions")?,
        embedding: Embedding { positions: Some(LearnedPositions { offset: 0, padding: None }), ..Embedding::default() },
        norm,
        residual: Residual::Sequential,
        layers: vec![Layer { rope: None, ..Layer::PRE_NORM }; config.count("n_layer")?],
        ropes: Vec::new(),
        rope_interleaved: false,
        qk_norm: None,
        qkv_clip: None,
        attention_scale: head_scale(d_head),
        score_softcap: None,
        alibi_slopes: None,
        causal: true,
        activation: activation(config, "activation_function", "gelu_new")?,
        gated: false,
        experts: None,
        residual_multiplier: None,
        final_norm: true,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
    };
    let prefix = weight_prefix(checkpoint, "transformer", "wte.weight");
    let blocks = format!("{prefix}h.");
    let sources = Sources {
        embed: format!("{prefix}wte.weight"),
        positions: Some(format!("{prefix}wpe.weight")),
        token_types: None,
        embed_norm: None,
        final_norm: format!("{prefix}ln_f"),
        transform: None,
        unembed: LinearSource::new("lm_head", false),
        layer: Box::new(move |l| layer_sources(&format!("{blocks}{l}."), d_model)),
    };
    Ok(Family { architecture, sources })
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
        up: None,
        down: linear("mlp.c_proj"),
        experts: None,
        q_norm: String::new(),
        k_norm: String::new(),
        ln1_post: String::new(),
        ln2_post: String::new(),
    }
}
