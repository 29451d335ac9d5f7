//! Checks a device before it is used: it must compute what the CPU computes. Otherwise a wrong driver or kernel could fill a store
//! with plausible but wrong numbers.

use super::{ComputeDtype, DeviceTransformer};
use crate::{
    Batch, ForwardError, Input, capture::taps::Taps, cpu::transformer::Transformer, packing::Packing,
    patching::InMemory,
};
use residuum_domain::{Dtype, Hook, ModelInfo, PackLayout, Rows, Site};

/// Lengths of the inputs. They differ, so that padding is checked too.
const LENGTHS: [usize; 3] = [24, 9, 1];

/// Largest deviation allowed: `‖device - cpu‖ / ‖cpu‖` of a row. Rounding errors of the compute type add up from block to block;
/// the deviation of a broken device is 1 or more.
fn tolerance(dtype: ComputeDtype) -> f64 {
    match dtype {
        ComputeDtype::Float32 => 1e-3,
        ComputeDtype::Float16 => 0.05,
        ComputeDtype::Bfloat16 => 0.25,
    }
}

/// Runs the same batches on both and compares the residual stream: after every block at every position, and after the last block at
/// the last position, where the last block computes fewer rows. Returns the largest deviation.
///
/// # Errors
/// What differs, or the error of a pass.
pub fn run(
    info: &ModelInfo,
    host: &Transformer,
    device: &DeviceTransformer,
    dtype: ComputeDtype,
) -> Result<f64, String> {
    let every: Vec<Hook> = (0..info.n_layers).map(|l| Hook::block(Site::ResidPost, l)).collect();
    let last = every[every.len() - 1..].to_vec();
    let mut largest = 0.0;
    for (hooks, rows) in [(every, all as fn(u32) -> Rows), (last, |n| Rows::List(vec![n - 1]))] {
        let [expected, got] = both(info, host, device, &hooks, rows).map_err(|e| e.to_string())?;
        for ((hook, expected), got) in hooks.iter().zip(&expected).zip(&got) {
            let deviation = largest_deviation(info.d_model, expected, got);
            // Written so that NaN is refused.
            if deviation.is_nan() || deviation > tolerance(dtype) {
                return Err(format!(
                    "a row of {hook} differs from the CPU's by {deviation:.2e} of its size in {dtype}, where {} is allowed",
                    tolerance(dtype)
                ));
            }
            largest = f64::max(largest, deviation);
        }
    }
    Ok(largest)
}

fn all(n: u32) -> Rows {
    Rows::List((0..n).collect())
}

/// The rows of some hooks, as the CPU and as the device compute them.
fn both(
    info: &ModelInfo,
    host: &Transformer,
    device: &DeviceTransformer,
    hooks: &[Hook],
    rows: fn(u32) -> Rows,
) -> Result<[Vec<Vec<f32>>; 2], ForwardError> {
    let shapes = hooks.iter().map(|h| info.row_shape(h.site())).collect();
    let inputs: Vec<(Vec<u32>, Rows)> = LENGTHS
        .iter()
        .map(|n| token_ids((*n).min(info.n_ctx), info.d_vocab))
        .map(|ids| {
            let rows = rows(u32::try_from(ids.len()).unwrap_or(u32::MAX));
            (ids, rows)
        })
        .collect();
    let spans: Vec<(usize, &Rows)> = inputs.iter().map(|(ids, rows)| (ids.len(), rows)).collect();
    let layout = PackLayout::new(hooks.into(), shapes, Dtype::Float32, &spans);
    let views: Vec<Input<'_>> = inputs.iter().map(|(ids, rows)| Input { token_ids: ids, rows, edits: None }).collect();
    let batch = Batch { inputs: &views, layout: &layout };
    let pass = |forward: &(dyn Fn(&Packing, &mut Taps<'_>) -> Result<(), ForwardError> + Sync)| {
        let mut sink = InMemory::new(hooks.len());
        rayon::scope(|_| {
            let packing = Packing::new(&batch, None, info)?;
            forward(&packing, &mut Taps::new(&batch, &packing, &mut sink))
        })?;
        Ok::<_, ForwardError>(sink.into_values())
    };
    let expected = pass(&|packing, taps| host.forward(&batch, packing, None, taps, &|| false))?;
    let got = pass(&|packing, taps| device.forward(host, &batch, packing, taps, &|| false))?;
    Ok([expected, got])
}

/// Tokens that are spread over the vocabulary.
#[expect(clippy::cast_possible_truncation, reason = "a vocabulary has fewer than 2^32 tokens")]
fn token_ids(n: usize, d_vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((i + 1) * 7919 % d_vocab) as u32).collect()
}

/// The largest deviation of a row of `d` numbers; NaN if the deviation of a row is NaN.
fn largest_deviation(d: usize, expected: &[f32], got: &[f32]) -> f64 {
    if expected.len() != got.len() {
        return f64::INFINITY;
    }
    let rows = expected.chunks_exact(d).zip(got.chunks_exact(d)).map(|(expected, got)| deviation(expected, got));
    rows.fold(0.0, |largest: f64, one| if one.is_nan() || one > largest { one } else { largest })
}

/// `‖got - expected‖ / ‖expected‖`
fn deviation(expected: &[f32], got: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let size: f64 = expected.iter().map(|x| square(f64::from(*x))).sum();
    let off: f64 = expected.iter().zip(got).map(|(x, y)| square(f64::from(*x) - f64::from(*y))).sum();
    if off == 0.0 { 0.0 } else { (off / size).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_that_differs_most_counts() {
        assert_eq!(deviation(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(deviation(&[3.0, 4.0], &[3.0, 3.0]), 0.2);
        assert_eq!(deviation(&[0.0], &[1.0]), f64::INFINITY);
        assert_eq!(largest_deviation(1, &[1000.0, 1.0], &[1000.0, 2.0]), 1.0, "a large row hides no small one");
        assert_eq!(largest_deviation(1, &[1.0, 1.0], &[1.0]), f64::INFINITY);
        assert!(largest_deviation(1, &[1.0, 1.0, 1.0], &[1.0, f32::NAN, 1.0]).is_nan());
    }
}
