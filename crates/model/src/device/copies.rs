//! Copies between the device and the CPU. On NVIDIA GPUs, copies to the CPU run in parallel with kernels: on a second stream, to
//! pinned memory. It knows tensors, and nothing of what they mean.

use candle_core::{D, DType, Device, Result, Tensor};

#[cfg(feature = "cuda")]
use super::nvidia::pinned_copies::{CopyStream, PinnedCopy, PinnedValues};

/// Starts copies to and from one device.
#[derive(Debug)]
pub struct Copies {
    #[cfg(feature = "cuda")]
    stream: Option<CopyStream>,
}

/// A copy that was started.
pub enum Pending {
    /// It is carried out when someone waits for it.
    Later(Tensor),
    /// It is running, or has finished.
    #[cfg(feature = "cuda")]
    Pinned(PinnedCopy),
}

/// Copied values, on the CPU.
pub enum Landed {
    Vec(Vec<f32>),
    #[cfg(feature = "cuda")]
    Pinned(PinnedValues),
}

impl Copies {
    /// For copies to and from `device`.
    pub fn new(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Ok(Self { stream: CopyStream::new(device)? });
        #[cfg(not(feature = "cuda"))]
        {
            let _ = device;
            Ok(Self {})
        }
    }

    /// Copies rows to the device. The caller must keep the second value until the device has used the tensor.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unused_self, reason = "other devices have a stream"))]
    pub fn upload(&self, values: &[f32], shape: (usize, usize), device: &Device) -> Result<(Tensor, Option<Pending>)> {
        #[cfg(feature = "cuda")]
        if let (Some(stream), Device::Cuda(gpu)) = (&self.stream, device) {
            let (tensor, copy) = stream.upload(values, shape, gpu)?;
            return Ok((tensor, Some(Pending::Pinned(copy))));
        }
        Ok((Tensor::from_slice(values, shape, device)?, None))
    }

    /// Starts to copy a float32 tensor to the CPU.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unused_self, reason = "other devices have a stream"))]
    pub fn start(&self, values: &Tensor) -> Result<Pending> {
        #[cfg(feature = "cuda")]
        if let Some(stream) = &self.stream
            && let Some(copy) = stream.start(values)?
        {
            return Ok(Pending::Pinned(copy));
        }
        Ok(Pending::Later(values.clone()))
    }
}

impl Pending {
    /// Whether the copy has finished.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Later(_) => false,
            #[cfg(feature = "cuda")]
            Self::Pinned(copy) => copy.is_done(),
        }
    }

    /// Waits for the copy, and returns its values.
    pub fn wait(self) -> Result<Landed> {
        match self {
            Self::Later(values) => whole(&values).map(Landed::Vec),
            #[cfg(feature = "cuda")]
            Self::Pinned(copy) => copy.wait().map(Landed::Pinned),
        }
    }
}

impl AsRef<[f32]> for Landed {
    fn as_ref(&self) -> &[f32] {
        match self {
            Self::Vec(values) => values,
            #[cfg(feature = "cuda")]
            Self::Pinned(values) => values.as_ref(),
        }
    }
}

/// All values of a tensor, on the CPU.
pub fn whole(values: &Tensor) -> Result<Vec<f32>> {
    values.to_dtype(DType::F32)?.flatten(0, D::Minus1)?.to_vec1()
}
