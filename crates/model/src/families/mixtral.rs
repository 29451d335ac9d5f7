//! Mixtral: Mistral with a mixture of experts in every block.

use super::{
    Family, experts,
    llama::{self, Defaults},
};
use crate::{architecture::Experts, checkpoint::Checkpoint, config::Config, error::LoadError, sources::LayerSources};

/// Mixtral.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let window = config.count_opt("sliding_window")?;
    let mut a = llama::architecture(config, checkpoint, &Defaults { eps: 1e-5, ..Defaults::LLAMA })?;
    a.layers.iter_mut().for_each(|l| l.window = window);
    let sizes = Experts { renormalise: true, ..experts::sizes(config, "intermediate_size")? };
    experts::install(&mut a, sizes, |_| true);
    // Published checkpoints have the name of transformers 4; those with stacked experts have the new one.
    let published = ["model.", ""].iter().any(|p| checkpoint.has(&format!("{p}layers.0.block_sparse_moe.gate.weight")));
    let name = if published { "block_sparse_moe" } else { "mlp" };
    Ok(llama::named(a, checkpoint, move |block| LayerSources {
        experts: Some(experts::sources(&format!("{block}{name}."), ["w1", "w3", "w2"])),
        ..llama::layer_sources(block, [false; 4], false)
    }))
}
