//! Phi-3 and Phi-4: Llama with fused projections, a window, and long-context rotary scaling.

use super::{
    Family,
    llama::{self, Defaults},
};
use crate::{
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, RowOrder},
};

/// Phi-3.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.only("attention_bias", false)?;
    only_long_ropes(config)?;
    config.count_opt("original_max_position_embeddings")?;
    let window = config.count_opt("sliding_window")?;
    let mut a = llama::architecture(config, checkpoint, &Defaults { eps: 1e-5, ..Defaults::LLAMA })?;
    a.layers.iter_mut().for_each(|l| l.window = window);
    let (q, kv, mlp) = (a.n_heads * a.d_head, a.n_kv_heads * a.d_head, a.d_mlp);
    let part = |name: String, rows, first| LinearSource::new(name, false).part(rows, RowOrder::From(first));
    Ok(llama::named(a, checkpoint, move |block| {
        let qkv = |first| part(format!("{block}self_attn.qkv_proj"), q + 2 * kv, first);
        let gate_up = |first| part(format!("{block}mlp.gate_up_proj"), 2 * mlp, first);
        LayerSources {
            q: qkv(0),
            k: qkv(q),
            v: qkv(q + kv),
            gate: gate_up(0),
            up: Some(gate_up(mlp)),
            ..llama::layer_sources(block, [false; 4], false)
        }
    }))
}

/// Refuses kinds of rope other than this family's, as transformers does; it accepts `yarn` as another name.
fn only_long_ropes(config: &Config) -> Result<(), LoadError> {
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(rope) = config.rope_opt(key)? else { continue };
        let kind = match rope.text_opt("rope_type")? {
            Some(kind) => kind,
            None => rope.text_or("type", "default")?,
        };
        if !["default", "longrope", "su"].contains(&kind.as_str()) {
            return Err(rope.refuse("rope_type", format!("is {kind:?}; phi3 has only longrope")));
        }
    }
    Ok(())
}
