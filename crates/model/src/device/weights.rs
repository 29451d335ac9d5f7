//! Linear layers, norms and activations on the device. Weights are copied from the layers that are packed for the CPU.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops;
use half::{bf16, f16};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::nvidia;
use crate::ops::{Linear, activation::Activation, norm::Norm};

/// A linear layer `y = x Wᵀ + b`: the product runs in the compute type, and the bias is added in float32.
#[derive(Debug)]
pub struct DeviceLinear {
    /// The weight `[in_features, out_features]`, a transposed view.
    weight: Tensor,
    /// The bias `[out_features]`, float32.
    bias: Option<Tensor>,
}

impl DeviceLinear {
    /// Copies a layer to the device.
    pub fn upload(linear: &Linear, dtype: DType, device: &Device) -> Result<Self> {
        let (n_out, n_in) = (linear.out_features(), linear.in_features());
        // Round before copying: there is less to copy.
        let weight = match dtype {
            DType::BF16 => Tensor::from_vec(rows(linear, bf16::from_f32), (n_out, n_in), device)?,
            DType::F16 => Tensor::from_vec(rows(linear, f16::from_f32), (n_out, n_in), device)?,
            _ => Tensor::from_vec(rows(linear, |x| x), (n_out, n_in), device)?,
        };
        let weight = weight.t()?;
        let bias = linear.bias().map(|b| Tensor::from_slice(b, n_out, device)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Computes float32 `[rows, out_features]` from `x` `[rows, in_features]` of any type.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let out = self.product(&self.round(x)?)?;
        match &self.bias {
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }

    /// The product alone. Sums are float32. On NVIDIA GPUs results are float32 as well; elsewhere they are rounded to the compute
    /// type.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() && x.dtype() != DType::F32 {
            return nvidia::product(x, &self.weight.t()?);
        }
        x.matmul(&self.weight)?.to_dtype(DType::F32)
    }

    /// The compute type.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// `x` in the compute type. Layers that have the same input need this once.
    pub fn round(&self, x: &Tensor) -> Result<Tensor> {
        x.to_dtype(self.weight.dtype())
    }

    /// What each of `n` equal ranges of input features (the heads) contributes to the output, without the bias: float32
    /// `[rows, n, out_features]` from `x` `[rows, in_features]`.
    pub fn forward_ranges(&self, n: usize, x: &Tensor) -> Result<Tensor> {
        let (n_in, n_out) = self.weight.dims2()?;
        let weight = self.weight.reshape((n, n_in / n, n_out))?;
        let x = self.round(x)?.reshape((x.dim(0)?, n, n_in / n))?.transpose(0, 1)?.contiguous()?;
        x.matmul(&weight)?.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()
    }
}

/// The weight `[out_features, in_features]` of a layer, with `change` applied to every number.
fn rows<T: Copy + Default + Send>(linear: &Linear, change: impl Fn(f32) -> T + Sync) -> Vec<T> {
    let n_in = linear.in_features();
    let mut rows = vec![T::default(); linear.out_features() * n_in];
    rows.par_chunks_exact_mut(n_in.max(1)).enumerate().for_each_init(
        || vec![0.0; n_in],
        |row, (i, out)| {
            linear.row(i, row);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = change(*x));
        },
    );
    rows
}

/// A norm over rows, in float32.
#[derive(Debug)]
pub struct DeviceNorm {
    /// The same norm on the CPU, for rows that interventions change.
    pub host: Norm,
    d: usize,
    /// The gain `[d]`; ones if the norm has none.
    gain: Tensor,
    /// The bias `[d]`; zeros if the norm has none.
    bias: Tensor,
}

impl DeviceNorm {
    /// Copies a norm over rows of `d` to the device.
    pub fn upload(norm: &Norm, d: usize, device: &Device) -> Result<Self> {
        let (gain, bias) = norm.gain_and_bias();
        let copy = |values: Option<&[f32]>, otherwise: f32| match values {
            Some(values) => Tensor::from_slice(values, d, device),
            None => Tensor::full(otherwise, d, device),
        };
        Ok(Self { host: norm.clone(), d, gain: copy(gain, 1.0)?, bias: copy(bias, 0.0)? })
    }

    /// Normalises the rows of `d` numbers in `x`, which keeps its shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let rows = x.reshape(((), self.d))?.contiguous()?;
        let out = match &self.host {
            Norm::Rms(rms) => ops::rms_norm(&rows, &self.gain, rms.eps)?,
            // Candle's kernel computes the variance as a difference of squares, which loses digits where the mean is large. So subtract
            // the mean first.
            Norm::Layer(layer) => ops::layer_norm(&centred(&rows)?, &self.gain, &self.bias, layer.eps)?,
        };
        out.reshape(x.shape())
    }

    /// As [`Self::forward`], for `x` `[rows, d]`. The result may be rounded to `dtype` where that saves a pass over memory.
    pub fn forward_rounded(&self, x: &Tensor, dtype: DType) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (Norm::Rms(rms), true, DType::BF16 | DType::F16) = (&self.host, x.device().is_cuda(), dtype) {
            return nvidia::kernels::rms_norm(x, &self.gain, rms.eps, dtype);
        }
        let _ = dtype;
        self.forward(x)
    }

    /// The denominators `[rows]`, and the rows before gain and bias, for `x` `[rows, d]`.
    pub fn parts(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (x, eps) = match &self.host {
            Norm::Rms(rms) => (x.clone(), rms.eps),
            Norm::Layer(layer) => (centred(x)?, layer.eps),
        };
        let scale = x.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, f64::from(eps))?.sqrt()?;
        let normalized = x.broadcast_div(&scale)?;
        Ok((scale.squeeze(D::Minus1)?, normalized))
    }
}

/// `act(gate) · up`. The result may be rounded to `dtype` where that saves a pass over memory.
pub fn gated(activation: Activation, gate: &Tensor, up: &Tensor, dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if gate.device().is_cuda() {
        return nvidia::kernels::gated(activation, gate, up, dtype);
    }
    let _ = dtype;
    activate(activation, gate)? * up
}

/// The rows of `x` minus their means.
fn centred(x: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)
}

/// `cap · tanh(x / cap)`.
pub fn softcapped(x: &Tensor, cap: f32) -> Result<Tensor> {
    (x / f64::from(cap))?.tanh()? * f64::from(cap)
}

/// `act(x)`.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::ReluSquared => x.relu()?.sqr(),
        Activation::QuickGelu => x * ops::sigmoid(&x.affine(1.702, 0.0)?)?,
    }
}
