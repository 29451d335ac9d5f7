//! Packs the left matrix of a product in the order in which the kernel reads it, with outliers set apart.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    outliers::{self, Outlier},
    parallel,
    simd::{Level, Op, Simd},
};

/// Rows of a block: a task multiplies one block with all its panels before it goes on to the next, so that the block stays in the
/// second-level cache. A multiple of the rows of every tile.
pub const ROW_BLOCK: usize = 96;

/// Packed rows: block by block, and within a block tile by tile, each tile as `[depth][its rows]`. So the kernel reads a tile
/// sequentially. (Goto and van de Geijn, 2008, "Anatomy of high-performance matrix multiplication", pack both matrices like
/// this.)
pub struct PackedRows<'a> {
    floats: &'a [f32],
    rows: usize,
    depth: usize,
    outliers: Vec<Outlier>,
}

impl<'a> PackedRows<'a> {
    /// Packs `x`, `[rows, depth]`, into `floats`, which has the same length. If `apart` is set, outliers are replaced by zeros and
    /// listed separately.
    pub fn pack(level: Level, x: &[f32], depth: usize, apart: bool, floats: &'a mut [f32]) -> Self {
        assert!(depth > 0 && x.len().is_multiple_of(depth), "x is not [rows, in_features]");
        assert_eq!(x.len(), floats.len());
        // checking and moving a float takes at least half a nanosecond
        let share = parallel::rows_of_a_task(x.len() / depth, x.len() / 2).next_multiple_of(ROW_BLOCK) * depth;
        let outliers = if share >= x.len() {
            level.run(Pack { x, depth, first: 0, apart, floats: &mut *floats })
        } else {
            let shares = x.par_chunks(share).zip(floats.par_chunks_mut(share)).enumerate();
            let found: Vec<_> = shares
                .map(|(i, (x, floats))| level.run(Pack { x, depth, first: i * share / depth, apart, floats }))
                .collect();
            found.concat()
        };
        Self { floats, rows: x.len() / depth, depth, outliers }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The rows of one tile, from column `from` on.
    #[inline(always)]
    pub fn tile(&self, rows: &Range<usize>, from: usize) -> *const f32 {
        self.floats[rows.start * self.depth + from * rows.len()..].as_ptr()
    }

    /// The outliers of some rows, ordered by row and column.
    pub fn outliers(&self, rows: &Range<usize>) -> &[Outlier] {
        let before = |row| self.outliers.partition_point(|o| o.row < row);
        &self.outliers[before(rows.start)..before(rows.end)]
    }
}

/// Number of tiles of a block with this many rows.
#[inline(always)]
pub fn tiles_of<S: Simd>(rows: usize) -> usize {
    rows.div_ceil(S::TILE_ROWS)
}

/// The rows of one tile of `block`. Tiles have nearly the same number of rows: a last tile of one row would take as long as a full
/// one.
#[inline(always)]
pub fn tile_of(block: &Range<usize>, tile: usize, tiles: usize) -> Range<usize> {
    block.start + tile * block.len() / tiles..block.start + (tile + 1) * block.len() / tiles
}

/// Packs some rows, which are numbered from `first`, and returns their outliers.
struct Pack<'a> {
    x: &'a [f32],
    depth: usize,
    first: usize,
    apart: bool,
    floats: &'a mut [f32],
}

impl Op for Pack<'_> {
    type Output = Vec<Outlier>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Outlier> {
        let Self { x, depth, first, apart, floats } = self;
        let rows = x.len() / depth;
        let mut found = Vec::new();
        for start in (0..rows).step_by(ROW_BLOCK) {
            let block = start..rows.min(start + ROW_BLOCK);
            let tiles = tiles_of::<S>(block.len());
            for i in 0..tiles {
                let tile = tile_of(&block, i, tiles);
                let range = tile.start * depth..tile.end * depth;
                let packed = &mut floats[range.clone()];
                interleave(&x[range.clone()], depth, packed);
                if apart {
                    let known = found.len();
                    for (row, values) in tile.clone().zip(x[range].chunks_exact(depth)) {
                        outliers::find(s, first + row, values, &mut found);
                    }
                    for outlier in &found[known..] {
                        packed[outlier.column * tile.len() + outlier.row - first - tile.start] = 0.0;
                    }
                }
            }
        }
        found
    }
}

/// Transposes `[rows, depth]` to `[depth][rows]`.
#[inline(always)]
fn interleave(x: &[f32], depth: usize, packed: &mut [f32]) {
    macro_rules! by_rows {
        ($($m:literal)+) => {
            match x.len() / depth {
                $($m => interleave_rows::<$m>(x, depth, packed),)+
                rows => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[inline(always)]
fn interleave_rows<const M: usize>(x: &[f32], depth: usize, packed: &mut [f32]) {
    let (packed, _) = packed.as_chunks_mut::<M>();
    let rows: [&[f32]; M] = std::array::from_fn(|i| &x[i * depth..][..depth]);
    for (k, packed) in packed.iter_mut().enumerate().take(depth) {
        for (to, row) in packed.iter_mut().zip(&rows) {
            *to = row[k];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_same_bits, numbers};
    use super::*;

    /// Unpacks the rows.
    fn unpacked<S: Simd>(packed: &PackedRows<'_>) -> Vec<f32> {
        let mut x = vec![f32::NAN; packed.rows() * packed.depth()];
        for start in (0..packed.rows()).step_by(ROW_BLOCK) {
            let block = start..packed.rows().min(start + ROW_BLOCK);
            let tiles = tiles_of::<S>(block.len());
            for i in 0..tiles {
                let tile = tile_of(&block, i, tiles);
                assert!((1..=S::TILE_ROWS).contains(&tile.len()));
                for k in 0..packed.depth() {
                    for row in tile.clone() {
                        // SAFETY: the tile has a float for each of its rows and columns.
                        x[row * packed.depth() + k] = unsafe { *packed.tile(&tile, k).add(row - tile.start) };
                    }
                }
            }
        }
        x
    }

    struct Check<'a>(&'a PackedRows<'a>);

    impl Op for Check<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> Vec<f32> {
            unpacked::<S>(self.0)
        }
    }

    #[test]
    fn every_row_is_in_its_tile_and_outliers_are_apart() {
        for level in Level::available() {
            for (rows, depth) in [(0, 8), (1, 576), (2, 600), (5, 7), (96, 33), (97, 576), (200, 600), (1000, 576)] {
                let mut x = numbers(rows as u64, rows * depth);
                let large: Vec<usize> = (0..rows).filter(|row| depth > 256 && row % 7 == 3 || *row == 96).collect();
                for row in &large {
                    (x[row * depth + 2], x[row * depth + depth - 1]) = (90.0, -90.0);
                }
                let mut rest = x.clone();
                let mut expected = Vec::new();
                if depth > 256 {
                    for &row in &large {
                        for (column, value) in [(2, 90.0), (depth - 1, -90.0)] {
                            rest[row * depth + column] = 0.0;
                            expected.push(Outlier { row, column, value });
                        }
                    }
                }
                let mut floats = vec![f32::NAN; x.len()];
                let packed = PackedRows::pack(level, &x, depth, true, &mut floats);
                assert_eq!(packed.outliers(&(0..rows)), expected);
                assert_same_bits(&level.run(Check(&packed)), &rest);
                let of_some: Vec<_> = expected.iter().filter(|o| (50..120).contains(&o.row)).copied().collect();
                assert_eq!(packed.outliers(&(50..120)), of_some);
                let whole = PackedRows::pack(level, &x, depth, false, &mut floats);
                assert!(whole.outliers(&(0..rows)).is_empty());
                assert_same_bits(&level.run(Check(&whole)), &x);
            }
        }
    }
}
