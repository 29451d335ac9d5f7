//! ModernBERT: a pre-norm encoder with rotary positions and gated MLPs. Most blocks see a window on both sides; some see the whole
//! input. The first block has no norm before attention, since a norm follows the embedding.

use super::{
    Family, activation, epsilon, layer_windows,
    masked_lm::{self, MaskedHead},
    ropes_by_kind,
    size::SizeKeys,
    weight_prefix,
};
use crate::{
    architecture::{Architecture, NormKind, Residual},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, RowOrder, Sources},
};

/// Keys about training and other heads, and two keys of early releases that have no effect.
const WITHOUT_EFFECT: &[&str] = &[
    "classifier_pooling",
    "cls_token_id",
    "deterministic_flash_attn",
    "initializer_cutoff_factor",
    "layer_norm_eps",
    "mlp_dropout",
    "position_embedding_type",
    "reference_compile",
    "repad_logits_with_grad",
    "sparse_pred_ignore_index",
    "sparse_prediction",
];

/// ModernBERT.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    for key in WITHOUT_EFFECT {
        config.value(key);
    }
    let architecture = architecture(config)?;
    let biases = Biases { attention: config.flag("attention_bias")?, mlp: config.flag("mlp_bias")? };
    let (d_model, d_mlp) = (architecture.d_model, architecture.d_mlp);
    let prefix = weight_prefix(checkpoint, "model", "embeddings.tok_embeddings.weight");
    let blocks = format!("{prefix}layers.");
    let layer = move |l| layer_sources(&format!("{blocks}{l}."), d_model, d_mlp, biases);
    let sources = Sources {
        embed_norm: Some(format!("{prefix}embeddings.norm")),
        unembed: LinearSource::default(),
        ..Sources::new(format!("{prefix}embeddings.tok_embeddings.weight"), format!("{prefix}final_norm"), layer)
    };
    let head = MaskedHead {
        dense: LinearSource::new("head.dense", config.flag("classifier_bias")?),
        norm: "head.norm",
        decoder: "decoder",
        biases: config.flag("decoder_bias")?.then_some(["decoder.bias"; 2]),
    };
    let activation = activation(config, "classifier_activation", "gelu")?;
    head.add_to(Family::new(architecture, sources), config, checkpoint, activation)
}

fn architecture(config: &Config) -> Result<Architecture, LoadError> {
    let bias = config.flag("norm_bias")?;
    let norm = NormKind::Layer { eps: epsilon(config, "norm_eps", 1e-5)?, gain: true, bias };
    let mut a = masked_lm::architecture(config, &SizeKeys::USUAL, "hidden_activation", norm)?;
    (a.residual, a.gated, a.final_norm) = (Residual::Sequential, true, true);
    let scaling = config.rope_opt("rope_scaling")?;
    a.ropes = ropes_by_kind(config, a.d_head, ["global_rope_theta", "local_rope_theta"], [scaling.as_ref(); 2])?;
    // The window is on both sides: half of it before a token and half after it.
    let window = config.count_opt("local_attention")?.unwrap_or(128);
    let period = config.count_opt("global_attn_every_n_layers")?.unwrap_or(3);
    let windows = layer_windows(config, a.layers.len(), Some(window), |l| !l.is_multiple_of(period))?;
    for (l, (layer, window)) in a.layers.iter_mut().zip(windows).enumerate() {
        (layer.ln1, layer.window, layer.rope) = (l > 0, window, Some(usize::from(window.is_some())));
    }
    Ok(a)
}

/// Which projections of a block have a bias.
#[derive(Clone, Copy)]
struct Biases {
    attention: bool,
    mlp: bool,
}

fn layer_sources(block: &str, d_model: usize, d_mlp: usize, biases: Biases) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let part = |of: &str, bias, rows, first| LinearSource::new(name(of), bias).part(rows, RowOrder::From(first));
    let qkv = |i: usize| part("attn.Wqkv", biases.attention, 3 * d_model, i * d_model);
    let gate_up = |i: usize| part("mlp.Wi", biases.mlp, 2 * d_mlp, i * d_mlp);
    LayerSources {
        ln1: name("attn_norm"),
        q: qkv(0),
        k: qkv(1),
        v: qkv(2),
        o: LinearSource::new(name("attn.Wo"), biases.attention),
        ln2: name("mlp_norm"),
        gate: gate_up(0),
        up: Some(gate_up(1)),
        down: LinearSource::new(name("mlp.Wo"), biases.mlp),
        ..LayerSources::default()
    }
}
