//! The layout of a pack: where each number goes. It is computed before the forward pass, so that tensors can be written to their
//! place at once.
//!
//! A pack holds one tensor per hook. The rows of its items follow each other along the first axis, `[Σ rows, …]`;
//! attention maps `[head, q, k]` differ in shape between items and follow each other flat. All items of a pack share hooks, row shapes and dtype,
//! so two numbers per item (`row_start`, `map_start`) find its part of every tensor.

use std::{ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{dtype::Dtype, hook::Hook, positions::Rows};

/// One item's part of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemSpan {
    /// Tokens of the input.
    pub n_tokens: usize,
    /// Rows stored for each hook.
    pub n_rows: usize,
    /// First row in the tensors `[Σ rows, …]`.
    pub row_start: usize,
    /// First cell of one head in the flat attention maps; `map_start × heads` cells precede the item.
    pub map_start: usize,
}

impl ItemSpan {
    /// Cells of one head's attention map: rows × keys.
    #[must_use]
    pub fn n_map(&self) -> usize {
        self.n_rows * self.n_tokens
    }
}

/// The tensors of a pack and the ranges of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackLayout {
    /// One tensor each, in execution order.
    pub hooks: Arc<[Hook]>,
    /// Shape of one row of each hook (`[d_model]`; `[heads]` for attention maps).
    pub row_shapes: Vec<Vec<usize>>,
    /// Element type.
    pub dtype: Dtype,
    /// Items in order.
    pub items: Vec<ItemSpan>,
}

impl PackLayout {
    /// Lays out items one after the other.
    ///
    /// `row_shapes[i]` is the shape of one row of `hooks[i]`; each item is its token count with its stored rows.
    #[must_use]
    pub fn new(hooks: Arc<[Hook]>, row_shapes: Vec<Vec<usize>>, dtype: Dtype, items: &[(usize, &Rows)]) -> Self {
        let (mut row_start, mut map_start) = (0, 0);
        let items = items
            .iter()
            .map(|(n_tokens, rows)| {
                let span = ItemSpan { n_tokens: *n_tokens, n_rows: rows.len(), row_start, map_start };
                row_start += span.n_rows;
                map_start += span.n_map();
                span
            })
            .collect();
        Self { hooks, row_shapes, dtype, items }
    }

    /// The layout of some of its items.
    #[must_use]
    pub fn part(&self, items: Range<usize>) -> Self {
        let mut items = self.items[items].to_vec();
        let (row_start, map_start) = items.first().map_or((0, 0), |first| (first.row_start, first.map_start));
        for span in &mut items {
            span.row_start -= row_start;
            span.map_start -= map_start;
        }
        Self { hooks: Arc::clone(&self.hooks), row_shapes: self.row_shapes.clone(), dtype: self.dtype, items }
    }

    /// Number of rows of all items.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.items.last().map_or(0, |s| s.row_start + s.n_rows)
    }

    /// Number of attention-map cells of all items, for one head.
    #[must_use]
    pub fn n_map(&self) -> usize {
        self.items.last().map_or(0, |s| s.map_start + s.n_map())
    }

    /// Number of elements of one row of hook `hook`; for attention maps, of one cell over all heads.
    fn row_len(&self, hook: usize) -> usize {
        self.row_shapes[hook].iter().product()
    }

    /// Shape of the whole tensor of hook `hook`: `[Σ rows, …row]`, or flat for attention maps.
    #[must_use]
    pub fn tensor_shape(&self, hook: usize) -> Vec<usize> {
        if self.hooks[hook].site().is_attention_map() {
            return vec![self.n_map() * self.row_len(hook)];
        }
        let mut shape = vec![self.n_rows()];
        shape.extend_from_slice(&self.row_shapes[hook]);
        shape
    }

    /// Size in bytes of the whole tensor of hook `hook`.
    #[must_use]
    pub fn tensor_bytes(&self, hook: usize) -> u64 {
        self.tensor_shape(hook).iter().map(|n| *n as u64).product::<u64>() * self.dtype.size() as u64
    }

    /// Byte offset of the tensor of hook `hook` after the header. Tensors follow each other in hook order, without gaps.
    #[must_use]
    pub fn tensor_offset(&self, hook: usize) -> u64 {
        (0..hook).map(|h| self.tensor_bytes(h)).sum()
    }

    /// Size in bytes of all tensors.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.tensor_offset(self.hooks.len())
    }

    /// The range of elements of hook `hook` that belong to `items`, counted from the start of its tensor.
    #[must_use]
    pub fn elements(&self, hook: usize, items: Range<usize>) -> Range<usize> {
        let map = self.hooks[hook].site().is_attention_map();
        let at = |i: usize| match self.items.get(i) {
            Some(s) if map => s.map_start,
            Some(s) => s.row_start,
            None if map => self.n_map(),
            None => self.n_rows(),
        };
        let len = self.row_len(hook);
        at(items.start) * len..at(items.end) * len
    }

    /// Size in bytes of one item over all hooks.
    #[must_use]
    pub fn item_bytes(&self, item: usize) -> u64 {
        (0..self.hooks.len()).map(|h| (self.elements(h, item..item + 1).len() * self.dtype.size()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Site;

    #[test]
    fn items_follow_each_other_without_gaps() {
        let hooks: Arc<[Hook]> = [Hook::block(Site::Pattern, 0), Hook::block(Site::ResidPost, 0)].into();
        let (all, last) = (Rows::List(vec![0, 1, 2]), Rows::List(vec![4]));
        let layout = PackLayout::new(hooks, vec![vec![2], vec![8]], Dtype::Float16, &[(3, &all), (5, &last)]);
        assert_eq!(layout.tensor_shape(0), [(9 + 5) * 2]);
        assert_eq!(layout.tensor_shape(1), [4, 8]);
        assert_eq!(layout.elements(0, 1..2), 18..28);
        assert_eq!(layout.elements(1, 0..2), 0..32);
        assert_eq!(layout.tensor_offset(1), 56);
        assert_eq!(layout.total_bytes(), 56 + 64);
        assert_eq!(layout.item_bytes(0) + layout.item_bytes(1), layout.total_bytes());
        let alone = |items: &[(usize, &Rows)]| {
            PackLayout::new(Arc::clone(&layout.hooks), layout.row_shapes.clone(), layout.dtype, items)
        };
        assert_eq!(layout.part(1..2), alone(&[(5, &last)]));
        assert_eq!(layout.part(0..2), layout);
        assert_eq!(layout.part(1..1), alone(&[]));
    }
}
