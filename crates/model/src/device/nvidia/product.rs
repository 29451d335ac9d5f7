//! Matrix products that candle lacks: half-precision factors with float32 results, and float32 factors in TF32.

use std::ffi::{c_int, c_longlong};

use candle_core::{
    DType, Error, Result, Tensor,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::{
            cublas::{
                result::{gemm_ex, gemm_strided_batched_ex},
                sys::{
                    cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32},
                    cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
                    cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T},
                    cudaDataType_t::{self, CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F},
                },
            },
            driver::DeviceRepr,
        },
    },
};
use half::{bf16, f16};

use super::memory::{address, address_of, allocate, gpu, tensor};

/// Scalars that cuBLAS reads by their address.
static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;

/// `x weightᵀ`, `[rows, out_features]` in float32, for `x` `[rows, in_features]` and `weight` `[out_features, in_features]`, both
/// bfloat16 or both float16. Sums are float32.
pub fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    match (x.dtype(), weight.dtype()) {
        (DType::BF16, DType::BF16) => product_of::<bf16>(x, weight, CUDA_R_16BF),
        (DType::F16, DType::F16) => product_of::<f16>(x, weight, CUDA_R_16F),
        (x, weight) => Err(Error::msg(format!("there is no product of {x:?} and {weight:?}"))),
    }
}

fn product_of<T: CudaDType + DeviceRepr>(x: &Tensor, weight: &Tensor, kind: cudaDataType_t) -> Result<Tensor> {
    let ((rows, n_in), (n_out, depth)) = (x.dims2()?, weight.dims2()?);
    if depth != n_in {
        return Err(Error::msg(format!("[{rows}, {n_in}] cannot be multiplied by [{n_out}, {depth}]")));
    }
    let (x, gpu) = (x.contiguous()?, gpu(x)?);
    let out = allocate::<f32>(&gpu, rows * n_out)?;
    let (m, n, k) = (size(n_out)?, size(rows)?, size(n_in)?);
    let (a, b, c) = (address::<T>(weight)?, address::<T>(&x)?, address_of(&gpu, &out));
    // cuBLAS is column-major: it takes our matrix [a, b] for its transpose, with b rows. So it computes the transpose of the
    // product, weight xᵀ.
    // SAFETY: the tensors are contiguous and have the numbers that their shapes say.
    unsafe {
        gemm_ex(
            *gpu.cublas_handle().handle(),
            CUBLAS_OP_T,
            CUBLAS_OP_N,
            m,
            n,
            k,
            (&raw const ONE).cast(),
            a as *const _,
            kind,
            k,
            b as *const _,
            kind,
            k,
            (&raw const ZERO).cast(),
            c as *mut _,
            CUDA_R_32F,
            m,
            CUBLAS_COMPUTE_32F,
            CUBLAS_GEMM_DFALT,
        )
    }
    .w()?;
    Ok(tensor(gpu, out, (rows, n_out)))
}

/// `x yᵀ` `[batch, rows, columns]` for float32 `x` `[batch, rows, depth]` and `y` `[batch, columns, depth]`. With `tf32` the factors
/// are rounded to 11 bits, as many as float16 has.
pub fn batched_transposed(x: &Tensor, y: &Tensor, tf32: bool) -> Result<Tensor> {
    let ((batch, rows, depth), (_, columns, _)) = (x.dims3()?, y.dims3()?);
    batched(x, y, [batch, rows, columns, depth], y.dims() == [batch, columns, depth], true, tf32)
}

/// `x y` `[batch, rows, columns]` for float32 `x` `[batch, rows, depth]` and `y` `[batch, depth, columns]`; `tf32` as in
/// [`batched_transposed`].
pub fn batched_product(x: &Tensor, y: &Tensor, tf32: bool) -> Result<Tensor> {
    let ((batch, rows, depth), (_, _, columns)) = (x.dims3()?, y.dims3()?);
    batched(x, y, [batch, rows, columns, depth], y.dims() == [batch, depth, columns], false, tf32)
}

fn batched(
    x: &Tensor,
    y: &Tensor,
    [batch, rows, columns, depth]: [usize; 4],
    fits: bool,
    transposed: bool,
    tf32: bool,
) -> Result<Tensor> {
    if !fits {
        return Err(Error::msg(format!("{:?} cannot be multiplied by {:?}", x.dims(), y.dims())));
    }
    let (x, y, gpu) = (x.contiguous()?, y.contiguous()?, gpu(x)?);
    let out = allocate::<f32>(&gpu, batch * rows * columns)?;
    let (m, n, k) = (size(columns)?, size(rows)?, size(depth)?);
    let step = |n: usize| c_longlong::try_from(n).map_err(Error::wrap);
    let (a, b, c) = (address::<f32>(&y)?, address::<f32>(&x)?, address_of(&gpu, &out));
    // SAFETY: as in `product_of`, for every matrix of the batch.
    unsafe {
        gemm_strided_batched_ex(
            *gpu.cublas_handle().handle(),
            if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N },
            CUBLAS_OP_N,
            m,
            n,
            k,
            (&raw const ONE).cast(),
            a as *const _,
            CUDA_R_32F,
            if transposed { k } else { m },
            step(columns * depth)?,
            b as *const _,
            CUDA_R_32F,
            k,
            step(rows * depth)?,
            (&raw const ZERO).cast(),
            c as *mut _,
            CUDA_R_32F,
            m,
            step(rows * columns)?,
            size(batch)?,
            if tf32 { CUBLAS_COMPUTE_32F_FAST_TF32 } else { CUBLAS_COMPUTE_32F },
            CUBLAS_GEMM_DFALT,
        )
    }
    .w()?;
    Ok(tensor(gpu, out, (batch, rows, columns)))
}

fn size(n: usize) -> Result<c_int> {
    c_int::try_from(n).map_err(|_| Error::msg(format!("{n} rows or columns are too many")))
}
