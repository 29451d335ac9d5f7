//! Applies interventions: changes the values at a hook point for the inputs and tokens that an intervention names.
//!
//! The other inputs of the batch are not touched: their numbers are the same, bit for bit, with or without it.

use std::{collections::HashMap, ops::Range};

use super::map_part::MapPart;
use crate::{
    Batch,
    ops::attention::AttentionSpec,
    packing::{Packing, RowSet},
};
use residuum_domain::{Edit, Hook, Op, Site, Tokens};

/// The interventions of a batch, by hook; at each hook in the order of the request.
pub struct Editor<'a> {
    packing: &'a Packing,
    by_hook: HashMap<Hook, Vec<Placed<'a>>>,
}

/// One change to one input of the batch.
struct Placed<'a> {
    item: usize,
    edit: &'a Edit,
    numbers: &'a [f32],
    tokens: &'a Tokens,
    keys: &'a Tokens,
}

impl<'a> Editor<'a> {
    /// The interventions of `batch`; `None` when there are none.
    pub fn new(batch: &Batch<'a>, packing: &'a Packing) -> Option<Self> {
        let mut by_hook: HashMap<Hook, Vec<Placed<'a>>> = HashMap::new();
        for (item, input) in batch.inputs.iter().enumerate() {
            let Some(edits) = input.edits else { continue };
            for (place, applied) in edits.applied.iter().enumerate() {
                let (tokens, keys) = (&applied.tokens, &applied.keys);
                for edit in edits.edits.of(applied.index(place)) {
                    let placed = Placed { item, edit, numbers: &edits.edits.numbers, tokens, keys };
                    by_hook.entry(edit.hook).or_default().push(placed);
                }
            }
        }
        (!by_hook.is_empty()).then_some(Self { packing, by_hook })
    }

    /// Whether an intervention changes anything at `hook`.
    pub fn edits(&self, hook: Hook) -> bool {
        self.by_hook.contains_key(&hook)
    }

    /// Applies the interventions at `hook` to a buffer that holds the rows of `set`.
    pub fn rows(&self, hook: Hook, values: &mut [f32], set: RowSet) {
        let Some(placed) = self.by_hook.get(&hook) else { return };
        let selection = self.packing.of(set);
        let width = values.len() / selection.positions.len().max(1);
        for one in placed {
            let rows = selection.offsets[one.item]..selection.offsets[one.item + 1];
            let buffer = &mut values[rows.start * width..rows.end * width];
            for (position, row) in selection.positions[rows].iter().zip(buffer.chunks_exact_mut(width)) {
                one.change(*position, row);
            }
        }
    }

    /// As [`Self::rows`], for a buffer that holds only some rows of `set`: `rows` are their indices in `set`.
    pub fn some_rows(&self, hook: Hook, rows: &[u32], values: &mut [f32], set: RowSet) {
        let Some(placed) = self.by_hook.get(&hook).filter(|_| !rows.is_empty()) else { return };
        let selection = self.packing.of(set);
        let width = values.len() / rows.len();
        for one in placed {
            let own = selection.offsets[one.item]..selection.offsets[one.item + 1];
            for (row, values) in rows.iter().zip(values.chunks_exact_mut(width)) {
                if own.contains(&(*row as usize)) {
                    one.change(selection.positions[*row as usize], values);
                }
            }
        }
    }

    /// The rows of `set` that are changed at any of `hooks`, ascending.
    pub fn touched(&self, hooks: &[Hook], set: RowSet) -> Vec<u32> {
        let selection = self.packing.of(set);
        let mut touched = Vec::new();
        for one in hooks.iter().filter_map(|hook| self.by_hook.get(hook)).flatten() {
            let own = selection.offsets[one.item]..selection.offsets[one.item + 1];
            touched.extend(own.filter(|row| one.tokens.place(selection.positions[*row]).is_some()));
        }
        touched.sort_unstable();
        touched.dedup();
        #[expect(clippy::cast_possible_truncation, reason = "a batch has fewer than 2^32 tokens")]
        touched.into_iter().map(|row| row as u32).collect()
    }

    /// The inputs whose attention maps are changed in layer `l`.
    pub fn mapped(&self, l: usize) -> Vec<usize> {
        let hooks = [Site::AttnScores, Site::Pattern].map(|site| Hook::block(site, l));
        let mut items: Vec<usize> =
            hooks.iter().filter_map(|hook| self.by_hook.get(hook)).flatten().map(|one| one.item).collect();
        items.sort_unstable();
        items.dedup();
        items
    }

    /// Applies the interventions at `hook` to part of an attention map, `[heads, queries, n_keys]`. Masked cells stay masked.
    pub fn map(&self, hook: Hook, spec: &AttentionSpec<'_>, part: &MapPart<'_>, cells: &mut [f32]) {
        let Some(placed) = self.by_hook.get(&hook) else { return };
        for one in placed.iter().filter(|one| one.item == part.input) {
            one.change_map(spec, part, cells);
        }
    }
}

impl Placed<'_> {
    /// Changes the row of the token at `position`, if the intervention names that token.
    fn change(&self, position: u32, row: &mut [f32]) {
        let Some(place) = self.tokens.place(position) else { return };
        for part in &self.edit.parts {
            apply(&self.edit.op, self.numbers, place, part, row);
        }
    }

    fn change_map(&self, spec: &AttentionSpec<'_>, part: &MapPart<'_>, cells: &mut [f32]) {
        let (n_queries, n_keys) = (part.positions.len(), part.n_keys);
        let heads = self.edit.parts.iter().flatten().flat_map(Clone::clone);
        for (h, head) in heads.enumerate().filter(|(_, head)| part.heads.contains(head)) {
            let head = head - part.heads.start;
            for (q, position) in part.positions.iter().enumerate() {
                let Some(place) = self.tokens.place(*position) else { continue };
                let row = &mut cells[(head * n_queries + q) * n_keys..][..n_keys];
                for key in spec.visible(*position as usize, n_keys) {
                    #[expect(clippy::cast_possible_truncation, reason = "a context is shorter than 2^32")]
                    let wanted = self.keys.place(key as u32).is_some();
                    if wanted {
                        self.change_cell(h, place, key, &mut row[key]);
                    }
                }
            }
        }
    }

    fn change_cell(&self, head: usize, place: usize, key: usize, cell: &mut f32) {
        match &self.edit.op {
            Op::Mask => *cell = f32::NEG_INFINITY,
            Op::Fill { value } => *cell = *value,
            Op::Scale { factor } => *cell *= factor,
            Op::Replace { table, n_rows, n_keys } => {
                let row = if *n_rows == 1 { 0 } else { place };
                if row < *n_rows && key < *n_keys {
                    *cell = self.numbers[table.start + (head * n_rows + row) * n_keys + key];
                }
            }
            // A run with these on attention maps is not accepted.
            Op::Add { .. } | Op::ProjectOut { .. } | Op::Set { .. } => {}
        }
    }
}

/// Applies `op` to the columns `part` of a row. `place` counts the tokens that the intervention touches.
fn apply(op: &Op, numbers: &[f32], place: usize, part: &[Range<usize>], row: &mut [f32]) {
    match op {
        Op::Add { vector } => pair(part, row, &numbers[vector.clone()], |x, v| *x += v),
        Op::Set { vector } => pair(part, row, &numbers[vector.clone()], |x, v| *x = v),
        Op::ProjectOut { direction } => {
            let direction = &numbers[direction.clone()];
            let mut along = 0.0;
            pair(part, row, direction, |x, u| along += f64::from(*x) * f64::from(u));
            #[expect(clippy::cast_possible_truncation, reason = "the row is float32")]
            pair(part, row, direction, |x, u| *x = (f64::from(*x) - along * f64::from(u)) as f32);
        }
        Op::Fill { value } => each(part, row, |x| *x = *value),
        Op::Scale { factor } => each(part, row, |x| *x *= factor),
        Op::Replace { table, n_rows, .. } => {
            let width = table.len() / n_rows;
            let at = if *n_rows == 1 { 0 } else { place };
            if at < *n_rows {
                pair(part, row, &numbers[table.clone()][at * width..][..width], |x, v| *x = v);
            }
        }
        Op::Mask => each(part, row, |x| *x = f32::NEG_INFINITY),
    }
}

fn each(part: &[Range<usize>], row: &mut [f32], mut change: impl FnMut(&mut f32)) {
    part.iter().for_each(|range| row[range.clone()].iter_mut().for_each(&mut change));
}

/// Calls `change` with each number of the columns `part` of a row, and the number at the same place of a vector of their length.
fn pair(part: &[Range<usize>], row: &mut [f32], vector: &[f32], mut change: impl FnMut(&mut f32, f32)) {
    let mut rest = vector.iter();
    for range in part {
        row[range.clone()].iter_mut().zip(&mut rest).for_each(|(x, v)| change(x, *v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(op: &Op, numbers: &[f32], place: usize, part: &[Range<usize>]) -> Vec<f32> {
        let mut row = vec![1.0, 2.0, 3.0, 4.0];
        apply(op, numbers, place, part, &mut row);
        row
    }

    #[test]
    fn operations_change_the_part_and_nothing_else() {
        let split = [0..1, 3..4];
        let numbers = [10.0, 20.0, 30.0, 40.0];
        assert_eq!(changed(&Op::Add { vector: 0..2 }, &numbers, 0, &split), [11.0, 2.0, 3.0, 24.0]);
        assert_eq!(changed(&Op::Set { vector: 2..4 }, &numbers, 0, &split), [30.0, 2.0, 3.0, 40.0]);
        assert_eq!(changed(&Op::Fill { value: 0.0 }, &numbers, 0, &split), [0.0, 2.0, 3.0, 0.0]);
        assert_eq!(changed(&Op::Scale { factor: -2.0 }, &numbers, 0, &split), [-2.0, 2.0, 3.0, -8.0]);
        let table = Op::Replace { table: 0..4, n_rows: 2, n_keys: 0 };
        assert_eq!(changed(&table, &numbers, 1, &split), [30.0, 2.0, 3.0, 40.0]);
        assert_eq!(changed(&table, &numbers, 2, &split), [1.0, 2.0, 3.0, 4.0], "there is no third row");
        let one = Op::Replace { table: 0..2, n_rows: 1, n_keys: 0 };
        assert_eq!(changed(&one, &numbers, 7, &split), [10.0, 2.0, 3.0, 20.0], "the only row serves everyone");
    }

    #[test]
    fn what_is_projected_out_is_gone() {
        let u = [0.6, 0.8];
        let row = changed(&Op::ProjectOut { direction: 0..2 }, &u, 0, std::slice::from_ref(&(1..3)));
        assert!((row[1] * 0.6 + row[2] * 0.8).abs() < 1e-6);
        assert_eq!([row[0], row[3]], [1.0, 4.0]);
    }
}
