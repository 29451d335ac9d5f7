//! BERT and RoBERTa: post-norm encoders with learned positions and token types.

use super::{
    Family, epsilon,
    masked_lm::{self, MaskedHead},
    size::SizeKeys,
    weight_prefix,
};
use crate::{
    architecture::{Architecture, LearnedPositions, NormKind},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LayerSources, LinearSource, Sources},
};

/// BERT.
pub fn bert(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    for key in ["pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"] {
        config.value(key);
    }
    config.value("pooler_type");
    config.only("directionality", "bidi")?;
    let mut a = architecture(config)?;
    a.embedding.positions = Some(LearnedPositions { offset: 0, padding: None });
    let head = MaskedHead {
        dense: LinearSource::new("cls.predictions.transform.dense", true),
        norm: "cls.predictions.transform.LayerNorm",
        decoder: "cls.predictions.decoder",
        biases: Some(["cls.predictions.bias", "cls.predictions.decoder.bias"]),
    };
    let activation = a.activation;
    head.add_to(named(a, checkpoint, "bert"), config, checkpoint, activation)
}

/// RoBERTa: positions start after the row of the padding token, and padding tokens take no position.
pub fn roberta(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let mut a = architecture(config)?;
    let padding = config.index_or("pad_token_id", 1)?;
    let offset = padding as usize + 1;
    if a.n_ctx <= offset {
        return Err(config.refuse("max_position_embeddings", format!("is {}, no more than the padding takes", a.n_ctx)));
    }
    a.n_ctx -= offset;
    a.embedding.positions = Some(LearnedPositions { offset, padding: Some(padding) });
    let head = MaskedHead {
        dense: LinearSource::new("lm_head.dense", true),
        norm: "lm_head.layer_norm",
        decoder: "lm_head.decoder",
        biases: Some(["lm_head.bias", "lm_head.decoder.bias"]),
    };
    head.add_to(named(a, checkpoint, "roberta"), config, checkpoint, Activation::Gelu)
}

fn architecture(config: &Config) -> Result<Architecture, LoadError> {
    config.only("position_embedding_type", "absolute")?;
    let norm = NormKind::Layer { eps: epsilon(config, "layer_norm_eps", 1e-12)?, gain: true, bias: true };
    let mut a = masked_lm::architecture(config, &SizeKeys::USUAL, "hidden_act", norm)?;
    a.embedding.token_types = Some(config.count_opt("type_vocab_size")?.unwrap_or(2));
    Ok(a)
}

/// BERT's weight names; in checkpoints with a head, the name of the base model precedes them.
fn named(architecture: Architecture, checkpoint: &Checkpoint, base: &str) -> Family {
    let prefix = weight_prefix(checkpoint, base, "embeddings.word_embeddings.weight");
    let embedding = |part: &str| format!("{prefix}embeddings.{part}");
    let blocks = format!("{prefix}encoder.layer.");
    let layer = move |l| layer_sources(&format!("{blocks}{l}."));
    let sources = Sources {
        positions: Some(embedding("position_embeddings.weight")),
        token_types: Some(embedding("token_type_embeddings.weight")),
        embed_norm: Some(embedding("LayerNorm")),
        unembed: LinearSource::default(),
        ..Sources::new(embedding("word_embeddings.weight"), String::new(), layer)
    };
    Family::new(architecture, sources)
}

fn layer_sources(block: &str) -> LayerSources {
    let name = |part: &str| format!("{block}{part}");
    let linear = |part: &str| LinearSource::new(name(part), true);
    LayerSources {
        q: linear("attention.self.query"),
        k: linear("attention.self.key"),
        v: linear("attention.self.value"),
        o: linear("attention.output.dense"),
        ln1: name("attention.output.LayerNorm"),
        gate: linear("intermediate.dense"),
        down: linear("output.dense"),
        ln2: name("output.LayerNorm"),
        ..LayerSources::default()
    }
}
