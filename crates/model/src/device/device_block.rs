//! One block on the device: attention, MLP, and how their outputs are added to the residual stream.

use candle_core::{DType, Device, Tensor};

use super::{
    device_attention::DeviceAttention, device_mlp::DeviceMlp, device_taps::DeviceTaps, pass::Pass,
    tapped_norm::tapped_norm, weights::DeviceNorm,
};
use crate::{
    ForwardError,
    architecture::{Architecture, Residual},
    cpu::{block::Block, stream::Place},
    packing::RowSet,
};
use residuum_domain::Site;

/// The weights of one block.
#[derive(Debug)]
pub struct DeviceBlock {
    attention: DeviceAttention,
    mlp: DeviceMlp,
    joined: Option<[DeviceNorm; 2]>,
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

    /// Computes the residual stream after the block, `[rows, d_model]` for the rows of `place.set`, from the one before it, `x`
    /// `[tokens, d_model]`. `None` once nothing further was asked for.
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
