//! StarCoder 2: layer norms, biases, a plain MLP, a sliding window.

use super::{
    Family, layer_norm,
    llama::{self, Defaults},
};
use crate::{
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource},
};

/// StarCoder 2.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("norm_type", "layer_norm")?;
    config.only("mlp_type", "default")?;
    let bias = config.flag("use_bias")?;
    let window = config.count_opt("sliding_window")?;
    let defaults = Defaults { activation: "gelu_pytorch_tanh", ..Defaults::LLAMA };
    let mut a = llama::architecture(config, checkpoint, &defaults)?;
    a.norm = layer_norm(config, "norm_epsilon")?;
    a.gated = false;
    a.layers.iter_mut().for_each(|l| l.window = window);
    Ok(llama::named(a, checkpoint, move |block| LayerSources {
        gate: LinearSource::new(format!("{block}mlp.c_fc"), bias),
        up: None,
        down: LinearSource::new(format!("{block}mlp.c_proj"), bias),
        ..llama::layer_sources(block, [bias; 4], false)
    }))
}
