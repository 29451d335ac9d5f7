//! Products of half-precision numbers whose results are float32: candle's round them to the type of the factors.

use std::ffi::c_int;

use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, DType, Error, Layout, Result, Shape, Tensor,
    backend::BackendStorage,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::{
            cublas::{
                result::gemm_ex,
                sys::{
                    cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
                    cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T},
                    cudaDataType_t::{self, CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F},
                },
            },
            driver::{DevicePtr, DevicePtrMut},
        },
    },
};
use half::{bf16, f16};

/// `x wᵀ`, `[rows, out_features]` in float32, of `x` `[rows, in_features]` and `weight` `[out_features, in_features]`, which are
/// both bfloat16 or both float16. Summed in float32.
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op2_no_bwd(weight, &Product)
}

struct Product;

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(Error::msg("this product is one of GPUs"))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let factors = [(x, x_layout), (weight, weight_layout)];
        match (x.dtype(), weight.dtype()) {
            (DType::BF16, DType::BF16) => multiply::<bf16>(factors, CUDA_R_16BF),
            (DType::F16, DType::F16) => multiply::<f16>(factors, CUDA_R_16F),
            (x, weight) => Err(Error::msg(format!("there is no product of {x:?} and {weight:?}"))),
        }
    }
}

fn multiply<T: CudaDType>(
    [(x, x_layout), (weight, weight_layout)]: [(&CudaStorage, &Layout); 2],
    kind: cudaDataType_t,
) -> Result<(CudaStorage, Shape)> {
    let ((rows, n_in), (n_out, depth)) = (x_layout.shape().dims2()?, weight_layout.shape().dims2()?);
    if depth != n_in || rows * n_in * n_out == 0 {
        return Err(Error::msg(format!("[{rows}, {n_in}] cannot be multiplied by [{n_out}, {depth}]")));
    }
    let contiguous = |layout: &Layout| layout.contiguous_offsets().ok_or_else(|| Error::msg("a factor has gaps"));
    let (x_range, weight_range) = (contiguous(x_layout)?, contiguous(weight_layout)?);
    let size = |n: usize| c_int::try_from(n).map_err(|_| Error::msg(format!("{n} rows or columns are too many")));
    let (rows, n_in, n_out) = (size(rows)?, size(n_in)?, size(n_out)?);
    let shape = Shape::from((x_layout.dims()[0], weight_layout.dims()[0]));
    let device = x.device().clone();
    let stream = device.cuda_stream();
    // SAFETY: the product writes all of it.
    let mut out = unsafe { device.alloc::<f32>(shape.elem_count())? };
    let x = x.as_cuda_slice::<T>()?.slice(x_range.0..x_range.1);
    let weight = weight.as_cuda_slice::<T>()?.slice(weight_range.0..weight_range.1);
    {
        let ((x, _x), (weight, _weight)) = (x.device_ptr(&stream), weight.device_ptr(&stream));
        let (out, _out) = out.device_ptr_mut(&stream);
        let (one, zero) = (1f32, 0f32);
        let handle = device.cublas_handle();
        // cuBLAS counts along columns: to it a matrix [a, b] of ours is one of b rows, each b numbers behind the one before. What it
        // computes is the transpose of the product, weight xᵀ.
        // SAFETY: the ranges are those of the layouts, the result has as many numbers as the shape says, and all three live on the
        // stream of the handle, which keeps their order.
        unsafe {
            gemm_ex(
                *handle.handle(),
                CUBLAS_OP_T,
                CUBLAS_OP_N,
                n_out,
                rows,
                n_in,
                (&raw const one).cast(),
                weight as *const _,
                kind,
                n_in,
                x as *const _,
                kind,
                n_in,
                (&raw const zero).cast(),
                out as *mut _,
                CUDA_R_32F,
                n_out,
                CUBLAS_COMPUTE_32F,
                CUBLAS_GEMM_DFALT,
            )
        }
        .w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device), shape))
}
