//! The state that the parts of a forward pass share: the batch on its way through the blocks, the buffers of a block, which sublayer
//! is running, and norms with hook points. It knows no weights except those of a norm.

use super::{kv_cache::KvCache, rotary::RotaryTables};
use crate::{
    ForwardError,
    architecture::Architecture,
    capture::taps::Taps,
    ops::{attention::KeyBiases, norm::Norm},
    packing::{Packing, RowSet},
};
use residuum_domain::{Hook, Site};

/// Where in the model a sublayer runs, and on which rows.
pub struct Place<'a> {
    /// The model.
    pub a: &'a Architecture,
    /// The index of the block.
    pub l: usize,
    /// The rows of the residual stream after attention.
    pub set: RowSet,
}

impl Place<'_> {
    /// A hook of this block.
    pub fn hook(&self, site: Site) -> Hook {
        Hook::block(site, self.l)
    }
}

/// A batch on its way through the blocks.
pub struct Stream<'a> {
    /// The layout of the batch.
    pub packing: &'a Packing,
    /// The residual stream `[rows, d_model]`.
    pub x: Vec<f32>,
    /// Which rows `x` holds.
    pub set: RowSet,
    /// The rotary tables of this batch, one for each of the architecture's.
    pub rotary_tables: Vec<RotaryTables>,
    /// Where inputs are continued, the KV cache of each input.
    pub history: Option<&'a mut [KvCache]>,
    /// ALiBi biases for the positions of the longest input of this batch.
    pub key_biases: Option<KeyBiases>,
    /// Buffers that are reused from block to block.
    pub scratch: Scratch,
}

/// The buffers of a block. They are reused, because fresh memory costs page faults.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What attention receives, `[tokens, d_model]`.
    pub normed: Vec<f32>,
    /// The input of attention before interventions, where a parallel MLP must not see those.
    pub received: Option<Vec<f32>>,
    /// Gathered rows, and the output of a norm that cannot work in place.
    pub gathered: Vec<f32>,
    /// What the MLP receives, `[rows, d_model]`.
    pub mlp_in: Vec<f32>,
    /// `[rows, heads, d_head]`.
    pub q: Vec<f32>,
    /// `[tokens, kv_heads, d_head]`.
    pub k: Vec<f32>,
    /// `[tokens, kv_heads, d_head]`.
    pub v: Vec<f32>,
    /// `[rows, heads, d_head]`.
    pub z: Vec<f32>,
    /// `[rows, d_mlp]`.
    pub gate: Vec<f32>,
    /// `[rows, d_mlp]`.
    pub up: Vec<f32>,
    /// Output of attention, `[rows, d_model]`.
    pub attn_out: Vec<f32>,
    /// Output of the MLP, `[rows, d_model]`.
    pub mlp_out: Vec<f32>,
    /// Normalised rows of a tapped norm, and queries or keys while they are normalised.
    pub spare: Vec<f32>,
}

/// Normalises `x` `[rows, d]` into `out`; the denominators and the normalised rows pass the two `hooks`. If interventions change
/// them there, the output is computed from the changed ones.
#[expect(clippy::too_many_arguments, reason = "the buffers belong to different owners")]
pub fn tapped_norm(
    norm: &Norm,
    d: usize,
    x: &[f32],
    out: &mut [f32],
    spare: &mut Vec<f32>,
    hooks: [Hook; 2],
    set: RowSet,
    taps: &mut Taps<'_>,
) -> Result<(), ForwardError> {
    if !hooks.iter().any(|hook| taps.wants(*hook)) {
        norm.forward(x, d, out);
        return Ok(());
    }
    let mut scale = vec![0.0; x.len() / d];
    spare.resize(x.len(), 0.0);
    norm.forward_tapped(x, d, out, &mut scale, spare);
    let touched = taps.editor().map(|e| e.touched(&hooks, set)).unwrap_or_default();
    let before: Vec<f32> = touched.iter().map(|row| scale[*row as usize]).collect();
    taps.tap(hooks[0], &mut scale, set)?;
    for (row, before) in touched.iter().zip(before) {
        let factor = before / scale[*row as usize];
        spare[*row as usize * d..][..d].iter_mut().for_each(|x| *x *= factor);
    }
    taps.tap(hooks[1], spare, set)?;
    for row in touched {
        let at = row as usize * d..(row as usize + 1) * d;
        norm.apply_gain(&spare[at.clone()], &mut out[at]);
    }
    Ok(())
}
