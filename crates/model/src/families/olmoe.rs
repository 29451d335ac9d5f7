//! OLMoE: QK-norm over all heads as in OLMo 2, a norm before each sublayer, and a mixture of experts in every block.

use super::{
    Family, clip, experts,
    llama::{self, Defaults},
};
use crate::{
    architecture::{Experts, QkNorm},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::LayerSources,
};

/// OLMoE.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("attention_bias")?;
    let mut a = llama::architecture(config, checkpoint, &Defaults { eps: 1e-5, ..Defaults::LLAMA })?;
    a.qk_norm = Some(QkNorm::AllHeads);
    a.qkv_clip = clip(config)?;
    let renormalise = config.flag("norm_topk_prob")?;
    let sizes = Experts { renormalise, ..experts::sizes(config, "intermediate_size")? };
    experts::install(&mut a, sizes, |_| true);
    Ok(llama::named(a, checkpoint, move |block| LayerSources {
        experts: Some(experts::sources(&format!("{block}mlp."), experts::PROJECTIONS)),
        ..llama::layer_sources(block, [bias; 4], false)
    }))
}
