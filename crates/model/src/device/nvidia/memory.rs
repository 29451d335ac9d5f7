//! GPU memory of tensors: addresses for kernels, and tensors from raw memory.
//!
//! Everything on a GPU happens in the order of one stream ([`super::open`]), so a tensor may be dropped as soon as the launch that
//! reads it is queued: its memory is freed after that launch.

use candle_core::{
    CudaDevice, CudaStorage, Device, Error, Result, Shape, Storage, Tensor,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType,
        cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr},
    },
    op::BackpropOp,
};

/// The GPU that a tensor is on.
pub fn gpu(tensor: &Tensor) -> Result<CudaDevice> {
    match tensor.device() {
        Device::Cuda(gpu) => Ok(gpu.clone()),
        _ => Err(Error::msg("a tensor is not on a GPU")),
    }
}

/// The address of a contiguous tensor.
pub fn address<T: CudaDType + DeviceRepr>(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { return Err(Error::msg("a tensor is not on a GPU")) };
    let (first, end) = layout.contiguous_offsets().ok_or_else(|| Error::msg("a tensor has gaps"))?;
    let stream = storage.device().cuda_stream();
    let numbers = storage.as_cuda_slice::<T>()?.slice(first..end);
    Ok(numbers.device_ptr(&stream).0)
}

/// Uninitialised memory for `n` numbers.
pub fn allocate<T: DeviceRepr>(gpu: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    // SAFETY: whoever asks for it writes all of it, and any bits are a number.
    unsafe { gpu.alloc::<T>(n) }
}

/// The address of that memory.
pub fn address_of<T: DeviceRepr>(gpu: &CudaDevice, memory: &CudaSlice<T>) -> u64 {
    memory.device_ptr(&gpu.cuda_stream()).0
}

/// A tensor in such memory.
pub fn tensor<T: CudaDType>(gpu: CudaDevice, memory: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(CudaStorage::wrap_cuda_slice(memory, gpu)), shape, BackpropOp::none(), false)
}
