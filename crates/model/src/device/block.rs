//! One block on the device, and what a pass through the blocks holds.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    attention::DeviceAttention, mlp::DeviceMlp, norm::tapped_norm, taps::DeviceTaps, tiles::Tiles, weights::DeviceNorm,
};
use crate::{
    ForwardError,
    architecture::{Architecture, Residual},
    block::Block,
    ops::attention::{AttentionSpec, KeyBiases},
    packing::{Packing, RowSet},
    rotary::Turn,
    stream::Place,
};
use residuum_domain::Site;

/// The weights of one block.
#[derive(Debug)]
pub struct DeviceBlock {
    attention: DeviceAttention,
    mlp: DeviceMlp,
    joined: Option<[DeviceNorm; 2]>,
}

/// A batch on its way through the blocks.
pub struct Pass<'p> {
    /// Where inputs and rows are.
    pub packing: &'p Packing,
    /// The rows that go on in the last block, among all tokens.
    pub wanted_tokens: Tensor,
    /// Position biases of the scores, and the same on the device, `[1, heads, 1, keys]`.
    pub key_biases: Option<Arc<KeyBiases>>,
    pub biases: Option<Tensor>,
    device: Device,
    turns: Vec<Turn>,
    /// By rotary table and set, cosines and sines of every row.
    angles: Vec<[Option<(Tensor, Tensor)>; 2]>,
    tiles: [Option<Tiles>; 2],
}

impl<'p> Pass<'p> {
    /// A pass of a batch on `device`.
    pub fn new(
        a: &Architecture,
        packing: &'p Packing,
        turns: Vec<Turn>,
        key_biases: Option<KeyBiases>,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let wanted = &packing.wanted_tokens;
        let biases = match &key_biases {
            Some(biases) => {
                let values: Vec<f32> = (0..a.n_heads).flat_map(|h| biases.of_head(h)).copied().collect();
                Some(Tensor::from_vec(values, (1, a.n_heads, 1, ()), device)?)
            }
            None => None,
        };
        Ok(Self {
            packing,
            wanted_tokens: Tensor::from_slice(wanted, wanted.len(), device)?,
            key_biases: key_biases.map(Arc::new),
            biases,
            device: device.clone(),
            angles: turns.iter().map(|_| [None, None]).collect(),
            turns,
            tiles: [None, None],
        })
    }

    /// Cosines and sines of the angles of every row of `set`, `[rows, pairs]`.
    pub fn angles(&mut self, rope: usize, set: RowSet) -> candle_core::Result<(Tensor, Tensor)> {
        let held = &mut self.angles[rope][set.index()];
        if let Some(held) = held {
            return Ok(held.clone());
        }
        let selection = self.packing.of(set);
        let (cos, sin) = self.turns[rope].angles(selection);
        let shape = (selection.positions.len(), ());
        let angles = (Tensor::from_vec(cos, shape, &self.device)?, Tensor::from_vec(sin, shape, &self.device)?);
        Ok(held.insert(angles).clone())
    }

    /// The tiles of attention for the queries of `set`.
    pub fn tiles(&mut self, set: RowSet, spec: &AttentionSpec<'_>) -> candle_core::Result<&mut Tiles> {
        let held = &mut self.tiles[set.index()];
        if held.is_none() {
            *held = Some(Tiles::new(self.packing, set, spec.causal, spec.n_heads, &self.device)?);
        }
        held.as_mut().ok_or_else(|| candle_core::Error::msg("no tiles"))
    }
}

impl DeviceBlock {
    /// Copies the weights to the device.
    pub fn upload(a: &Architecture, block: &Block, to: (DType, &Device)) -> candle_core::Result<Self> {
        let norm = |n| DeviceNorm::upload(n, a.d_model, to.1);
        let joined = match &block.joined {
            Some([first, second]) => Some([norm(first)?, norm(second)?]),
            None => None,
        };
        Ok(Self {
            attention: DeviceAttention::upload(&block.attention, a.qk_norm, a.d_head, to)?,
            mlp: DeviceMlp::upload(&block.mlp, a.d_model, to)?,
            joined,
        })
    }

    /// What the block makes of the residual stream `x` `[tokens, d_model]`: `[rows, d_model]` for the rows of `place.set`. `None`
    /// once nothing behind was asked for.
    pub fn forward(
        &self,
        host: &Block,
        place: &Place<'_>,
        mut x: Tensor,
        pass: &mut Pass<'_>,
        taps: &mut DeviceTaps<'_, '_>,
    ) -> Result<Option<Tensor>, ForwardError> {
        let (residual, set) = (place.a.residual, place.set);
        taps.tap(place.hook(Site::ResidPre), &mut x, RowSet::All)?;
        if taps.done() {
            return Ok(None);
        }
        let Some(attended) = self.attention.forward(&host.attention, place, &x, pass, taps)? else { return Ok(None) };
        if taps.done() {
            return Ok(None);
        }
        if set == RowSet::Wanted {
            x = x.index_select(&pass.wanted_tokens, 0)?;
        }
        if residual != Residual::Parallel {
            x = (x + &attended.out)?;
            taps.tap(place.hook(Site::ResidMid), &mut x, set)?;
            if taps.done() {
                return Ok(None);
            }
        }
        if let Some([norm, _]) = &self.joined {
            x = tapped_norm(
                norm,
                &x,
                [Site::Ln1Scale, Site::Ln1Normalized].map(|s| place.hook(s)),
                set,
                DType::F32,
                taps,
            )?;
            if taps.done() {
                return Ok(None);
            }
        }
        let mut added = self.mlp.forward(place, &x, &attended.received, pass, taps)?;
        if residual == Residual::Parallel {
            added = (added + attended.out)?;
        }
        x = (x + added)?;
        if let Some([_, norm]) = &self.joined {
            x = tapped_norm(
                norm,
                &x,
                [Site::Ln2Scale, Site::Ln2Normalized].map(|s| place.hook(s)),
                set,
                DType::F32,
                taps,
            )?;
        }
        taps.tap(place.hook(Site::ResidPost), &mut x, set)?;
        Ok(Some(x))
    }
}
