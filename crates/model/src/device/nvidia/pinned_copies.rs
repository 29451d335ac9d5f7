//! Copies through pinned memory; those to the CPU run on a second stream.
//!
//! This file keeps the two streams in order: a copy to the CPU waits for everything that was queued on the first stream when it was
//! started, and it holds its tensor and its buffer until it has finished.

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
use crate::ops::parallel::copy;

/// Size of the smallest buffer, in numbers.
const SMALLEST: usize = 1 << 16;
/// Sizes of large buffers are multiples of this.
const STEP: usize = 1 << 20;

/// Pinned buffers that can be reused.
type Pool = Arc<Mutex<Vec<PinnedHostSlice<f32>>>>;

/// The stream that copies.
pub struct CopyStream {
    stream: Arc<CudaStream>,
    /// The stream that computes.
    computing: Arc<CudaStream>,
    pool: Pool,
}

/// A copy in either direction that is running or has finished. Its buffer returns to the pool.
pub struct PinnedCopy {
    n: usize,
    done: CudaEvent,
    /// The source, which must live until the copy has finished.
    _source: Option<Tensor>,
    buffer: Option<PinnedHostSlice<f32>>,
    pool: Pool,
}

impl fmt::Debug for CopyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyStream").finish_non_exhaustive()
    }
}

impl CopyStream {
    /// A second stream of `device`; `None` if it is not an NVIDIA GPU.
    pub fn new(device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let computing = device.cuda_stream();
        Ok(Some(Self { stream: computing.fork().w()?, computing, pool: Pool::default() }))
    }

    /// Starts to copy a float32 tensor; `None` if its memory is not contiguous.
    pub fn start(&self, values: &Tensor) -> Result<Option<PinnedCopy>> {
        let (storage, layout) = values.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { return Ok(None) };
        let (slice, n) = (storage.as_cuda_slice::<f32>()?, layout.shape().elem_count());
        if n == 0 || !layout.is_contiguous() || layout.start_offset() != 0 || slice.len() != n {
            return Ok(None);
        }
        let mut buffer = self.buffer(n)?;
        self.stream.join(&self.computing).w()?;
        // The length of the target says how much is copied.
        let copied = self.stream.memcpy_dtoh(slice, &mut buffer.as_mut_slice().w()?[..n]);
        let done = copied.and_then(|()| self.stream.record_event(None)).inspect_err(|_| {
            // The copy may be running: its buffer and its source must outlive it.
            let _ = self.stream.synchronize();
        });
        let (done, pool) = (done.w()?, Arc::clone(&self.pool));
        Ok(Some(PinnedCopy { n, done, _source: Some(values.clone()), buffer: Some(buffer), pool }))
    }

    /// Copies rows to `gpu`, on the stream that computes.
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
        let copy = PinnedCopy { n, done, _source: None, buffer: Some(buffer), pool };
        Ok((tensor(gpu.clone(), out, shape), copy))
    }

    /// A buffer for `n` numbers: the smallest one in the pool that is large enough, or a new one.
    fn buffer(&self, n: usize) -> Result<PinnedHostSlice<f32>> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..pool.len()).filter(|i| pool[*i].len() >= n).min_by_key(|i| pool[*i].len());
        if let Some(i) = fitting {
            return Ok(pool.swap_remove(i));
        }
        // Drop smaller ones: they would only occupy memory that cannot be swapped out.
        pool.retain(|buffer| buffer.len() >= n);
        drop(pool);
        let size = if n < STEP { n.next_power_of_two().max(SMALLEST) } else { n.next_multiple_of(STEP) };
        // SAFETY: the memory holds anything, which is a float32 all the same; only the first `n` numbers are read, after they have
        // been written. Without flags it is cached: the default's write-combined memory is slow to read.
        unsafe { self.stream.context().alloc_pinned_with_flags(size, 0) }.w()
    }
}

impl PinnedCopy {
    /// Whether the copy has finished.
    pub fn is_done(&self) -> bool {
        self.done.is_complete()
    }

    /// Waits for the copy, and returns its values.
    pub fn wait(mut self) -> Result<PinnedValues> {
        self.done.synchronize().w()?;
        let buffer = self.buffer.take().ok_or_else(|| candle_core::Error::msg("a copy without a buffer"))?;
        // Get the address now: the call fails once the device is lost, but the values would still be valid.
        let at = buffer.as_ptr().w()?;
        Ok(PinnedValues { at, n: self.n, buffer: Some(buffer), pool: Arc::clone(&self.pool) })
    }
}

impl Drop for PinnedCopy {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        // If nobody waited for the copy, it may still be running. If this fails, the device is lost and no copy runs any more;
        // then drop the buffer, since it would prevent the device from being reopened.
        if self.done.synchronize().is_ok() {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

/// Copied values. Their buffer returns to the pool.
pub struct PinnedValues {
    at: *const f32,
    n: usize,
    buffer: Option<PinnedHostSlice<f32>>,
    pool: Pool,
}

// SAFETY: `at` is the memory of `buffer`, which may go to and be read by any thread; nobody writes to it.
unsafe impl Send for PinnedValues {}
// SAFETY: as above.
unsafe impl Sync for PinnedValues {}

impl AsRef<[f32]> for PinnedValues {
    fn as_ref(&self) -> &[f32] {
        // SAFETY: the buffer has at least `n` numbers, the copy has written them, and it lives as long as this.
        unsafe { std::slice::from_raw_parts(self.at, self.n) }
    }
}

impl Drop for PinnedValues {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
