//! DistilBERT: BERT without token types, with names of its own. Sinusoidal positions are stored like learned ones.

use super::{
    Family,
    encoder::{self, MaskedHead, Spelling},
    weight_prefix,
};
use crate::model::{
    architecture::{LearnedPositions, NormKind},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, Sources},
};

const SPELLING: Spelling = Spelling {
    d_model: "dim",
    n_heads: "n_heads",
    d_mlp: "hidden_dim",
    n_layers: "n_layers",
    activation: "activation",
};

/// The epsilon of every norm, which the configuration does not say.
const EPS: f32 = 1e-12;

/// DistilBERT.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    for key in ["sinusoidal_pos_embds", "tie_weights_", "qa_dropout", "seq_classif_dropout"] {
        config.value(key);
    }
    let norm = NormKind::Layer { eps: EPS, gain: true, bias: true };
    let mut a = encoder::architecture(config, &SPELLING, norm)?;
    a.embedding.positions = Some(LearnedPositions { offset: 0, padding: None });
    let activation = a.activation;
    let prefix = weight_prefix(checkpoint, "distilbert", "embeddings.word_embeddings.weight");
    let embedding = |part: &str| format!("{prefix}embeddings.{part}");
    let blocks = format!("{prefix}transformer.layer.");
    let sources = Sources {
        embed: embedding("word_embeddings.weight"),
        positions: Some(embedding("position_embeddings.weight")),
        token_types: None,
        embed_norm: Some(embedding("LayerNorm")),
        final_norm: String::new(),
        transform: None,
        unembed: LinearSource::new("", false),
        layer: Box::new(move |l| layer_sources(&format!("{blocks}{l}."))),
    };
    let head = MaskedHead {
        dense: LinearSource::new("vocab_transform", true),
        norm: "vocab_layer_norm",
        decoder: "vocab_projector",
        biases: Some(["vocab_projector.bias"; 2]),
    };
    head.add_to(Family { architecture: a, sources }, config, checkpoint, activation)
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
        up: None,
        down: linear("ffn.lin2"),
        ln2: name("output_layer_norm"),
        q_norm: String::new(),
        k_norm: String::new(),
        ln1_post: String::new(),
        ln2_post: String::new(),
        experts: None,
    }
}
