//! DistilBERT: BERT without token types and with other names. Sinusoidal positions are stored like learned ones.

use super::{
    Family,
    masked_lm::{self, MaskedHead},
    size::SizeKeys,
    weight_prefix,
};
use crate::{
    architecture::{LearnedPositions, NormKind},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, Sources},
};

/// DistilBERT's own names for the sizes.
const KEYS: SizeKeys = SizeKeys {
    width: &["dim"],
    heads: &["n_heads"],
    layers: &["n_layers"],
    neurons: &["hidden_dim"],
    ..SizeKeys::USUAL
};

/// The epsilon of every norm; it is not part of the configuration.
const EPS: f32 = 1e-12;

/// DistilBERT.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    for key in ["sinusoidal_pos_embds", "tie_weights_", "qa_dropout", "seq_classif_dropout"] {
        config.value(key);
    }
    let norm = NormKind::Layer { eps: EPS, gain: true, bias: true };
    let mut a = masked_lm::architecture(config, &KEYS, "activation", norm)?;
    a.embedding.positions = Some(LearnedPositions { offset: 0, padding: None });
    let activation = a.activation;
    let prefix = weight_prefix(checkpoint, "distilbert", "embeddings.word_embeddings.weight");
    let embedding = |part: &str| format!("{prefix}embeddings.{part}");
    let blocks = format!("{prefix}transformer.layer.");
    let layer = move |l| layer_sources(&format!("{blocks}{l}."));
    let sources = Sources {
        positions: Some(embedding("position_embeddings.weight")),
        embed_norm: Some(embedding("LayerNorm")),
        unembed: LinearSource::default(),
        ..Sources::new(embedding("word_embeddings.weight"), String::new(), layer)
    };
    let head = MaskedHead {
        dense: LinearSource::new("vocab_transform", true),
        norm: "vocab_layer_norm",
        decoder: "vocab_projector",
        biases: Some(["vocab_projector.bias"; 2]),
    };
    head.add_to(Family::new(a, sources), config, checkpoint, activation)
}

fn layer_sources(block: &str) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let linear = |part: &str| LinearSource::new(name(part), true);
    LayerSources {
        q: linear("attention.q_lin"),
        k: linear("attention.k_lin"),
        v: linear("attention.v_lin"),
        o: linear("attention.out_lin"),
        ln1: name("sa_layer_norm"),
        gate: linear("ffn.lin1"),
        down: linear("ffn.lin2"),
        ln2: name("output_layer_norm"),
        ..LayerSources::default()
    }
}
