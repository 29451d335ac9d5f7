//! Phi 1 and 2: attention and a plain MLP in parallel after one layer norm, partial rotary positions, biases everywhere.

use super::{
    Family, layer_norm,
    llama::{self, Defaults},
};
use crate::{
    architecture::{Residual, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource},
};

/// Phi.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("qk_layernorm", false)?;
    let defaults = Defaults { activation: "gelu_new", ropes: half_rope, ..Defaults::LLAMA };
    let mut a = llama::architecture(config, checkpoint, &defaults)?;
    a.norm = layer_norm(config, "layer_norm_eps")?;
    a.residual = Residual::Parallel;
    a.gated = false;
    a.layers.iter_mut().for_each(|l| l.ln2 = false);
    let mut family = llama::named(a, checkpoint, |block| LayerSources {
        o: LinearSource::new(format!("{block}self_attn.dense"), true),
        gate: LinearSource::new(format!("{block}mlp.fc1"), true),
        up: None,
        down: LinearSource::new(format!("{block}mlp.fc2"), true),
        ..llama::layer_sources(block, [true; 4], false)
    });
    family.sources.unembed = LinearSource::new("lm_head", true);
    family.sources.final_norm = family.sources.final_norm.replace("norm", "final_layernorm");
    Ok(family)
}

fn half_rope(config: &Config, d_head: usize) -> Result<Vec<Rope>, LoadError> {
    Ok(vec![Rope::from_config(config, d_head, 0.5)?])
}
