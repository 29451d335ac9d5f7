//! The kernels of the forward pass against candle's operations, at the sizes of SmolLM2-135M.
//!
//! Each side is measured as it is used: our kernels write to a buffer that all blocks share, candle's make a new
//! tensor.
//!
//! ```sh
//! cargo bench --bench kernels                      # all
//! cargo bench --bench kernels -- 'products/up'     # some
//! ```

use std::hint::black_box;

use candle_core::{Device, Tensor};
use candle_nn::{ops, rotary_emb};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use residuum::model::ops::{
    Linear,
    activation::Activation,
    attention::{AttentionSpec, attention},
    norm::{Norm, Rms},
    rope_table::RopeTable,
};

const D_MODEL: usize = 576;
const D_MLP: usize = 1536;
const D_HEAD: usize = 64;
const N_HEADS: usize = 9;
const N_KV_HEADS: usize = 3;
/// Tokens of a batch: one token, a short prompt, a usual batch, a long text.
const ROWS: [usize; 4] = [1, 16, 256, 1024];

/// Values like those of a residual stream: around zero, and the same in each run.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state) / f64::from(u32::MAX) - 0.5) as f32
    };
    (0..n).map(|_| next()).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).expect("a tensor")
}

/// `y = x Wᵀ` for the shapes of one block.
fn products(c: &mut Criterion) {
    for (name, n_out, n_in) in
        [("q", D_MODEL, D_MODEL), ("k", N_KV_HEADS * D_HEAD, D_MODEL), ("up", D_MLP, D_MODEL), ("down", D_MODEL, D_MLP)]
    {
        let mut group = c.benchmark_group(format!("products/{name}"));
        let weight = numbers(n_out * n_in);
        let linear = Linear::pack(n_out, n_in, |i, row| row.copy_from_slice(&weight[i * n_in..][..n_in]));
        let transposed = tensor(&weight, &[n_out, n_in]).t().expect("a transposed weight");
        for rows in ROWS {
            let x = numbers(rows * n_in);
            // Two operations per weight: a multiplication and an addition.
            group.throughput(Throughput::Elements((2 * rows * n_out * n_in) as u64));
            let mut out = vec![0.0; rows * n_out];
            group.bench_with_input(BenchmarkId::new("residuum", rows), &rows, |b, _| {
                b.iter(|| linear.forward(black_box(&x), &mut out));
            });
            let x = tensor(&x, &[rows, n_in]);
            group.bench_with_input(BenchmarkId::new("candle", rows), &rows, |b, _| {
                b.iter(|| black_box(&x).matmul(&transposed).expect("a product"));
            });
        }
    }
}

fn norms(c: &mut Criterion) {
    let mut group = c.benchmark_group("rms_norm");
    let gain = numbers(D_MODEL);
    let norm = Norm::Rms(Rms { gain: gain.clone(), eps: 1e-5 });
    let gain = tensor(&gain, &[D_MODEL]);
    for rows in ROWS {
        let x = numbers(rows * D_MODEL);
        group.throughput(Throughput::Elements(x.len() as u64));
        let mut out = vec![0.0; x.len()];
        group.bench_with_input(BenchmarkId::new("residuum", rows), &rows, |b, _| {
            b.iter(|| norm.forward(black_box(&x), D_MODEL, &mut out));
        });
        let x = tensor(&x, &[rows, D_MODEL]);
        group.bench_with_input(BenchmarkId::new("candle", rows), &rows, |b, _| {
            b.iter(|| ops::rms_norm(black_box(&x), &gain, 1e-5).expect("a norm"));
        });
    }
}

/// `silu(gate) · up`.
fn gates(c: &mut Criterion) {
    let mut group = c.benchmark_group("silu_gate");
    for rows in ROWS {
        let (gate, up) = (numbers(rows * D_MLP), numbers(rows * D_MLP));
        group.throughput(Throughput::Elements(gate.len() as u64));
        let mut out = gate.clone();
        group.bench_with_input(BenchmarkId::new("residuum", rows), &rows, |b, _| {
            // In place, so the copy is measured too.
            b.iter(|| {
                out.copy_from_slice(black_box(&gate));
                Activation::Silu.gate(&mut out, &up);
            });
        });
        let (gate, up) = (tensor(&gate, &[rows, D_MLP]), tensor(&up, &[rows, D_MLP]));
        group.bench_with_input(BenchmarkId::new("candle", rows), &rows, |b, _| {
            b.iter(|| (black_box(&gate).silu().expect("an activation") * &up).expect("a product"));
        });
    }
}

fn rotations(c: &mut Criterion) {
    let mut group = c.benchmark_group("rope");
    let half = D_HEAD / 2;
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let inv_freq: Vec<f32> = (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect();
    let longest = ROWS[ROWS.len() - 1];
    let table = RopeTable::new(&inv_freq, longest, 1.0);
    #[expect(clippy::cast_possible_truncation, reason = "a text is short")]
    let positions: Vec<u32> = (0..longest as u32).collect();
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    table.angles(&positions, &mut cos, &mut sin);
    let (cos, sin) = (tensor(&cos, &[longest, half]), tensor(&sin, &[longest, half]));
    for rows in ROWS {
        let mut x = numbers(rows * D_MODEL);
        group.throughput(Throughput::Elements(x.len() as u64));
        let as_tensor = tensor(&x, &[1, rows, N_HEADS, D_HEAD]);
        group.bench_with_input(BenchmarkId::new("residuum", rows), &rows, |b, _| {
            b.iter(|| table.apply(black_box(&mut x), N_HEADS, D_HEAD, &positions[..rows], false));
        });
        group.bench_with_input(BenchmarkId::new("candle", rows), &rows, |b, _| {
            b.iter(|| rotary_emb::rope_thd(black_box(&as_tensor), &cos, &sin).expect("a rotation"));
        });
    }
}

/// Causal attention of one text: the scores of all heads, their softmax, the weighted values.
fn attentions(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let spec = AttentionSpec {
        n_heads: N_HEADS,
        n_kv_heads: N_KV_HEADS,
        d_head: D_HEAD,
        scale: 0.125,
        causal: true,
        window: None,
        softcap: None,
        key_biases: None,
    };
    for n in [16, 128, 512] {
        let (q, k, v) =
            (numbers(n * N_HEADS * D_HEAD), numbers(n * N_KV_HEADS * D_HEAD), numbers(n * N_KV_HEADS * D_HEAD));
        group.throughput(Throughput::Elements(n as u64));
        let mut z = vec![0.0; q.len()];
        group.bench_with_input(BenchmarkId::new("residuum", n), &n, |b, _| {
            b.iter(|| attention(&spec, &[0, n], None, black_box(&q), &k, &v, &mut z));
        });
        let heads = |values: &[f32], heads: usize| {
            let x = tensor(values, &[n, heads, D_HEAD]).transpose(0, 1).and_then(|x| x.contiguous());
            x.expect("heads")
        };
        // Every query head has its own copy of keys and values, as in candle's models.
        let repeated = |x: Tensor| {
            let group = N_HEADS / N_KV_HEADS;
            let x = x.unsqueeze(1).and_then(|x| x.expand((N_KV_HEADS, group, n, D_HEAD)));
            x.and_then(|x| x.reshape((N_HEADS, n, D_HEAD))).expect("heads")
        };
        let (q, k, v) = (heads(&q, N_HEADS), repeated(heads(&k, N_KV_HEADS)), repeated(heads(&v, N_KV_HEADS)));
        let hidden: Vec<f32> = (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0.0 }).collect();
        let mask = tensor(&hidden, &[1, n, n]);
        let attend = || -> candle_core::Result<Tensor> {
            let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * 0.125)?.broadcast_add(&mask)?;
            ops::softmax_last_dim(&scores)?.matmul(&v)
        };
        group.bench_with_input(BenchmarkId::new("candle", n), &n, |b, _| b.iter(|| attend().expect("attention")));
    }
}

criterion_group!(kernels, products, norms, gates, rotations, attentions);
criterion_main!(kernels);
