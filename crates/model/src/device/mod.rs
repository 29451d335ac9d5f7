//! The forward pass on an accelerator, with candle's tensors.
//!
//! It computes what [`Transformer`] computes, from the same architecture and with the same hook points; tests compare the two for
//! every family. Token ids become embeddings on the CPU, and everything after that runs on the device. Only rows that are captured
//! or changed, and the logits of routers, are copied back. Products with weights run in the compute type; the residual stream,
//! norms, attention and activations are float32.
//!
//! Unlike on the CPU, the numbers of an input may differ in the last bits from one batch to another, because the device's libraries
//! choose their kernels by the shape of the batch. This module knows weights and tensors; it must not know checkpoints or requests.

mod attention_scores;
mod copies;
mod device_attention;
mod device_block;
mod device_mlp;
mod device_taps;
pub mod keeper;
#[cfg(feature = "cuda")]
mod nvidia;
mod pass;
mod placement;
pub mod selfcheck;
mod tapped_norm;
mod tiles;
mod weights;

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};

pub use placement::{ComputeDtype, Placement, Placements};

use super::{
    Batch, ForwardError,
    capture::taps::Taps,
    cpu::{stream::Place, transform::Transform, transformer::Transformer},
    ops::activation::Activation,
    packing::{Packing, RowSet},
};
use copies::Copies;
use device_block::DeviceBlock;
use device_taps::DeviceTaps;
use pass::Pass;
use residuum_domain::{Hook, Site};
use tapped_norm::tapped_norm;
use weights::{DeviceLinear, DeviceNorm, activate, softcapped};

/// A transformer whose weights are on a device.
#[derive(Debug)]
pub struct DeviceTransformer {
    device: Device,
    copies: Copies,
    /// The buffer of the last batch's embeddings, for reuse.
    embedded: Mutex<Vec<f32>>,
    blocks: Vec<DeviceBlock>,
    final_norm: Option<DeviceNorm>,
    transform: Option<DeviceTransform>,
    project_out: Option<DeviceLinear>,
    unembed: Option<DeviceLinear>,
}

/// The layer before the unembedding of masked language models.
#[derive(Debug)]
struct DeviceTransform {
    dense: DeviceLinear,
    activation: Activation,
    norm: DeviceNorm,
}

impl DeviceTransform {
    fn upload(transform: &Transform, to: (candle_core::DType, &Device)) -> candle_core::Result<Self> {
        Ok(Self {
            dense: DeviceLinear::upload(&transform.dense, to.0, to.1)?,
            activation: transform.activation,
            norm: DeviceNorm::upload(&transform.norm, transform.dense.out_features(), to.1)?,
        })
    }

    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.norm.forward(&activate(self.activation, &self.dense.forward(x)?)?)
    }
}

impl DeviceTransformer {
    /// Copies the weights to `device`: projections in `dtype`, norms in float32.
    ///
    /// # Errors
    /// Those of the device, usually that its memory is too small.
    pub fn upload(host: &Transformer, dtype: ComputeDtype, device: Device) -> candle_core::Result<Self> {
        let a = host.architecture();
        let to = (dtype.candle(), &device);
        let linear = |l| DeviceLinear::upload(l, to.0, to.1);
        let copies = Copies::new(&device)?;
        Ok(Self {
            blocks: host.blocks.iter().map(|b| DeviceBlock::upload(a, b, to)).collect::<Result<_, _>>()?,
            final_norm: host.final_norm.as_ref().map(|n| DeviceNorm::upload(n, a.d_model, to.1)).transpose()?,
            transform: host.transform.as_ref().map(|t| DeviceTransform::upload(t, to)).transpose()?,
            project_out: host.projections.as_ref().map(|(_, out)| linear(out)).transpose()?,
            unembed: host.unembed.as_ref().map(linear).transpose()?,
            device,
            copies,
            embedded: Mutex::default(),
        })
    }

    /// Whether the device still works: after some errors, every further call fails.
    pub fn works(&self) -> bool {
        let sum = || Tensor::new(&[1f32, 2.0], &self.device)?.sum_all()?.to_scalar::<f32>();
        sum().is_ok_and(|sum| sum == 3.0)
    }

    /// Runs a batch up to the last hook asked for, as [`Transformer::forward`] does. `host` has the same weights on the CPU.
    ///
    /// # Errors
    /// Those of the sink and of the device, and [`ForwardError::Cancelled`].
    pub fn forward(
        &self,
        host: &Transformer,
        batch: &Batch<'_>,
        packing: &Packing,
        taps: &mut Taps<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        let a = host.architecture();
        // Reuse the buffer: new memory has to be cleared by the system first.
        let spent = std::mem::take(&mut *self.embedded.lock().unwrap_or_else(PoisonError::into_inner));
        let embedded = host.embed(batch, packing, taps, spent)?;
        if taps.done() {
            return Ok(());
        }
        let (mut x, _on_its_way) = self.copies.upload(&embedded, (packing.n_tokens(), a.d_model), &self.device)?;
        *self.embedded.lock().unwrap_or_else(PoisonError::into_inner) = embedded;
        let mut pass =
            Pass::new(a, packing, host.rotary_tables(packing), host.key_biases(&packing.lengths), &self.device)?;
        let mut taps = DeviceTaps::new(taps, packing, &self.device, &self.copies);
        let fewer = packing.wanted_tokens.len() < packing.n_tokens();
        let mut set = RowSet::All;
        for (l, (block, host)) in self.blocks.iter().zip(&host.blocks).enumerate() {
            if cancelled() {
                return Err(ForwardError::Cancelled);
            }
            if taps.done() {
                return taps.finish();
            }
            let last = l + 1 == self.blocks.len() || taps.done_after(Hook::block(Site::ResidPost, l));
            let place = Place { a, l, set: if last && fewer { RowSet::Wanted } else { RowSet::All } };
            let Some(next) = block.forward(host, &place, x, &mut pass, &mut taps)? else { return taps.finish() };
            (x, set) = (next, place.set);
        }
        if !taps.done() {
            if cancelled() {
                return Err(ForwardError::Cancelled);
            }
            self.head(host, x, set, &mut taps)?;
        }
        taps.finish()
    }

    /// The final norm, and the logits of the rows that are asked for.
    fn head(
        &self,
        host: &Transformer,
        mut x: Tensor,
        set: RowSet,
        taps: &mut DeviceTaps<'_, '_>,
    ) -> Result<(), ForwardError> {
        let a = host.architecture();
        if let Some(norm) = &self.final_norm {
            let hooks = [Hook::global(Site::LnFinalScale), Hook::global(Site::LnFinalNormalized)];
            x = tapped_norm(norm, &x, hooks, set, DType::F32, taps)?;
        }
        taps.tap(Hook::global(Site::FinalNorm), &mut x, set)?;
        let (Some(unembed), Some(spec)) = (&self.unembed, a.unembedding) else { return Ok(()) };
        taps.compute(Hook::global(Site::Logits), a.d_vocab, set, &mut |rows| {
            let mut x = x.index_select(rows, 0)?;
            if let Some(transform) = &self.transform {
                x = transform.apply(&x)?;
            }
            if let Some(project_out) = &self.project_out {
                x = project_out.forward(&x)?;
            }
            let mut logits = unembed.forward(&x)?;
            if let Some(scale) = spec.scale {
                logits = (logits * f64::from(scale))?;
            }
            match spec.softcap {
                Some(cap) => softcapped(&logits, cap),
                None => Ok(logits),
            }
        })
    }
}
