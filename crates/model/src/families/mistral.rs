//! Mistral: Llama with a sliding window on every layer.

use super::{Family, llama};
use crate::{checkpoint::Checkpoint, config::Config, error::LoadError};

/// Mistral.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    if config.value("layer_types").is_some() {
        return Err(
            config.refuse("layer_types", "makes a mistral what transformers calls ministral, which is not supported")
        );
    }
    let window = config.count_opt("sliding_window")?;
    let mut family = llama::plain(config, checkpoint)?;
    family.architecture.layers.iter_mut().for_each(|l| l.window = window);
    Ok(family)
}
