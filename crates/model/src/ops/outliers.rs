//! Outliers: entries of a row that are far larger than its others. Products add their terms last.
//!
//! A trained transformer has a few dimensions, and a few neurons at its attention sinks, that are hundreds of times as
//! large as their neighbours (massive activations: Sun et al., 2024, arXiv 2402.17762). In a sum of products, one such term makes
//! every later addition round to the last place of that term; if a later block cancels the dimension, the rounding error is
//! what remains. So these terms are left out of the sum and added to its result, with one rounding each. (Dettmers et al.,
//! 2022, arXiv 2208.07339, separate whole columns for another reason, quantisation.)

use super::simd::map::load_partial;
use super::simd::{LANES, Simd};

/// An outlier exceeds this many times the root mean square of its row. So at most one entry in 256 is an outlier, and a row of up
/// to 256 entries has none. Changing it changes the low bits of results.
const TIMES_RMS: f32 = 16.0;

/// An outlier of a row of a matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    pub row: usize,
    pub column: usize,
    pub value: f32,
}

/// Appends the outliers of a row. A row with a number that is not finite, or whose squares overflow, has none.
#[inline(always)]
pub fn find<S: Simd>(s: S, row: usize, values: &[f32], outliers: &mut Vec<Outlier>) {
    let (squares, largest) = squares_and_largest(s, values);
    let limit = TIMES_RMS * TIMES_RMS * (squares / values.len() as f32);
    // false for NaN and infinity
    if largest * largest > limit {
        for (n, chunk) in values.chunks(LANES).enumerate() {
            if has_larger(chunk, limit) {
                for (k, &value) in chunk.iter().enumerate() {
                    if value * value > limit {
                        outliers.push(Outlier { row, column: n * LANES + k, value });
                    }
                }
            }
        }
    }
}

/// Whether a square exceeds the limit. It does not stop early, so that the compiler vectorises it.
#[inline(always)]
fn has_larger(chunk: &[f32], limit: f32) -> bool {
    let mut larger = false;
    for x in chunk {
        larger |= x * x > limit;
    }
    larger
}

/// The sum of the squares of a row and its largest magnitude.
#[inline(always)]
fn squares_and_largest<S: Simd>(s: S, row: &[f32]) -> (f32, f32) {
    let mut squares = [s.splat(0.0); 2];
    let mut largest = [s.splat(0.0); 2];
    let (chunks, tail) = row.as_chunks::<LANES>();
    let (pairs, odd) = chunks.as_chunks::<2>();
    for pair in pairs {
        for (i, x) in pair.iter().enumerate() {
            let x = s.load(x);
            squares[i] = s.fma(x, x, squares[i]);
            largest[i] = s.max(s.abs(x), largest[i]);
        }
    }
    for x in odd {
        let x = s.load(x);
        squares[0] = s.fma(x, x, squares[0]);
        largest[0] = s.max(s.abs(x), largest[0]);
    }
    if !tail.is_empty() {
        let x = load_partial(s, tail);
        squares[1] = s.fma(x, x, squares[1]);
        largest[1] = s.max(s.abs(x), largest[1]);
    }
    let (mut of_squares, mut of_magnitudes) = ([0.0; LANES], [0.0; LANES]);
    s.store(s.add(squares[0], squares[1]), &mut of_squares);
    s.store(s.max(largest[0], largest[1]), &mut of_magnitudes);
    (of_squares.iter().sum(), of_magnitudes.into_iter().fold(0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, Op};
    use super::super::testing::numbers;
    use super::*;

    struct Find<'a>(&'a [f32]);

    impl Op for Find<'_> {
        type Output = Vec<Outlier>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<Outlier> {
            let mut found = Vec::new();
            find(s, 3, self.0, &mut found);
            found
        }
    }

    #[test]
    fn what_dwarfs_its_row_is_found() {
        let mut row = numbers(1, 577);
        for (column, value) in [(0, -400.0), (576, 390.0)] {
            row[column] = value;
        }
        let expected = [(0, -400.0), (576, 390.0)].map(|(column, value)| Outlier { row: 3, column, value });
        for level in Level::available() {
            assert_eq!(level.run(Find(&row)), expected);
        }
    }

    #[test]
    fn an_entry_must_exceed_sixteen_times_the_rms() {
        for level in Level::available() {
            for (depth, value, dwarfs) in [
                // The large one raises the RMS too: x² > 256 (511 + x²) / 512.
                (512, 22.5, false),
                (512, 22.7, true),
                (256, 1e9, false),
                (257, 1e9, true),
                (1, 5.0, false),
            ] {
                let mut x = vec![1.0; depth];
                x[depth / 2] = value;
                assert_eq!(level.run(Find(&x)).len(), usize::from(dwarfs), "{depth}, {value}");
            }
        }
    }

    #[test]
    fn rows_without_a_finite_sum_of_squares_have_none() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let mut x = numbers(2, 400);
            (x[3], x[7]) = (90.0, value);
            for level in Level::available() {
                assert_eq!(level.run(Find(&x)), [], "{value}");
            }
        }
    }
}
