//! Splits attention maps into parts: the map of a long input is too large to be in memory at once.

use std::ops::Range;

/// Part of an attention map: the cells of some heads and some queries of one input.
#[derive(Debug)]
pub struct MapPart<'p> {
    /// Index of the input in the batch.
    pub input: usize,
    /// The heads.
    pub heads: Range<usize>,
    /// Positions of the queries.
    pub positions: &'p [u32],
    /// Number of keys: the length of a row.
    pub n_keys: usize,
}

impl MapPart<'_> {
    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.heads.len() * self.positions.len() * self.n_keys
    }
}

/// Splits an attention map `[heads, rows, keys]` into parts of at most `limit` cells: ranges of heads and of rows. A part has whole
/// heads, or some rows of one head that alone exceeds the limit.
pub fn split_map(heads: usize, rows: usize, keys: usize, limit: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let chunks = |n: usize, at_once: usize| (0..n).step_by(at_once).map(move |i| i..n.min(i + at_once));
    let of_head = rows * keys;
    if of_head <= limit {
        return chunks(heads, (limit / of_head.max(1)).max(1)).map(|heads| (heads, 0..rows)).collect();
    }
    let rows_at_once = (limit / keys).max(1);
    (0..heads).flat_map(|head| chunks(rows, rows_at_once).map(move |rows| (head..head + 1, rows))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_large_map_cover_it_in_order() {
        const LIMIT: usize = 8 << 20;
        for (heads, rows, keys) in
            [(9, 2048, 2048), (9, 7, 7), (2, 4000, 5000), (3, 2, LIMIT + 1), (4, 3, 1), (2, 0, 5)]
        {
            let mut at = 0;
            for (of_heads, of_rows) in split_map(heads, rows, keys, LIMIT) {
                assert_eq!((of_heads.start * rows + of_rows.start) * keys, at, "the parts follow each other");
                let n = of_heads.len() * of_rows.len() * keys;
                assert!(n <= LIMIT || (of_heads.len(), of_rows.len()) == (1, 1), "{n} cells");
                assert!(of_heads.len() == 1 || of_rows == (0..rows), "whole heads, or rows of one");
                at += n;
            }
            assert_eq!(at, heads * rows * keys);
        }
        assert_eq!(split_map(9, 2048, 2048, LIMIT).len(), 5);
        assert_eq!(split_map(9, 7, 7, LIMIT), [(0..9, 0..7)]);
    }
}
