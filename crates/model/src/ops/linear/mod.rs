//! Linear layers: a weight that is packed once, and matrix products with it for any number of rows.

mod product_kernel;

use std::ops::Range;

use rayon::prelude::*;

use super::parallel::{self, Shared, with_scratch};
use super::rows::{PackedRows, ROW_BLOCK};
use super::simd::{LANES, Level, Line};
use product_kernel::Block;

/// Number of rows that are packed together. The weights are read from memory once for each such group. It is large enough to make
/// that rare, and small enough to keep the packed rows small.
const PACKED_ROWS: usize = 8 * ROW_BLOCK;

/// Floats of the output in one task; they are read and written once per depth block.
const OUTPUT_BLOCK: usize = 32 * 1024;

/// Weight `[out_features, in_features]`, packed into panels of 16 output features, and an optional bias.
///
/// Panel p holds `[in_features][16]`: for each input feature the weights of outputs 16p..16p+16, zero past the last.
#[derive(Clone)]
pub struct Linear {
    out_features: usize,
    in_features: usize,
    panels: Vec<Line>,
    bias: Option<Vec<f32>>,
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linear")
            .field("out_features", &self.out_features)
            .field("in_features", &self.in_features)
            .field("bias", &self.bias.is_some())
            .finish_non_exhaustive()
    }
}

impl Linear {
    /// Packs a weight `[out_features, in_features]`. `fill(i, row)` writes row `i`; it is called once for each row, in
    /// order, so a caller can convert rows while reading them, without a second copy of the weight.
    pub fn pack(out_features: usize, in_features: usize, mut fill: impl FnMut(usize, &mut [f32])) -> Self {
        assert!(out_features > 0 && in_features > 0, "an empty weight");
        let mut panels = Vec::with_capacity(out_features.div_ceil(LANES) * in_features);
        let mut rows = vec![0.0; LANES * in_features];
        for first in (0..out_features).step_by(LANES) {
            let n = LANES.min(out_features - first);
            for (i, row) in rows.chunks_exact_mut(in_features).take(n).enumerate() {
                fill(first + i, row);
            }
            rows[n * in_features..].fill(0.0);
            panels.extend((0..in_features).map(|k| Line(std::array::from_fn(|lane| rows[lane * in_features + k]))));
        }
        Self { out_features, in_features, panels, bias: None }
    }

    /// Packs a weight that is stored as `[in_features, out_features]`. `fill(k, column)` writes the weights of input feature
    /// `k`, `[out_features]`; it is called once for each input feature, in order, as in [`Self::pack`].
    pub fn pack_transposed(out_features: usize, in_features: usize, mut fill: impl FnMut(usize, &mut [f32])) -> Self {
        assert!(out_features > 0 && in_features > 0, "an empty weight");
        let n_panels = out_features.div_ceil(LANES);
        let mut panels = vec![Line::ZERO; n_panels * in_features];
        let mut column = vec![0.0; n_panels * LANES];
        for k in 0..in_features {
            fill(k, &mut column[..out_features]);
            for (panel, lanes) in column.as_chunks().0.iter().enumerate() {
                panels[panel * in_features + k] = Line(*lanes);
            }
        }
        Self { out_features, in_features, panels, bias: None }
    }

    /// Sets the bias, `[out_features]`.
    pub fn with_bias(mut self, bias: Option<Vec<f32>>) -> Self {
        if let Some(bias) = &bias {
            assert_eq!(bias.len(), self.out_features, "bias of another length than the outputs");
        }
        self.bias = bias;
        self
    }

    /// Number of output features: the rows of the weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Number of input features: the columns of the weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// The bias, `[out_features]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// `out[rows, out_features] = x[rows, in_features] · Wᵀ + b`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        forward_all(x, [(self, out)]);
    }

    /// `out[rows, out_features] = x[rows, cols.len()] · W[:, cols]ᵀ`, without the bias: what these input features alone
    /// contribute (a head's part of the attention output).
    pub fn forward_columns(&self, cols: Range<usize>, x: &[f32], out: &mut [f32]) {
        if cols.is_empty() {
            out.fill(0.0);
        } else {
            products(Level::best(), cols, x, Terms::Some, [(self, out)]);
        }
    }

    /// Reads row `i` of the weight back, exactly as it was packed: `out` is `[in_features]`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.out_features, "row {i} of a weight with {} rows", self.out_features);
        assert_eq!(out.len(), self.in_features);
        let panel = &self.panels[i / LANES * self.in_features..][..self.in_features];
        for (out, line) in out.iter_mut().zip(panel) {
            *out = line.0[i % LANES];
        }
    }

    /// `x` are the columns `cols` of the left matrix; `out` begins with its rows of the output.
    fn product(&self, level: Level, cols: Range<usize>, x: &PackedRows<'_>, bias: Option<&[f32]>, out: &mut [f32]) {
        assert!(cols.end <= self.in_features && cols.start <= cols.end, "columns {cols:?} of {}", self.in_features);
        let (rows, depth) = (x.rows(), x.depth());
        assert_eq!(depth, cols.len(), "x has other columns");
        let panels = self.out_features.div_ceil(LANES);
        let out = Shared::new(&mut out[..rows * self.out_features]);

        // Reading a line of a panel from memory takes about two nanoseconds, and multiplying it with a row a third of one.
        let panel_ns = depth * (2 + rows / 3);
        let row_blocks = rows.div_ceil(ROW_BLOCK);
        let tasks = parallel::tasks(panels * panel_ns);
        let cached = OUTPUT_BLOCK / (rows.clamp(1, ROW_BLOCK) * LANES);
        let column_blocks = tasks.div_ceil(row_blocks.max(1)).max(panels.div_ceil(cached)).min(panels);
        let block = |i: usize| {
            let (column, row) = (i / row_blocks, i % row_blocks * ROW_BLOCK);
            let rows = row..rows.min(row + ROW_BLOCK);
            level.run(Block {
                weight: self,
                cols: cols.clone(),
                x,
                bias,
                out,
                rows,
                panels: column * panels / column_blocks..(column + 1) * panels / column_blocks,
            });
        };
        let blocks = column_blocks * row_blocks;
        if tasks == 1 {
            (0..blocks).for_each(block);
        } else {
            (0..blocks).into_par_iter().with_max_len(1).for_each(block);
        }
    }
}

/// [`Linear::forward`] for several layers with the same input.
pub fn forward_all<const N: usize>(x: &[f32], layers: [(&Linear, &mut [f32]); N]) {
    forward_all_at(Level::best(), x, layers);
}

fn forward_all_at<const N: usize>(level: Level, x: &[f32], layers: [(&Linear, &mut [f32]); N]) {
    let Some(depth) = layers.first().map(|(linear, _)| linear.in_features) else { return };
    products(level, 0..depth, x, Terms::All, layers);
}

/// Which terms of the output's sums a product computes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Terms {
    /// All terms and the bias; outliers are added last.
    All,
    /// The terms of some columns.
    Some,
}

/// The products of the same rows with the columns `cols` of several weights.
fn products<const N: usize>(
    level: Level,
    cols: Range<usize>,
    x: &[f32],
    terms: Terms,
    mut layers: [(&Linear, &mut [f32]); N],
) {
    let (depth, all) = (cols.len(), terms == Terms::All);
    let rows = x.len() / depth;
    assert_eq!(x.len(), rows * depth, "x is not [rows, in_features]");
    for (linear, out) in &layers {
        assert_eq!(out.len(), rows * linear.out_features, "out is not [rows, out_features]");
    }
    for first in (0..rows).step_by(PACKED_ROWS) {
        let n = PACKED_ROWS.min(rows - first);
        with_scratch(n * depth, |floats| {
            let x = PackedRows::pack(level, &x[first * depth..][..n * depth], depth, all, floats);
            for (linear, out) in &mut layers {
                let bias = linear.bias().filter(|_| all);
                linear.product(level, cols.clone(), &x, bias, &mut out[first * linear.out_features..]);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, assert_same_bits, numbers};
    use super::*;

    const SHAPES: [(usize, usize); 9] =
        [(1, 1), (5, 3), (16, 16), (17, 31), (64, 64), (100, 257), (35, 600), (576, 192), (49, 1024)];
    const ROWS: [usize; 11] = [1, 2, 3, 5, 6, 7, 16, 17, 64, 201, PACKED_ROWS + 5];

    fn packed(seed: u64, out: usize, inner: usize) -> (Vec<f32>, Linear) {
        let weight = numbers(seed, out * inner);
        let linear = Linear::pack(out, inner, |i, row| row.copy_from_slice(&weight[i * inner..][..inner]));
        (weight, linear)
    }

    /// The product in double precision over columns `cols`.
    fn reference(weight: &[f32], inner: usize, cols: Range<usize>, x: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
        let mut out = Vec::new();
        for x in x.chunks_exact(cols.len()) {
            for (i, row) in weight.chunks_exact(inner).enumerate() {
                let terms = row[cols.clone()].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                out.push(terms.sum::<f64>() + bias.map_or(0.0, |b| f64::from(b[i])));
            }
        }
        out
    }

    #[test]
    fn forward_agrees_with_double_precision() {
        for level in Level::available() {
            for (i, (out, inner)) in SHAPES.into_iter().enumerate() {
                let (weight, linear) = packed(i as u64, out, inner);
                let bias = (i % 2 == 1).then(|| numbers(50, out));
                let linear = linear.with_bias(bias.clone());
                for rows in ROWS {
                    let x = numbers(100 + rows as u64, rows * inner);
                    let mut y = vec![f32::NAN; rows * out];
                    forward_all_at(level, &x, [(&linear, &mut y)]);
                    assert_close(&y, &reference(&weight, inner, 0..inner, &x, bias.as_deref()), 4e-6);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_in_any_batch() {
        for level in Level::available() {
            for (out, inner) in [(576, 192), (100, 600), (17, 31)] {
                let linear = packed(3, out, inner).1.with_bias(Some(numbers(4, out)));
                let mut x = numbers(5, 250 * inner);
                // Rows 3, 33, 63, .. have outliers, where they are long enough for any.
                for row in x.chunks_exact_mut(inner).skip(3).step_by(30) {
                    (row[inner / 2], row[inner - 1]) = (70.0, -90.0);
                }
                let mut alone = vec![0.0; 250 * out];
                for (x, y) in x.chunks_exact(inner).zip(alone.chunks_exact_mut(out)) {
                    forward_all_at(level, x, [(&linear, y)]);
                }
                for (first, rows) in [(0, 250), (0, 2), (7, 3), (100, 5), (1, 6), (13, 16), (200, 17), (30, 97)] {
                    let mut y = vec![f32::NAN; rows * out];
                    forward_all_at(level, &x[first * inner..][..rows * inner], [(&linear, &mut y)]);
                    assert_same_bits(&y, &alone[first * out..][..rows * out]);
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let linear = packed(6, 1000, 577).1;
        let x = numbers(7, 130 * 577);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let mut y = vec![f32::NAN; 130 * 1000];
            pool.install(|| linear.forward(&x, &mut y));
            y
        };
        let one = on(1);
        assert_same_bits(&on(2), &one);
        assert_same_bits(&on(5), &one);
    }

    #[test]
    fn instruction_sets_with_fused_multiply_add_agree() {
        let linear = packed(8, 83, 700).1;
        let x = numbers(9, 23 * 700);
        let results = Level::available().into_iter().filter(|level| level.is_fused()).map(|level| {
            let mut y = vec![f32::NAN; 23 * 83];
            forward_all_at(level, &x, [(&linear, &mut y)]);
            y
        });
        let results: Vec<_> = results.collect();
        for pair in results.windows(2) {
            assert_same_bits(&pair[1], &pair[0]);
        }
    }

    #[test]
    fn a_term_that_dwarfs_the_others_does_not_cost_them_their_digits() {
        let (mut weight, _) = packed(20, 33, 1536);
        weight.chunks_exact_mut(1536).for_each(|row| row[700] = 1.0);
        let linear = Linear::pack(33, 1536, |i, row| row.copy_from_slice(&weight[i * 1536..][..1536]));
        let mut x = numbers(21, 5 * 1536);
        x.chunks_exact_mut(1536).for_each(|row| row[700] = 65_536.0);
        let expected = reference(&weight, 1536, 0..1536, &x, None);
        for level in Level::available() {
            let mut y = vec![f32::NAN; 5 * 33];
            forward_all_at(level, &x, [(&linear, &mut y)]);
            for (y, e) in y.iter().zip(&expected) {
                // Half the last place of 65536 is 0.0039; in one chain each of the other terms would cost as much.
                assert!((f64::from(*y) - *e).abs() <= 0.0041, "{y} instead of {e}");
            }
        }
    }

    #[test]
    fn columns_alone_add_up_to_the_whole() {
        let (weight, linear) = packed(10, 70, 576);
        let linear = linear.with_bias(Some(numbers(11, 70)));
        let x = numbers(12, 5 * 576);
        for (head, cols) in [(0, 0..64), (3, 192..256), (8, 512..576), (0, 5..18), (0, 7..7), (0, 0..576)] {
            let part: Vec<f32> = x.chunks_exact(576).flat_map(|x| x[cols.clone()].to_vec()).collect();
            let mut y = vec![f32::NAN; 5 * 70];
            linear.forward_columns(cols.clone(), &part, &mut y);
            let expected = match cols.is_empty() {
                true => vec![0.0; 5 * 70],
                false => reference(&weight, 576, cols, &part, None),
            };
            assert_close(&y, &expected, 4e-6);
            assert!(head == 0 || y.iter().any(|&y| y != 0.0));
        }
    }

    #[test]
    fn rows_are_read_back_exactly() {
        let (weight, linear) = packed(13, 37, 29);
        let by_columns = Linear::pack_transposed(37, 29, |k, column| {
            column.iter_mut().zip(weight[k..].iter().step_by(29)).for_each(|(c, w)| *c = *w);
        });
        let mut row = vec![0.0; 29];
        for i in 0..37 {
            for linear in [&linear, &by_columns] {
                linear.row(i, &mut row);
                assert_same_bits(&row, &weight[i * 29..][..29]);
            }
        }
    }
}
