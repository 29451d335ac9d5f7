//! Attention maps in parts: those of a long input are too large to be held at once.

use std::ops::Range;

/// Part of an attention map: the cells of some heads and queries of one input.
#[derive(Debug)]
pub struct MapPart<'p> {
    /// The input.
    pub input: usize,
    /// The heads.
    pub heads: Range<usize>,
    /// Positions of the queries.
    pub positions: &'p [u32],
    /// Keys of each row.
    pub n_keys: usize,
}

impl MapPart<'_> {
    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.heads.len() * self.positions.len() * self.n_keys
    }
}

/// Heads and rows of an attention map `[heads, rows, keys]`, at most `limit` cells together: whole heads, or rows of one where it
/// has too many.
pub fn map_pieces(heads: usize, rows: usize, keys: usize, limit: usize) -> Vec<(Range<usize>, Range<usize>)> {
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
    fn a_large_map_goes_in_pieces_that_cover_it_in_order() {
        const LIMIT: usize = 8 << 20;
        for (heads, rows, keys) in
            [(9, 2048, 2048), (9, 7, 7), (2, 4000, 5000), (3, 2, LIMIT + 1), (4, 3, 1), (2, 0, 5)]
        {
            let mut at = 0;
            for (of_heads, of_rows) in map_pieces(heads, rows, keys, LIMIT) {
                assert_eq!((of_heads.start * rows + of_rows.start) * keys, at, "behind the piece before");
                let n = of_heads.len() * of_rows.len() * keys;
                assert!(n <= LIMIT || (of_heads.len(), of_rows.len()) == (1, 1), "{n} cells");
                assert!(of_heads.len() == 1 || of_rows == (0..rows), "whole heads, or rows of one");
                at += n;
            }
            assert_eq!(at, heads * rows * keys);
        }
        assert_eq!(map_pieces(9, 2048, 2048, LIMIT).len(), 5);
        assert_eq!(map_pieces(9, 7, 7, LIMIT), [(0..9, 0..7)]);
    }
}
