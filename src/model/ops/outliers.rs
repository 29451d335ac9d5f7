//! Entries of a row that dwarf its others, and what it takes to add their terms last.
//!
//! A trained transformer has a few dimensions, and a few neurons at its attention sinks, that are hundreds of times as
//! large as their neighbours (massive activations: Sun et al., 2024, arXiv 2402.17762). In a sum of products one such term
//! rounds every term behind it to its own last place, and where a later block takes the dimension back, that error is what
//! is left. So these terms are kept out of the sum and added to its result, each with one rounding. (Dettmers et al.,
//! 2022, arXiv 2208.07339, set whole columns apart for another reason, quantisation.)

use rayon::prelude::*;

use super::parallel;
use super::simd::map::load_partial;
use super::simd::{LANES, Level, Op, Simd};

/// How many times the root mean square of its row an entry must exceed. So at most one in 256 does, and none of a row of
/// up to 256. Part of the numbers.
const TIMES_RMS: f32 = 16.0;

/// An entry of a matrix that dwarfs the others of its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlier {
    pub row: usize,
    pub column: usize,
    pub value: f32,
}

/// A matrix whose outliers are zero as long as this lives. They are put back at its end.
pub struct WithoutOutliers<'a> {
    x: &'a mut [f32],
    depth: usize,
    outliers: Vec<Outlier>,
}

impl<'a> WithoutOutliers<'a> {
    /// Takes the outliers out of `x` `[rows, depth]`. Rows with a number that is not finite, or whose squares overflow,
    /// have none.
    pub fn new(level: Level, x: &'a mut [f32], depth: usize) -> Self {
        // Two floats are read and used in a nanosecond, or more.
        let share = parallel::rows_of_a_task(x.len() / depth, x.len() / 2) * depth;
        let outliers = if share >= x.len() {
            level.run(TakeOut { x: &mut *x, depth, first: 0 })
        } else {
            let shares = x.par_chunks_mut(share).enumerate();
            let found: Vec<_> =
                shares.map(|(i, x)| level.run(TakeOut { x, depth, first: i * share / depth })).collect();
            found.concat()
        };
        Self { x, depth, outliers }
    }

    /// The matrix with zeros for the outliers.
    pub fn rest(&self) -> &[f32] {
        self.x
    }

    /// All outliers, by row and then by column.
    pub fn outliers(&self) -> &[Outlier] {
        &self.outliers
    }
}

impl Drop for WithoutOutliers<'_> {
    fn drop(&mut self) {
        for outlier in &self.outliers {
            self.x[outlier.row * self.depth + outlier.column] = outlier.value;
        }
    }
}

/// Sets the outliers of some rows to zero and returns them; the rows are counted from `first`.
struct TakeOut<'a> {
    x: &'a mut [f32],
    depth: usize,
    first: usize,
}

impl Op for TakeOut<'_> {
    type Output = Vec<Outlier>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Outlier> {
        let mut outliers = Vec::new();
        for (i, row) in self.x.chunks_exact_mut(self.depth).enumerate() {
            let (squares, largest) = squares_and_largest(s, row);
            let limit = TIMES_RMS * TIMES_RMS * (squares / self.depth as f32);
            // Not so for NaN and infinity.
            if largest * largest > limit {
                for (n, chunk) in row.chunks_mut(LANES).enumerate() {
                    if has_larger(chunk, limit) {
                        let from = n * LANES;
                        for (k, x) in chunk.iter_mut().enumerate().filter(|(_, x)| **x * **x > limit) {
                            outliers.push(Outlier { row: self.first + i, column: from + k, value: *x });
                            *x = 0.0;
                        }
                    }
                }
            }
        }
        outliers
    }
}

/// Whether a square exceeds the limit. Without an early way out, so that it is done many at a time.
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
    use super::super::testing::{assert_same_bits, numbers};
    use super::*;

    /// Rows of numbers in -1..1, of which some are made large: `(row, column, value)`.
    fn with_large(rows: usize, depth: usize, large: &[(usize, usize, f32)]) -> Vec<f32> {
        let mut x = numbers(1, rows * depth);
        for (row, column, value) in large {
            x[row * depth + column] = *value;
        }
        x
    }

    #[test]
    fn what_dwarfs_its_row_is_taken_out_and_put_back() {
        let large = [(0, 3, 90.0), (2, 0, -400.0), (2, 575, 390.0), (999, 17, 90.0)];
        let before = with_large(1000, 576, &large);
        let expected: Vec<_> = large.map(|(row, column, value)| Outlier { row, column, value }).to_vec();
        let mut rest = before.clone();
        large.iter().for_each(|(row, column, _)| rest[row * 576 + column] = 0.0);
        for level in Level::available() {
            let mut x = before.clone();
            let apart = WithoutOutliers::new(level, &mut x, 576);
            assert_eq!(apart.outliers(), expected);
            assert_same_bits(apart.rest(), &rest);
            drop(apart);
            assert_same_bits(&x, &before);
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
                let apart = WithoutOutliers::new(level, &mut x, depth);
                assert_eq!(apart.outliers().len(), usize::from(dwarfs), "{depth}, {value}");
            }
        }
    }

    #[test]
    fn rows_without_a_finite_sum_of_squares_are_left_alone() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let before = with_large(3, 400, &[(0, 5, 90.0), (1, 3, 90.0), (1, 7, value)]);
            for level in Level::available() {
                let mut x = before.clone();
                let apart = WithoutOutliers::new(level, &mut x, 400);
                assert_eq!(apart.outliers(), [Outlier { row: 0, column: 5, value: 90.0 }], "{value}");
                assert_same_bits(&apart.rest()[400..], &before[400..]);
            }
        }
        let mut none: [f32; 0] = [];
        assert_eq!(WithoutOutliers::new(Level::best(), &mut none, 8).outliers(), []);
    }
}
