//! The rotary tables of a loaded model: they grow as longer inputs arrive, and an input whose length changes its frequencies gets
//! a table of its own.

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
    /// The number of positions that the table covers, and the table.
    table: Mutex<(usize, Arc<RopeTable>)>,
}

/// The rotary tables of one batch.
#[derive(Debug)]
pub struct RotaryTables {
    runs: Vec<(Range<usize>, Arc<RopeTable>)>,
    interleaved: bool,
}

impl Rotary {
    /// The rotary embedding of a model that takes at most `n_ctx` tokens.
    pub fn new(rope: Rope, n_ctx: usize, interleaved: bool) -> Self {
        let table = Mutex::new((0, Arc::new(RopeTable::new(&rope.inv_freq, 0, rope.attention_factor))));
        Self { rope, n_ctx, interleaved, table }
    }

    /// A table for positions below `n`. Its entries do not depend on its size.
    fn table(&self, n: usize) -> Arc<RopeTable> {
        let mut held = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 < n {
            let size = n.next_power_of_two().min(self.n_ctx).max(n);
            *held = (size, Arc::new(RopeTable::new(&self.rope.inv_freq, size, self.rope.attention_factor)));
        }
        held.1.clone()
    }

    /// Whether texts of these two lengths have the same frequencies.
    pub fn is_alike(&self, length: usize, other: usize) -> bool {
        self.rope.long_inv_freq(length) == self.rope.long_inv_freq(other)
    }

    /// The tables for inputs of these lengths.
    pub fn tables(&self, lengths: &[usize]) -> RotaryTables {
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
        RotaryTables { runs, interleaved: self.interleaved }
    }
}

impl RotaryTables {
    /// Cosines and sines of the angles of the rows of `selection`, each `[rows, pairs]`.
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
