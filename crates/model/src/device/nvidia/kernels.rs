//! Our own kernels (`kernels.cu`), for operations that take candle several passes over memory.

use candle_core::{
    DType, Error, Result, Tensor,
    cuda_backend::{
        CudaDType, WrapErr,
        cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg},
    },
};
use half::{bf16, f16};

use super::memory::{address, address_of, allocate, gpu, tensor};
use crate::{
    ops::{activation::Activation, attention::AttentionSpec},
    packing::index,
};

/// The PTX that `build.rs` compiles from `kernels.cu`.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// The name of the module on the GPU.
const MODULE: &str = "residuum";

/// Threads per block.
const THREADS: u32 = 256;
/// Rows per block of the softmax.
const ROWS: usize = THREADS as usize / 32;

/// Attention patterns from raw scores `[parts, heads, queries, keys]`: applies scale, softcap and biases as `spec` says, then the
/// softmax over the keys that a query sees; other cells are zero. `seen` is the range of these keys, as start and end,
/// `[parts or 1, queries, 2]`. `biases` is `[1, heads, 1, at least keys]`.
pub fn masked_softmax(
    spec: &AttentionSpec<'_>,
    scores: &Tensor,
    seen: &Tensor,
    biases: Option<&Tensor>,
) -> Result<Tensor> {
    let (parts, heads, queries, keys) = scores.dims4()?;
    let gpu = gpu(scores)?;
    let rows = parts * heads * queries;
    let out = allocate::<f32>(&gpu, rows * keys)?;
    let (stride, biases) = match biases {
        Some(biases) => (index(biases.dim(3)?), address::<f32>(biases)?),
        None => (0, 0),
    };
    let (from, to, seen_parts, seen) =
        (address::<f32>(scores)?, address_of(&gpu, &out), seen.dim(0)?, address::<u32>(seen)?);
    if !(seen_parts == 1 || seen_parts == parts) {
        return Err(Error::msg(format!("what {seen_parts} parts see, of {parts}")));
    }
    let cap = spec.softcap.unwrap_or(0.0);
    let (heads, queries, keys, seen_parts) = (index(heads), index(queries), index(keys), index(seen_parts));
    let n_rows = rows as u64;
    let kernel = gpu.get_or_load_custom_func("masked_softmax", MODULE, PTX)?;
    let mut launch = kernel.builder();
    launch.arg(&from).arg(&to).arg(&seen).arg(&biases).arg(&spec.scale).arg(&cap);
    launch.arg(&heads).arg(&queries).arg(&keys).arg(&seen_parts).arg(&stride).arg(&n_rows);
    // SAFETY: the arguments are those of the kernel, and the tensors have the shapes that it is told.
    unsafe { launch.launch(blocks(rows.div_ceil(ROWS))) }.w()?;
    Ok(tensor(gpu, out, scores.shape()))
}

/// `activation(gate) · up` for float32 tensors of one shape; the result is in `dtype`.
pub fn gated(activation: Activation, gate: &Tensor, up: &Tensor, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::BF16 => gated_to::<bf16>("gated_bf16", activation, gate, up),
        DType::F16 => gated_to::<f16>("gated_f16", activation, gate, up),
        _ => gated_to::<f32>("gated_f32", activation, gate, up),
    }
}

fn gated_to<T: CudaDType + DeviceRepr>(
    name: &str,
    activation: Activation,
    gate: &Tensor,
    up: &Tensor,
) -> Result<Tensor> {
    if gate.shape() != up.shape() {
        return Err(Error::msg(format!("a gate of {:?} for {:?}", gate.dims(), up.dims())));
    }
    let (gpu, n) = (gpu(gate)?, gate.elem_count());
    let out = allocate::<T>(&gpu, n)?;
    let (gate_at, up_at, to) = (address::<f32>(gate)?, address::<f32>(up)?, address_of(&gpu, &out));
    // The kernel's numbers for activations.
    let activation: u32 = match activation {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
        Activation::ReluSquared => 4,
        Activation::QuickGelu => 5,
    };
    let n_values = n as u64;
    let kernel = gpu.get_or_load_custom_func(name, MODULE, PTX)?;
    let mut launch = kernel.builder();
    launch.arg(&gate_at).arg(&up_at).arg(&to).arg(&activation).arg(&n_values);
    // SAFETY: as above.
    unsafe { launch.launch(blocks(n.div_ceil(4 * THREADS as usize).min(1 << 20))) }.w()?;
    Ok(tensor(gpu, out, gate.shape()))
}

/// `x / sqrt(mean(x²) + eps) · gain` for the rows of float32 `x` `[rows, d]`; the result is in half precision.
pub fn rms_norm(x: &Tensor, gain: &Tensor, eps: f32, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::BF16 => rms_norm_to::<bf16>("rms_norm_bf16", x, gain, eps),
        DType::F16 => rms_norm_to::<f16>("rms_norm_f16", x, gain, eps),
        other => Err(Error::msg(format!("there is no such norm in {other:?}"))),
    }
}

fn rms_norm_to<T: CudaDType + DeviceRepr>(name: &str, x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    let ((rows, width), x, gpu) = (x.dims2()?, x.contiguous()?, gpu(x)?);
    if gain.elem_count() != width {
        return Err(Error::msg(format!("a gain of {:?} for rows of {width}", gain.dims())));
    }
    let out = allocate::<T>(&gpu, rows * width)?;
    let (from, gain, to, width_at) = (address::<f32>(&x)?, address::<f32>(gain)?, address_of(&gpu, &out), index(width));
    let kernel = gpu.get_or_load_custom_func(name, MODULE, PTX)?;
    let mut launch = kernel.builder();
    launch.arg(&from).arg(&gain).arg(&to).arg(&eps).arg(&width_at);
    // SAFETY: as above.
    unsafe { launch.launch(blocks(rows)) }.w()?;
    Ok(tensor(gpu, out, (rows, width)))
}

/// Transposes float32 rows `[_, heads · width]`, or the `picked` ones of them, to `[parts, heads, rows of a part, width]`.
pub fn heads_first(x: &Tensor, picked: Option<&Tensor>, (parts, n, heads): (usize, usize, usize)) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let n_picked = picked.map_or(Ok(rows), |picked| picked.dim(0))?;
    if n_picked != parts * n || width % heads != 0 {
        return Err(Error::msg(format!("{n_picked} rows of {width} are not {parts} times {n} of {heads} heads")));
    }
    let (x, gpu) = (x.contiguous()?, gpu(x)?);
    let out = allocate::<f32>(&gpu, n_picked * width)?;
    let picked = picked.map_or(Ok(0), address::<u32>)?;
    let (from, to) = (address::<f32>(&x)?, address_of(&gpu, &out));
    let (rows_of_part, n_heads, of_head) = (index(n), index(heads), index(width / heads));
    let kernel = gpu.get_or_load_custom_func("heads_first", MODULE, PTX)?;
    let mut launch = kernel.builder();
    launch.arg(&from).arg(&to).arg(&picked).arg(&rows_of_part).arg(&n_heads).arg(&of_head);
    // SAFETY: as above; the rows that are picked are rows of `x`.
    unsafe { launch.launch(blocks(n_picked)) }.w()?;
    Ok(tensor(gpu, out, (parts, heads, n, width / heads)))
}

/// Transposes `[parts, heads, rows of a part, width]` to rows `[parts · rows, heads · width]`.
pub fn heads_last(x: &Tensor) -> Result<Tensor> {
    let (parts, heads, n, width) = x.dims4()?;
    let gpu = gpu(x)?;
    let out = allocate::<f32>(&gpu, x.elem_count())?;
    let (from, to) = (address::<f32>(x)?, address_of(&gpu, &out));
    let (rows_of_part, n_heads, of_head) = (index(n), index(heads), index(width));
    let kernel = gpu.get_or_load_custom_func("heads_last", MODULE, PTX)?;
    let mut launch = kernel.builder();
    launch.arg(&from).arg(&to).arg(&rows_of_part).arg(&n_heads).arg(&of_head);
    // SAFETY: as above.
    unsafe { launch.launch(blocks(parts * n)) }.w()?;
    Ok(tensor(gpu, out, (parts * n, heads * width)))
}

fn blocks(n: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (index(n), 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}
