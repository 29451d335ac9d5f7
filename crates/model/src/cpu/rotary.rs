//! Rotary tables at run time: grown as longer inputs arrive, and chosen per input where the length matters.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{architecture::rope::Rope, ops::rope_table::RopeTable, packing::Selection};

/// A rotary embedding with its table of sines and cosines.
#[derive(Debug)]
pub struct Rotary {
    rope: Rope,
    n_ctx: usize,
    interleaved: bool,
    /// The table and the number of positions it covers.
    table: Mutex<(usize, Arc<RopeTable>)>,
}

/// The tables of one batch: consecutive inputs that share one.
#[derive(Debug)]
pub struct Turn {
    runs: Vec<(Range<usize>, Arc<RopeTable>)>,
    interleaved: bool,
}

impl Rotary {
    /// A rotary embedding of a model that takes at most `n_ctx` tokens.
    pub fn new(rope: Rope, n_ctx: usize, interleaved: bool) -> Self {
        let table = Mutex::new((0, Arc::new(RopeTable::new(&rope.inv_freq, 0, rope.attention_factor))));
        Self { rope, n_ctx, interleaved, table }
    }

    /// The table for positions below `n`. Entries do not depend on the size of the table.
    fn table(&self, n: usize) -> Arc<RopeTable> {
        let mut held = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 < n {
            let size = n.next_power_of_two().min(self.n_ctx).max(n);
            *held = (size, Arc::new(RopeTable::new(&self.rope.inv_freq, size, self.rope.attention_factor)));
        }
        held.1.clone()
    }

    /// Whether texts of these two lengths are rotated alike.
    pub fn is_alike(&self, length: usize, other: usize) -> bool {
        self.rope.long_inv_freq(length) == self.rope.long_inv_freq(other)
    }

    /// The tables for inputs of these lengths.
    pub fn turn(&self, lengths: &[usize]) -> Turn {
        let mut runs: Vec<(Range<usize>, Arc<RopeTable>)> = Vec::new();
        let ordinary = self.table(lengths.iter().copied().max().unwrap_or(0));
        for (i, n) in lengths.iter().enumerate() {
            if let Some(inv_freq) = self.rope.long_inv_freq(*n) {
                runs.push((i..i + 1, Arc::new(RopeTable::new(&inv_freq, *n, self.rope.attention_factor))));
            } else if let Some((run, table)) = runs.last_mut()
                && Arc::ptr_eq(table, &ordinary)
            {
                run.end = i + 1;
            } else {
                runs.push((i..i + 1, ordinary.clone()));
            }
        }
        Turn { runs, interleaved: self.interleaved }
    }
}

impl Turn {
    /// Cosine and sine of the angles of the rows of `selection`, `[rows, pairs]` each.
    pub fn angles(&self, selection: &Selection) -> (Vec<f32>, Vec<f32>) {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for (inputs, table) in &self.runs {
            let rows = selection.offsets[inputs.start]..selection.offsets[inputs.end];
            table.angles(&selection.positions[rows], &mut cos, &mut sin);
        }
        (cos, sin)
    }

    /// Rotates `x` `[rows, heads, d_head]`, whose rows are those of `selection`, in place.
    pub fn apply(&self, x: &mut [f32], heads: usize, d_head: usize, selection: &Selection) {
        for (inputs, table) in &self.runs {
            let rows = selection.offsets[inputs.start]..selection.offsets[inputs.end];
            let values = rows.start * heads * d_head..rows.end * heads * d_head;
            table.apply(&mut x[values], heads, d_head, &selection.positions[rows], self.interleaved);
        }
    }
}
