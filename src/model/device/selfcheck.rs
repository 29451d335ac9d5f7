//! Before a device serves, it must compute what the CPU computes: a wrong driver or kernel shall not fill a store with
//! numbers that merely look right.

use super::{ComputeDtype, DeviceTransformer};
use crate::{
    domain::{Dtype, Hook, ModelInfo, PackLayout, Rows, Site},
    model::{Batch, ForwardError, Input, packing::Packing, patching::InMemory, taps::Taps, transformer::Transformer},
};

/// Tokens of the inputs: of different lengths, so that one is padded.
const LENGTHS: [usize; 3] = [24, 9, 1];

/// Largest deviation allowed: `‖device - cpu‖ / ‖cpu‖` over all rows of a hook. Roundings of the type of products add up from
/// block to block; what a broken device computes is off by one or more.
fn tolerance(dtype: ComputeDtype) -> f64 {
    match dtype {
        ComputeDtype::Float32 => 1e-3,
        ComputeDtype::Float16 => 0.05,
        ComputeDtype::Bfloat16 => 0.2,
    }
}

/// Runs the same batch on both and compares the residual stream behind every block; gives the largest deviation.
///
/// # Errors
/// What is wrong.
pub fn run(
    info: &ModelInfo,
    host: &Transformer,
    device: &DeviceTransformer,
    dtype: ComputeDtype,
) -> Result<f64, String> {
    let hooks: Vec<Hook> = (0..info.n_layers).map(|l| Hook::block(Site::ResidPost, l)).collect();
    let shapes = hooks.iter().map(|h| info.row_shape(h.site())).collect();
    let inputs: Vec<(Vec<u32>, Rows)> = LENGTHS.iter().map(|n| input((*n).min(info.n_ctx), info.d_vocab)).collect();
    let spans: Vec<(usize, &Rows)> = inputs.iter().map(|(ids, rows)| (ids.len(), rows)).collect();
    let layout = PackLayout::new(hooks.clone().into(), shapes, Dtype::Float32, &spans);
    let views: Vec<Input<'_>> = inputs.iter().map(|(ids, rows)| Input { token_ids: ids, rows, edits: None }).collect();
    let batch = Batch { inputs: &views, layout: &layout };
    let pass = |forward: &(dyn Fn(&Packing, &mut Taps<'_>) -> Result<(), ForwardError> + Sync)| {
        let mut sink = InMemory::new(hooks.len());
        rayon::scope(|_| {
            let packing = Packing::new(&batch, None, info)?;
            forward(&packing, &mut Taps::new(&batch, &packing, &mut sink))
        })?;
        Ok(sink.into_values())
    };
    let told = |e: ForwardError| e.to_string();
    let expected = pass(&|packing, taps| host.forward(&batch, packing, None, taps, &|| false)).map_err(told)?;
    let got = pass(&|packing, taps| device.forward(host, &batch, packing, taps, &|| false)).map_err(told)?;
    let mut largest = 0.0;
    for ((hook, expected), got) in hooks.iter().zip(&expected).zip(&got) {
        let deviation = deviation(expected, got);
        // Not a number fails, too.
        if !(deviation <= tolerance(dtype)) {
            return Err(format!(
                "{hook} differs from the CPU's by {deviation:.2e} of its size in {dtype}, where {:.0e} is allowed",
                tolerance(dtype)
            ));
        }
        largest = f64::max(largest, deviation);
    }
    Ok(largest)
}

/// Some tokens from all over the vocabulary, every row of them.
#[expect(clippy::cast_possible_truncation, reason = "a vocabulary has fewer than 2^32 tokens")]
fn input(n: usize, d_vocab: usize) -> (Vec<u32>, Rows) {
    let ids = (0..n).map(|i| ((i + 1) * 7919 % d_vocab) as u32).collect();
    (ids, Rows::List((0..n as u32).collect()))
}

fn deviation(expected: &[f32], got: &[f32]) -> f64 {
    if expected.len() != got.len() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let size: f64 = expected.iter().map(|x| square(f64::from(*x))).sum();
    let off: f64 = expected.iter().zip(got).map(|(x, y)| square(f64::from(*x) - f64::from(*y))).sum();
    if off == 0.0 { 0.0 } else { (off / size).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_same_deviates() {
        assert_eq!(deviation(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(deviation(&[3.0, 4.0], &[3.0, 3.0]), 0.2);
        assert_eq!(deviation(&[0.0], &[1.0]), f64::INFINITY);
        assert_eq!(deviation(&[0.0], &[]), f64::INFINITY);
        assert!(deviation(&[1.0], &[f32::NAN]).is_nan());
    }
}
