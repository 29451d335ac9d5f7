//! Qwen 2 (biases on queries, keys and values) and Qwen 3 (norms of queries and keys instead).

use super::{Family, layer_windows, llama, switched_window};
use crate::{architecture::QkNorm, checkpoint::Checkpoint, config::Config, error::LoadError};

/// Qwen 2 and 2.5.
pub fn qwen2(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let mut family = llama::with_biases(config, checkpoint, [true, true, true, false], false)?;
    set_windows(config, &mut family)?;
    Ok(family)
}

/// Qwen 3, dense.
pub fn qwen3(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("attention_bias")?;
    let mut family = llama::with_biases(config, checkpoint, [bias; 4], false)?;
    family.architecture.qk_norm = Some(QkNorm::PerHead);
    set_windows(config, &mut family)?;
    Ok(family)
}

/// Layers from `max_window_layers` on have the window, if it is used at all, unless `layer_types` says otherwise.
fn set_windows(config: &Config, family: &mut Family) -> Result<(), LoadError> {
    let (window, from) = (switched_window(config)?, max_window_layers(config));
    let layers = &mut family.architecture.layers;
    let windows = layer_windows(config, layers.len(), window, |l| l >= from)?;
    layers.iter_mut().zip(windows).for_each(|(layer, window)| layer.window = window);
    Ok(())
}

/// `max_window_layers`, which may be 0.
pub fn max_window_layers(config: &Config) -> usize {
    let given = config.value("max_window_layers").and_then(serde_json::Value::as_u64);
    given.and_then(|n| usize::try_from(n).ok()).unwrap_or(28)
}
