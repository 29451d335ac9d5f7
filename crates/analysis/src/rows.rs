//! Reads rows of activations block by block, and centres or normalises them before they are compared.

use std::{convert::Infallible, ops::Range};

/// Number of values in one block of rows: 8 MiB in float64.
const BLOCK: usize = 1 << 20;

/// A matrix `[n_rows, width]` whose rows can be read repeatedly.
pub trait RowSource: Sync {
    /// Why a read may fail.
    type Error: Send;

    /// Number of rows.
    fn n_rows(&self) -> usize;

    /// Number of values in a row.
    fn width(&self) -> usize;

    /// Reads these rows, concatenated.
    ///
    /// # Errors
    /// Those of the source.
    fn read(&self, rows: Range<usize>) -> Result<Vec<f32>, Self::Error>;
}

/// Rows in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryRows {
    width: usize,
    values: Vec<f32>,
}

impl MemoryRows {
    /// Rows that all have the same width; the width is 0 if there are no rows.
    #[must_use]
    pub fn new(rows: &[Vec<f32>]) -> Self {
        Self { width: rows.first().map_or(0, Vec::len), values: rows.concat() }
    }
}

impl RowSource for MemoryRows {
    type Error = Infallible;

    fn n_rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&self, rows: Range<usize>) -> Result<Vec<f32>, Infallible> {
        Ok(self.values[rows.start * self.width..rows.end * self.width].to_vec())
    }
}

/// How rows are transformed before they are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preparation {
    /// Subtract the mean over the rows.
    pub center: bool,
    /// Then scale each row to unit length. A row of zeros stays zero.
    pub normalize: bool,
}

/// Transformed rows, in float64.
#[derive(Debug, Clone)]
pub struct Prepared<S> {
    source: S,
    mean: Option<Vec<f64>>,
    normalize: bool,
}

impl<S: RowSource> Prepared<S> {
    /// Reads the rows once if they are to be centred.
    ///
    /// # Errors
    /// Those of the source.
    pub fn new(source: S, preparation: Preparation) -> Result<Self, S::Error> {
        let mut this = Self { source, mean: None, normalize: false };
        if preparation.center {
            this.mean = Some(this.column_means()?);
        }
        this.normalize = preparation.normalize;
        Ok(this)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.source.n_rows()
    }

    /// Number of values in a row.
    pub fn width(&self) -> usize {
        self.source.width()
    }

    /// Reads these rows, concatenated.
    ///
    /// # Errors
    /// Those of the source.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<f64>, S::Error> {
        let mut values: Vec<f64> = self.source.read(rows)?.into_iter().map(f64::from).collect();
        for row in values.chunks_exact_mut(self.width().max(1)) {
            if let Some(mean) = &self.mean {
                subtract(row, mean);
            }
            if self.normalize {
                scale_to_unit_length(row);
            }
        }
        Ok(values)
    }

    /// Calls `f` with each block of rows and the index of its first row.
    ///
    /// # Errors
    /// Those of the source.
    pub fn for_each_block(&self, mut f: impl FnMut(usize, &[f64])) -> Result<(), S::Error> {
        for block in blocks(self.n_rows(), self.width()) {
            f(block.start, &self.read(block.clone())?);
        }
        Ok(())
    }

    /// The mean over the rows, `[width]`. It sums deviations from the first row, so that the mean of equal rows is exactly
    /// that row.
    ///
    /// # Errors
    /// Those of the source.
    pub fn column_means(&self) -> Result<Vec<f64>, S::Error> {
        if self.n_rows() == 0 {
            return Ok(Vec::new());
        }
        let first = self.read(0..1)?;
        let mut sums = vec![0.0; self.width()];
        self.for_each_block(|_, block| {
            for row in block.chunks_exact(self.width().max(1)) {
                sums.iter_mut().zip(row.iter().zip(&first)).for_each(|(sum, (x, origin))| *sum += x - origin);
            }
        })?;
        let n = count(self.n_rows());
        Ok(sums.iter().zip(&first).map(|(sum, origin)| origin + sum / n).collect())
    }
}

/// Divides `n_rows` rows into ranges of about a block's values each, with at least one row.
pub fn blocks(n_rows: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (BLOCK / width.max(1)).max(1);
    (0..n_rows).step_by(step).map(move |start| start..(start + step).min(n_rows))
}

/// Memory in bytes for reading blocks of rows of this width: the float32 values, and the same in float64.
#[must_use]
pub fn block_bytes(width: usize) -> usize {
    BLOCK.max(width).saturating_mul(12)
}

/// `row -= mean`.
pub fn subtract(row: &mut [f64], mean: &[f64]) {
    row.iter_mut().zip(mean).for_each(|(x, m)| *x -= m);
}

fn scale_to_unit_length(row: &mut [f64]) {
    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x /= length);
    }
}

/// A count as a float64.
#[expect(clippy::cast_precision_loss, reason = "counts of rows and values are far below 2^53")]
#[must_use]
pub const fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_the_rows_once() {
        for (n, width) in [(0, 5), (1, 1), (10, BLOCK / 3), (4, 2 * BLOCK), (7, 0)] {
            let rows: Vec<usize> = blocks(n, width).flatten().collect();
            assert_eq!(rows, (0..n).collect::<Vec<_>>(), "{n} x {width}");
        }
        assert!(blocks(10, BLOCK / 3).all(|b| b.len() <= 3));
    }

    #[test]
    fn rows_are_centred_and_then_scaled() {
        let rows = MemoryRows::new(&[vec![4.0, 1.0], vec![-2.0, 1.0], vec![1.0, 1.0]]);
        let read = |center, normalize| {
            let prepared = Prepared::new(rows.clone(), Preparation { center, normalize }).unwrap();
            prepared.read(0..3).unwrap()
        };
        assert_eq!(read(true, false), [3.0, 0.0, -3.0, 0.0, 0.0, 0.0]);
        assert_eq!(read(true, true), [1.0, 0.0, -1.0, 0.0, 0.0, 0.0], "a row of zeros stays one");
        assert!((read(false, true)[0] - 4.0 / 17f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn the_mean_of_equal_rows_is_that_row() {
        let rows = vec![vec![0.1f32, 1e20]; 7];
        let means = Prepared::new(MemoryRows::new(&rows), Preparation::default()).unwrap().column_means().unwrap();
        assert_eq!(means, [f64::from(0.1f32), f64::from(1e20f32)]);
    }
}
