//! What the encoders share: blocks that see the whole input, and the head that predicts masked tokens.

use super::{Family, activation, size::SizeKeys};
use crate::{
    architecture::{Architecture, Embedding, NormKind, Residual, Unembedding},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LinearSource, TransformSources},
};

/// Post-norm blocks with a plain MLP behind an embedding with a norm, no norm at the end. Positions and token types
/// are left to the family.
pub fn architecture(
    config: &Config,
    keys: &SizeKeys,
    activation_key: &str,
    norm: NormKind,
) -> Result<Architecture, LoadError> {
    config.only("is_decoder", false)?;
    config.only("add_cross_attention", false)?;
    let size = keys.read(config)?;
    Ok(Architecture {
        embedding: Embedding { norm: true, ..Embedding::default() },
        norm,
        residual: Residual::PostNorm,
        causal: false,
        activation: activation(config, activation_key, "gelu")?,
        final_norm: false,
        ..Architecture::plain(size)
    })
}

/// Where the head that predicts masked tokens keeps its weights.
pub struct MaskedHead {
    /// The projection in front.
    pub dense: LinearSource,
    /// The norm behind it.
    pub norm: &'static str,
    /// The unembedding, unless tied.
    pub decoder: &'static str,
    /// Its bias: the name it has when tied, then the one it has when not. A checkpoint may hold either or both.
    pub biases: Option<[&'static str; 2]>,
}

impl MaskedHead {
    /// Adds the head to a family if the checkpoint has it: the weights of its own are there, or the configuration
    /// names it.
    pub fn add_to(
        self,
        mut family: Family,
        config: &Config,
        checkpoint: &Checkpoint,
        activation: Activation,
    ) -> Result<Family, LoadError> {
        let tied = config.flag_or("tie_word_embeddings", true)?;
        let bias = match self.biases {
            None => None,
            // The decoder's own, where it is stored; a tied one differs from the other only by mistake, and then it counts.
            Some([when_tied, decoders]) if checkpoint.has(decoders) => {
                if when_tied != decoders && checkpoint.equal(when_tied, decoders)? {
                    checkpoint.mark_used(when_tied);
                }
                Some(decoders)
            }
            Some([when_tied, _]) if checkpoint.has(when_tied) || tied => Some(when_tied),
            Some([_, decoders]) => Some(decoders),
        };
        let architectures = config.texts_opt("architectures")?.unwrap_or_default();
        let named = architectures.iter().any(|a| a.ends_with("ForMaskedLM"));
        let decoder = LinearSource { bias: bias.map(str::to_owned), ..LinearSource::new(self.decoder, false) };
        if named || bias.is_some_and(|name| checkpoint.has(name)) || checkpoint.has(&decoder.weight) {
            family.architecture.unembedding =
                Some(Unembedding { tied, transform: Some(activation), ..Unembedding::default() });
            family.sources.unembed = decoder;
            family.sources.transform = Some(TransformSources { dense: self.dense, norm: self.norm.to_owned() });
        }
        Ok(family)
    }
}
