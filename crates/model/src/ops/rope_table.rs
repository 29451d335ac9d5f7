//! Tables of sines and cosines for rotary position embeddings (Su et al., 2021), and rotating rows with them.

use rayon::prelude::*;

use super::parallel;

/// Cosines and sines of every position's angles, `[n_positions, rotary / 2]` each.
#[derive(Clone, Debug)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// The table for angles `position * inv_freq[i]`, taken in single precision as transformers does; both functions are
    /// multiplied by `attention_factor` (1 except for YaRN and LongRoPE).
    pub fn new(inv_freq: &[f32], n_positions: usize, attention_factor: f32) -> Self {
        let mut cos = Vec::with_capacity(n_positions * inv_freq.len());
        let mut sin = Vec::with_capacity(n_positions * inv_freq.len());
        for position in 0..n_positions {
            for frequency in inv_freq {
                let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
                cos.push(cosine as f32 * attention_factor);
                sin.push(sine as f32 * attention_factor);
            }
        }
        Self { half: inv_freq.len(), cos, sin }
    }

    /// Cosine and sine of the angles at these positions, each below the table's `n_positions`, appended to `cos` and `sin`:
    /// `[positions, rotary / 2]`.
    pub fn angles(&self, positions: &[u32], cos: &mut Vec<f32>, sin: &mut Vec<f32>) {
        for position in positions {
            let at = *position as usize * self.half..(*position as usize + 1) * self.half;
            cos.extend_from_slice(&self.cos[at.clone()]);
            sin.extend_from_slice(&self.sin[at]);
        }
    }

    /// Rotates `x[tokens, heads, d_head]` in place: of each head the first `2 * inv_freq.len()` dimensions, in pairs
    /// `(2i, 2i + 1)` where `interleaved` (GPT-J), else `(i, i + half)` (Llama). `positions` is `[tokens]`, each below the
    /// table's `n_positions`.
    pub fn apply(&self, x: &mut [f32], heads: usize, d_head: usize, positions: &[u32], interleaved: bool) {
        let half = self.half;
        let width = heads * d_head;
        assert!(2 * half <= d_head, "more rotated dimensions than a head has");
        assert_eq!(x.len(), positions.len() * width);
        if half == 0 {
            return;
        }
        let rows = parallel::rows_of_a_task(positions.len(), x.len() / 6);
        x.par_chunks_mut(rows * width).zip(positions.par_chunks(rows)).for_each(|(x, positions)| {
            for (token, &position) in x.chunks_exact_mut(width).zip(positions) {
                let at = position as usize * half;
                let (cos, sin) = (&self.cos[at..][..half], &self.sin[at..][..half]);
                for head in token.chunks_exact_mut(d_head) {
                    if interleaved {
                        rotate_interleaved(&mut head[..2 * half], cos, sin);
                    } else {
                        rotate_halves(&mut head[..2 * half], cos, sin);
                    }
                }
            }
        });
    }
}

fn rotate_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (low, high) = x.split_at_mut(cos.len());
    for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
    }
}

fn rotate_interleaved(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (pairs, _) = x.as_chunks_mut::<2>();
    for ((pair, c), s) in pairs.iter_mut().zip(cos).zip(sin) {
        let [a, b] = *pair;
        *pair = [a * c - b * s, b * c + a * s];
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_bits, numbers};
    use super::*;

    const HEADS: usize = 3;
    const D_HEAD: usize = 20;

    fn frequencies(half: usize) -> Vec<f32> {
        (0..half).map(|i| 10_000f32.powf(-(i as f32) / half as f32)).collect()
    }

    /// Rotation of each pair by the angle, as multiplication of complex numbers in double precision.
    fn reference(x: &[f32], inv_freq: &[f32], positions: &[u32], interleaved: bool, factor: f64) -> Vec<f64> {
        let mut out: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for (head, out) in out.chunks_exact_mut(D_HEAD).enumerate() {
            for (i, frequency) in inv_freq.iter().enumerate() {
                let angle = f64::from(positions[head / HEADS] as f32 * frequency);
                let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + inv_freq.len()) };
                let (re, im) = (out[a], out[b]);
                out[a] = factor * (re * angle.cos() - im * angle.sin());
                out[b] = factor * (re * angle.sin() + im * angle.cos());
            }
        }
        out
    }

    #[test]
    fn rotation_agrees_with_complex_multiplication() {
        let positions = [0, 1, 2, 500, 4095, 7];
        let x = numbers(1, positions.len() * HEADS * D_HEAD);
        for half in [1, 4, 10] {
            for interleaved in [false, true] {
                for factor in [1.0, 1.25] {
                    let inv_freq = frequencies(half);
                    let table = RopeTable::new(&inv_freq, 4096, factor);
                    let mut y = x.clone();
                    table.apply(&mut y, HEADS, D_HEAD, &positions, interleaved);
                    assert_close(&y, &reference(&x, &inv_freq, &positions, interleaved, f64::from(factor)), 5e-7);
                }
            }
        }
    }

    #[test]
    fn a_token_has_the_same_bits_in_any_batch() {
        let table = RopeTable::new(&frequencies(10), 2000, 1.0);
        let positions: Vec<u32> = (0..2000).collect();
        let x = numbers(2, 2000 * HEADS * D_HEAD);
        for interleaved in [false, true] {
            let mut all = x.clone();
            table.apply(&mut all, HEADS, D_HEAD, &positions, interleaved);
            for token in [0, 999, 1999] {
                let at = token * HEADS * D_HEAD..(token + 1) * HEADS * D_HEAD;
                let mut alone = x[at.clone()].to_vec();
                table.apply(&mut alone, HEADS, D_HEAD, &positions[token..=token], interleaved);
                assert_same_bits(&alone, &all[at]);
            }
        }
    }
}
