//! StableLM: Llama with layer norms, partial rotary positions, and a parallel residual in some sizes.

use super::{
    Family, layer_norm,
    llama::{self, Defaults},
};
use crate::{
    architecture::{Residual, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
};

/// StableLM.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("qk_layernorm", false)?;
    let bias = config.flag("use_qkv_bias")?;
    let mut a = llama::architecture(config, checkpoint, &Defaults { ropes: quarter_rope, ..Defaults::LLAMA })?;
    a.norm = layer_norm(config, "layer_norm_eps")?;
    if config.flag("use_parallel_residual")? {
        a.residual = Residual::Parallel;
        a.layers.iter_mut().for_each(|l| l.ln2 = false);
    }
    Ok(llama::named(a, checkpoint, move |block| llama::layer_sources(block, [bias, bias, bias, false], false)))
}

fn quarter_rope(config: &Config, d_head: usize) -> Result<Vec<Rope>, LoadError> {
    Ok(vec![Rope::from_config(config, d_head, 0.25)?])
}
