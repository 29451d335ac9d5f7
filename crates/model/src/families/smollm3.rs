//! SmolLM 3: Llama with some layers without rotary positions.

use super::{
    Family, layer_windows,
    llama::{self, Defaults},
    switched_window,
};
use crate::{checkpoint::Checkpoint, config::Config, error::LoadError};

/// SmolLM 3.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let (attention, mlp) = (config.flag("attention_bias")?, config.flag("mlp_bias")?);
    let mut a = llama::architecture(config, checkpoint, &Defaults::LLAMA)?;
    let rotary = rotary_layers(config, a.layers.len())?;
    // This key decides if the kinds of layers are not listed.
    let switched = switched_window(config)?;
    let window = if config.value("layer_types").is_some() { config.count_opt("sliding_window")? } else { switched };
    let windows = layer_windows(config, a.layers.len(), window, |l| !rotary[l])?;
    for ((layer, rotary), window) in a.layers.iter_mut().zip(rotary).zip(windows) {
        layer.rope = rotary.then_some(0);
        layer.window = window;
    }
    Ok(llama::named(a, checkpoint, move |block| llama::layer_sources(block, [attention; 4], mlp)))
}

/// Which layers have rotary positions: `no_rope_layers` says 1 for those that do.
fn rotary_layers(config: &Config, n_layers: usize) -> Result<Vec<bool>, LoadError> {
    let interval = config.count_opt("no_rope_layer_interval")?.unwrap_or(4);
    if config.value("no_rope_layers").is_none() {
        return Ok((0..n_layers).map(|l| !(l + 1).is_multiple_of(interval)).collect());
    }
    let listed = config.numbers("no_rope_layers")?;
    if listed.len() != n_layers {
        return Err(config.refuse("no_rope_layers", format!("has {} entries for {n_layers} layers", listed.len())));
    }
    Ok(listed.into_iter().map(|v| v != 0.0).collect())
}
