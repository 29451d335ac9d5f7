//! Copies from the device to the CPU. On NVIDIA GPUs they run beside the computation: on a stream of their own, to pinned memory.

use candle_core::{D, DType, Device, Result, Tensor};

#[cfg(feature = "cuda")]
use super::nvidia::pinned_copies::{CopyStream, PinnedCopy, PinnedValues};

/// Starts copies.
#[derive(Debug)]
pub struct Copies {
    #[cfg(feature = "cuda")]
    stream: Option<CopyStream>,
}

/// A copy on its way.
pub enum Pending {
    /// Begins when someone waits for it.
    Later(Tensor),
    /// Runs.
    #[cfg(feature = "cuda")]
    Pinned(PinnedCopy),
}

/// Numbers that have arrived.
pub enum Landed {
    Vec(Vec<f32>),
    #[cfg(feature = "cuda")]
    Pinned(PinnedValues),
}

impl Copies {
    /// Copies from `device`.
    pub fn new(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Ok(Self { stream: CopyStream::new(device)? });
        #[cfg(not(feature = "cuda"))]
        {
            let _ = device;
            Ok(Self {})
        }
    }

    /// Copies rows to the device. What is given with them is to be kept until the device has worked with them.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unused_self, reason = "other devices have a stream"))]
    pub fn upload(&self, values: &[f32], shape: (usize, usize), device: &Device) -> Result<(Tensor, Option<Pending>)> {
        #[cfg(feature = "cuda")]
        if let (Some(stream), Device::Cuda(gpu)) = (&self.stream, device) {
            let (tensor, copy) = stream.upload(values, shape, gpu)?;
            return Ok((tensor, Some(Pending::Pinned(copy))));
        }
        Ok((Tensor::from_slice(values, shape, device)?, None))
    }

    /// Starts to copy a float32 tensor.
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
    /// Whether waiting takes no time any more.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Later(_) => false,
            #[cfg(feature = "cuda")]
            Self::Pinned(copy) => copy.is_done(),
        }
    }

    /// The numbers, once they are there.
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

/// All numbers of a tensor, on the CPU.
pub fn whole(values: &Tensor) -> Result<Vec<f32>> {
    values.to_dtype(DType::F32)?.flatten(0, D::Minus1)?.to_vec1()
}
