//! The state that the blocks of a pass on the device share: the layout of the batch, and tensors that all layers use.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::tiles::Tiles;
use crate::{
    architecture::Architecture,
    cpu::rotary::RotaryTables,
    ops::attention::{AttentionSpec, KeyBiases},
    packing::{Packing, RowSet},
};

/// A batch on its way through the blocks.
pub struct Pass<'p> {
    /// The layout of the batch.
    pub packing: &'p Packing,
    /// The wanted rows among all tokens; the last block computes only these after attention.
    pub wanted_tokens: Tensor,
    /// ALiBi biases of the scores, on the CPU and, `[1, heads, 1, keys]`, on the device.
    pub key_biases: Option<Arc<KeyBiases>>,
    pub biases: Option<Tensor>,
    device: Device,
    rotary_tables: Vec<RotaryTables>,
    /// Cosines and sines of every row, by rotary table and set.
    angles: Vec<[Option<(Tensor, Tensor)>; 2]>,
    tiles: [Option<Tiles>; 2],
}

impl<'p> Pass<'p> {
    /// A pass over a batch on `device`.
    pub fn new(
        a: &Architecture,
        packing: &'p Packing,
        rotary_tables: Vec<RotaryTables>,
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
            angles: rotary_tables.iter().map(|_| [None, None]).collect(),
            rotary_tables,
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
        let (cos, sin) = self.rotary_tables[rope].angles(selection);
        let shape = (selection.positions.len(), ());
        let angles = (Tensor::from_vec(cos, shape, &self.device)?, Tensor::from_vec(sin, shape, &self.device)?);
        Ok(held.insert(angles).clone())
    }

    /// The attention tiles for the queries of `set`.
    pub fn tiles(&mut self, set: RowSet, spec: &AttentionSpec<'_>) -> candle_core::Result<&mut Tiles> {
        let held = &mut self.tiles[set.index()];
        if held.is_none() {
            *held = Some(Tiles::new(self.packing, set, spec.causal, spec.n_heads, &self.device)?);
        }
        held.as_mut().ok_or_else(|| candle_core::Error::msg("no tiles"))
    }
}
