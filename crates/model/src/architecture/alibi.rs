//! Linear position biases of attention scores (ALiBi; Press et al., 2022, arXiv 2108.12409).

use crate::ops::attention::KeyBiases;

/// Biases that grow with the position of the key: `slope · position`, with a slope for each head. The paper uses the distance
/// between query and key, which differs by a constant for each query, and softmax cancels that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alibi {
    /// Factor of the biases. Falcon scales them like the products of queries and keys.
    pub scale: f32,
    /// Whether slopes, positions and their products are rounded to bfloat16, as Falcon does in every precision.
    pub bfloat16: bool,
}

impl Alibi {
    /// The biases of `n_heads` heads for the positions below `n_keys`.
    pub fn biases(self, n_heads: usize, n_keys: usize) -> KeyBiases {
        let slopes = slopes(n_heads);
        KeyBiases::new(n_heads, n_keys, |head, position| self.bias(slopes[head], position))
    }

    #[expect(clippy::cast_precision_loss, reason = "positions are far below 2^24")]
    fn bias(self, slope: f32, position: usize) -> f32 {
        let position = position as f32;
        let product = if self.bfloat16 { rounded(rounded(slope) * rounded(position)) } else { slope * position };
        product * self.scale
    }
}

/// To the nearest bfloat16.
fn rounded(x: f32) -> f32 {
    half::bf16::from_f32(x).to_f32()
}

/// The slope of each head: powers of `2^(-8/n)` for a number of heads n that is a power of two; for another number, those
/// of the power of two below it and then every second one of twice that power.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "heads are few, and the base is a float32 in the reference"
)]
fn slopes(n_heads: usize) -> Vec<f32> {
    let whole = 1 << n_heads.max(1).ilog2();
    let powers = |n: usize, step: usize| {
        let base = f64::from((-8.0 / n as f64).exp2() as f32);
        (1..=n as i32).step_by(step).map(move |i| base.powi(i) as f32)
    };
    powers(whole, 1).chain(powers(2 * whole, 2)).take(n_heads).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_powers_of_two_in_steps() {
        let exp2 = |exponents: &[f32]| exponents.iter().map(|e| e.exp2()).collect::<Vec<_>>();
        assert_eq!(slopes(8), exp2(&[-1., -2., -3., -4., -5., -6., -7., -8.]));
        assert_eq!(slopes(6), exp2(&[-2., -4., -6., -8., -1., -3.]));
        assert_eq!(slopes(1), exp2(&[-8.]));
        assert_eq!(slopes(71).len(), 71);
    }

    #[test]
    fn falcons_biases_are_rounded_before_they_are_scaled() {
        let falcon = Alibi { scale: 0.5, bfloat16: true };
        assert_eq!(falcon.bias(0.25, 100), 12.5);
        // 257 has nine bits.
        assert_eq!(falcon.bias(0.25, 257), 32.0);
        assert_eq!(Alibi { bfloat16: false, ..falcon }.bias(0.25, 257), 32.125);
    }
}
