//! Copies to pinned memory on a second stream.
//!
//! The streams are kept in order here: a copy waits for everything that the first stream had to do when it was started, and
//! holds its tensor and its buffer until it is done.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use candle_core::{
    CudaDevice, Device, Result, Storage, Tensor,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice},
    },
};

use super::memory::{allocate, tensor};
use crate::model::device::taps::copy;

/// Numbers of the smallest buffer.
const SMALLEST: usize = 1 << 16;

/// Pinned buffers that wait to be used again.
type Pool = Arc<Mutex<Vec<PinnedHostSlice<f32>>>>;

/// The stream that copies.
pub struct CopyStream {
    stream: Arc<CudaStream>,
    /// The stream that computes.
    computing: Arc<CudaStream>,
    pool: Pool,
}

/// A copy that runs or has run. Its buffer goes back to the pool.
pub struct PinnedCopy {
    n: usize,
    done: CudaEvent,
    /// Whether someone has waited until it was done.
    waited: bool,
    /// Given back to the device once the copy is done.
    source: Option<Tensor>,
    buffer: Option<PinnedHostSlice<f32>>,
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
        let computing = device.cuda_stream();
        Ok(Some(Self { stream: computing.fork().w()?, computing, pool: Pool::default() }))
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
        self.stream.join(&self.computing).w()?;
        // As long as the numbers: the length of the target is what is copied.
        let copied = self.stream.memcpy_dtoh(slice, &mut buffer.as_mut_slice().w()?[..n]);
        let done = copied.and_then(|()| self.stream.record_event(None)).inspect_err(|_| {
            // The copy may run; its buffer and its source must not go before.
            let _ = self.stream.synchronize();
        });
        let (done, pool) = (done.w()?, Arc::clone(&self.pool));
        Ok(Some(PinnedCopy { n, done, waited: false, source: Some(values.clone()), buffer: Some(buffer), pool }))
    }

    /// Copies rows to `gpu`, which waits for them on the stream that computes.
    pub fn upload(&self, values: &[f32], shape: (usize, usize), gpu: &CudaDevice) -> Result<(Tensor, PinnedCopy)> {
        let n = values.len();
        let mut out = allocate::<f32>(gpu, n)?;
        let mut buffer = self.buffer(n)?;
        let pinned = &mut buffer.as_mut_slice().w()?[..n];
        copy(pinned, values);
        let copied = self.computing.memcpy_htod(pinned, &mut out);
        let done = copied.and_then(|()| self.computing.record_event(None)).inspect_err(|_| {
            let _ = self.computing.synchronize();
        });
        let (done, pool) = (done.w()?, Arc::clone(&self.pool));
        let copy = PinnedCopy { n, done, waited: false, source: None, buffer: Some(buffer), pool };
        Ok((tensor(gpu.clone(), out, shape), copy))
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
        // SAFETY: the memory holds anything, which is a float32 all the same; only the first `n` numbers are used, after a copy has
        // written them. Without flags it is cached: the default's write-combined memory is slow to read.
        unsafe { self.stream.context().alloc_pinned_with_flags(size, 0) }.w()
    }
}

impl PinnedCopy {
    /// Whether the numbers are there.
    pub fn is_done(&self) -> bool {
        self.waited || self.done.is_complete()
    }

    /// Waits until the numbers are there.
    pub fn wait(mut self) -> Result<Self> {
        self.done.synchronize().w()?;
        (self.waited, self.source) = (true, None);
        Ok(self)
    }

    /// The numbers, once they are there.
    pub fn values(&self) -> Result<&[f32]> {
        let buffer = self.buffer.as_ref().filter(|_| self.waited);
        let buffer = buffer.ok_or_else(|| candle_core::Error::msg("nobody has waited for a copy"))?;
        Ok(&buffer.as_slice().w()?[..self.n])
    }
}

impl Drop for PinnedCopy {
    fn drop(&mut self) {
        // One that nobody waited for may still run. Where not even that can be told, the buffer is not used again.
        let done = self.waited || self.done.synchronize().is_ok();
        if let Some(buffer) = self.buffer.take() {
            if done {
                self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
            } else {
                std::mem::forget(buffer);
            }
        }
    }
}
