//! Copies to pinned memory on a second stream.
//!
//! The driver's wrapper keeps the streams in order: a copy waits for what writes its tensor, and the tensor's memory is not given
//! back before the copy is done.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    Device, Result, Storage, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaStream, DeviceSlice, PinnedHostSlice},
    },
};

/// Numbers of the smallest buffer.
const SMALLEST: usize = 1 << 16;

/// Pinned buffers that wait to be used again.
type Pool = Arc<Mutex<Vec<PinnedHostSlice<f32>>>>;

/// The stream that copies.
pub struct CopyStream {
    stream: Arc<CudaStream>,
    pool: Pool,
}

/// A copy that runs or has run. Its buffer goes back to the pool.
pub struct PinnedCopy {
    buffer: Option<PinnedHostSlice<f32>>,
    n: usize,
    pool: Pool,
}

impl fmt::Debug for CopyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyStream").finish_non_exhaustive()
    }
}

impl CopyStream {
    /// A stream beside that of `device`; `None` where it is no GPU of this kind.
    pub fn new(device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        Ok(Some(Self { stream: device.cuda_stream().fork().w()?, pool: Pool::default() }))
    }

    /// Starts to copy a float32 tensor; `None` where it is not one piece of memory.
    pub fn start(&self, values: &Tensor) -> Result<Option<PinnedCopy>> {
        let (storage, layout) = values.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { return Ok(None) };
        let (slice, n) = (storage.as_cuda_slice::<f32>()?, layout.shape().elem_count());
        if n == 0 || !layout.is_contiguous() || layout.start_offset() != 0 || slice.len() != n {
            return Ok(None);
        }
        let mut buffer = self.buffer(n)?;
        self.stream.memcpy_dtoh(slice, &mut buffer).w()?;
        Ok(Some(PinnedCopy { buffer: Some(buffer), n, pool: Arc::clone(&self.pool) }))
    }

    /// A buffer for `n` numbers: the smallest that waits, or a new one.
    fn buffer(&self, n: usize) -> Result<PinnedHostSlice<f32>> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..pool.len()).filter(|i| pool[*i].len() >= n).min_by_key(|i| pool[*i].len());
        if let Some(i) = fitting {
            return Ok(pool.swap_remove(i));
        }
        // Smaller ones would only take up memory that cannot be swapped out.
        pool.retain(|buffer| buffer.len() >= n);
        drop(pool);
        let size = n.next_power_of_two().max(SMALLEST);
        // SAFETY: the memory holds anything; only the first `n` numbers are read, after a copy has written them. Without flags it
        // is cached: the default's write-combined memory is slow to read.
        unsafe { self.stream.context().alloc_pinned_with_flags(size, 0) }.w()
    }
}

impl PinnedCopy {
    /// Waits until the numbers are there.
    pub fn wait(self) -> Result<Self> {
        self.values()?;
        Ok(self)
    }

    /// The numbers, once they are there.
    pub fn values(&self) -> Result<&[f32]> {
        let buffer = self.buffer.as_ref().ok_or_else(|| candle_core::Error::msg("a copy without a buffer"))?;
        Ok(&buffer.as_slice().w()?[..self.n])
    }
}

impl Drop for PinnedCopy {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
