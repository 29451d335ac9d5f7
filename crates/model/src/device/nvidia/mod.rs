//! What is particular to NVIDIA GPUs.

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

/// Opens the GPU of this number, with a stream that every thread shares: batches run on whichever thread takes them.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    if let Device::Cuda(gpu) = &device {
        // Else every launch waits for and records an event for each of its tensors.
        // SAFETY: all tensors are made, used and freed on this one stream, where everything happens in order. The only other
        // stream is that of `copies`, which sees to the order itself.
        unsafe { gpu.disable_event_tracking() };
        if gpu.cuda_stream().context().has_async_alloc() {
            keep_memory(gpu)?;
        }
    }
    Ok(device)
}

/// Has freed memory stay with the process: otherwise the driver takes it back whenever a copy is waited for, and the next
/// pass asks for it again.
fn keep_memory(gpu: &CudaDevice) -> Result<()> {
    let mut threshold = u64::MAX;
    // SAFETY: the device is that of a living context, and this attribute is a number of 64 bits.
    unsafe {
        let pool = get_mem_pool(gpu.cuda_stream().context().cu_device()).w()?;
        set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut threshold).cast()).w()
    }
}
