//! Granite: Llama with multipliers of the embedding, the scores, the residual stream and the logits.

use super::{Family, float_opt, llama};
use crate::{checkpoint::Checkpoint, config::Config, error::LoadError};

/// Granite.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let mut family = llama::family(config, checkpoint)?;
    let a = &mut family.architecture;
    a.embedding.scale = float_opt(config, "embedding_multiplier")?;
    a.residual_multiplier = float_opt(config, "residual_multiplier")?;
    a.attention_scale = float_opt(config, "attention_multiplier")?.unwrap_or(1.0);
    let divisor = config.number_or("logits_scaling", 1.0)?;
    if divisor == 0.0 {
        return Err(config.refuse("logits_scaling", "is 0; logits are divided by it"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the forward pass computes in float32")]
    let scale = (1.0 / divisor) as f32;
    if let Some(unembedding) = &mut a.unembedding {
        unembedding.scale = Some(scale);
    }
    Ok(family)
}
