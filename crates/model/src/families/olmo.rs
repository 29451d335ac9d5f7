//! OLMo (layer norms without gain and bias) and OLMo 2 (norms only after the sublayers, and QK-norm over all heads).

use super::{
    Family, clip,
    llama::{self, Defaults},
};
use crate::{
    architecture::{NormKind, QkNorm},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
};

/// OLMo.
pub fn olmo(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("attention_bias")?;
    let mut family = llama::with_biases(config, checkpoint, [bias; 4], false)?;
    family.architecture.norm = NormKind::Layer { eps: 1e-5, gain: false, bias: false };
    family.architecture.qkv_clip = clip(config)?;
    Ok(family)
}

/// OLMo 2.
pub fn olmo2(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("attention_bias")?;
    let mut a = llama::architecture(config, checkpoint, &Defaults { eps: 1e-5, ..Defaults::LLAMA })?;
    a.qk_norm = Some(QkNorm::AllHeads);
    for layer in &mut a.layers {
        (layer.ln1, layer.ln2) = (false, false);
        (layer.ln1_post, layer.ln2_post) = (true, true);
    }
    Ok(llama::named(a, checkpoint, move |block| llama::layer_sources(block, [bias; 4], false)))
}
