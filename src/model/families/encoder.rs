//! What the encoders share: blocks that see the whole input, and the head that predicts masked tokens.

use super::{Family, activation, head_scale};
use crate::model::{
    architecture::{Architecture, Embedding, Layer, NormKind, Residual, Unembedding},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LinearSource, TransformSources},
};

/// How a family spells the sizes in its configuration.
pub struct Spelling {
    /// Width of the residual stream.
    pub d_model: &'static str,
    /// Attention heads.
    pub n_heads: &'static str,
    /// Neurons of the MLP.
    pub d_mlp: &'static str,
    /// Blocks.
    pub n_layers: &'static str,
    /// Activation of the MLP.
    pub activation: &'static str,
}

impl Spelling {
    /// BERT's.
    pub const BERT: Self = Self {
        d_model: "hidden_size",
        n_heads: "num_attention_heads",
        d_mlp: "intermediate_size",
        n_layers: "num_hidden_layers",
        activation: "hidden_act",
    };
}

/// Post-norm blocks with a plain MLP behind an embedding with a norm, no norm at the end. Positions and token types
/// are left to the family.
pub fn architecture(config: &Config, spelling: &Spelling, norm: NormKind) -> Result<Architecture, LoadError> {
    config.only("is_decoder", false)?;
    config.only("add_cross_attention", false)?;
    let (d_model, n_heads) = (config.count(spelling.d_model)?, config.count(spelling.n_heads)?);
    if !d_model.is_multiple_of(n_heads) {
        return Err(config.refuse(spelling.n_heads, format!("is {n_heads}, which does not divide {d_model}")));
    }
    let d_head = d_model / n_heads;
    Ok(Architecture {
        experts: None,
        qkv_clip: None,
        model_type: config.text_or("model_type", "bert")?,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp: config.count(spelling.d_mlp)?,
        d_vocab: config.count("vocab_size")?,
        n_ctx: config.count("max_position_embeddings")?,
        embedding: Embedding { norm: true, ..Embedding::default() },
        norm,
        residual: Residual::PostNorm,
        layers: vec![Layer { rope: None, ..Layer::PRE_NORM }; config.count(spelling.n_layers)?],
        ropes: Vec::new(),
        rope_interleaved: false,
        qk_norm: None,
        attention_scale: head_scale(d_head),
        score_softcap: None,
        alibi_slopes: None,
        causal: false,
        activation: activation(config, spelling.activation, "gelu")?,
        gated: false,
        residual_multiplier: None,
        final_norm: false,
        unembedding: None,
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
        let bias = self.biases.map(|[when_tied, when_not]| {
            let [name, other] = if tied { [when_tied, when_not] } else { [when_not, when_tied] };
            if checkpoint.has(other) && !checkpoint.has(name) { other } else { name }
        });
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
