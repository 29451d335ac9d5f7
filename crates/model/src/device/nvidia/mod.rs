//! What is specific to NVIDIA GPUs: opening them, our kernels, products through cuBLAS, and copies to pinned memory.

pub mod kernels;
mod memory;
pub mod pinned_copies;
mod product;
pub mod tile_attention;

use candle_core::{
    CudaDevice, Device, Result,
    cuda_backend::{
        WrapErr,
        cudarc::driver::{
            result::{device::get_mem_pool, mem_pool::set_attribute},
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
        },
    },
};

pub use product::product;

/// Opens the GPU with this number. All threads share one stream, since a batch may run on any thread.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    if let Device::Cuda(gpu) = &device {
        // Otherwise every launch would wait for, and record, an event for each of its tensors.
        // SAFETY: all tensors are made, used and freed on this one stream, where everything happens in order. The only other
        // stream is that of `pinned_copies`, which takes care of the order itself.
        unsafe { gpu.disable_event_tracking() };
        if gpu.cuda_stream().context().has_async_alloc() {
            keep_memory(gpu)?;
        }
    }
    Ok(device)
}

/// Keeps freed memory in the process: otherwise the driver takes it back whenever the host waits for a copy, and the next pass has
/// to allocate it again.
fn keep_memory(gpu: &CudaDevice) -> Result<()> {
    let mut threshold = u64::MAX;
    // SAFETY: the device is that of a living context, and this attribute is a number of 64 bits.
    unsafe {
        let pool = get_mem_pool(gpu.cuda_stream().context().cu_device()).w()?;
        set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut threshold).cast()).w()
    }
}
