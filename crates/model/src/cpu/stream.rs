//! What the parts of a forward pass on the CPU share: the batch on its way through the blocks, the buffers of a block, where in
//! the model a sublayer is, and norms with hook points. It knows no weights but a norm's.

use super::{kv_cache::KvCache, rotary::Turn};
use crate::{
    ForwardError,
    architecture::Architecture,
    capture::taps::Taps,
    ops::{attention::KeyBiases, norm::Norm},
    packing::{Packing, RowSet},
};
use residuum_domain::{Hook, Site};

/// What a sublayer needs to know besides its input.
pub struct Place<'a> {
    /// What the model computes.
    pub a: &'a Architecture,
    /// Which block this is.
    pub l: usize,
    /// Rows of the residual stream after attention.
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
    /// Where inputs and rows are.
    pub packing: &'a Packing,
    /// The residual stream `[rows, d_model]`.
    pub x: Vec<f32>,
    /// The rows `x` holds.
    pub set: RowSet,
    /// Rotary tables of this batch.
    pub turns: Vec<Turn>,
    /// Keys and values of the tokens before this batch, one for each input, where there are any.
    pub history: Option<&'a mut [KvCache]>,
    /// Position biases for the longest input of this batch.
    pub key_biases: Option<KeyBiases>,
    /// Buffers that live from block to block.
    pub scratch: Scratch,
}

/// Buffers of one block, kept because fresh memory costs page faults.
#[derive(Debug, Default)]
pub struct Scratch {
    /// What attention receives, `[tokens, d_model]`.
    pub normed: Vec<f32>,
    /// What attention received before interventions, where a parallel MLP must not see them.
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

/// A norm whose denominator and normalised rows pass the two `hooks`. Where they are changed there, the output follows.
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
