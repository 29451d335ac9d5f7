//! What the families of masked language models share: bidirectional post-norm blocks, and the head that predicts masked tokens.

use super::{Family, activation, size::SizeKeys};
use crate::{
    architecture::{Architecture, Embedding, NormKind, Residual, Unembedding},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LinearSource, TransformSources},
};

/// An encoder with a norm after the embedding, post-norm blocks with a plain MLP, and no final norm. The family adds positions and
/// token types.
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

/// Where the weights of the head are.
pub struct MaskedHead {
    /// The projection before the unembedding.
    pub dense: LinearSource,
    /// The norm after that projection.
    pub norm: &'static str,
    /// The unembedding, unless it is tied.
    pub decoder: &'static str,
    /// The bias of the unembedding: its name when tied, and its name when not. A checkpoint may have either or both.
    pub biases: Option<[&'static str; 2]>,
}

impl MaskedHead {
    /// Adds the head to a family if the checkpoint has one: its weights are stored, or the configuration names its class.
    pub fn add_to(
        self,
        mut family: Family,
        config: &Config,
        checkpoint: &Checkpoint,
        activation: Activation,
    ) -> Result<Family, LoadError> {
        let tied = config.flag("tie_word_embeddings")?;
        let bias = match self.biases {
            None => None,
            // If the decoder's bias is stored, it is used. The two should be equal; if they are not, it is used all the same.
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
