//! Tensors as memory of the GPU.
//!
//! Everything on a GPU happens in the order of one stream ([`super::open`]): what a launch reads may be let go as soon as the
//! launch is queued, since its memory is freed behind it.

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

/// Where the numbers of a contiguous tensor begin.
pub fn address<T: CudaDType + DeviceRepr>(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { return Err(Error::msg("a tensor is not on a GPU")) };
    let (first, end) = layout.contiguous_offsets().ok_or_else(|| Error::msg("a tensor has gaps"))?;
    let stream = storage.device().cuda_stream();
    let numbers = storage.as_cuda_slice::<T>()?.slice(first..end);
    Ok(numbers.device_ptr(&stream).0)
}

/// Memory for `n` numbers, which holds anything.
pub fn allocate<T: DeviceRepr>(gpu: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    // SAFETY: whoever asks for it writes all of it, and any bits are a number.
    unsafe { gpu.alloc::<T>(n) }
}

/// Where that memory begins.
pub fn address_of<T: DeviceRepr>(gpu: &CudaDevice, memory: &CudaSlice<T>) -> u64 {
    memory.device_ptr(&gpu.cuda_stream()).0
}

/// A tensor of such memory.
pub fn tensor<T: CudaDType>(gpu: CudaDevice, memory: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
    Tensor::from_storage(Storage::Cuda(CudaStorage::wrap_cuda_slice(memory, gpu)), shape, BackpropOp::none(), false)
}
