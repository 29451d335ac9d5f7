//! The cells of a sweep: what each of them changes. They are made when they are computed, so a sweep that waits is small.

use std::ops::Range;

use residuum_domain::{Applied, Edit, Edits, Hook, Op, Parts, Tokens};
use residuum_model::patching::{Cell, Trace};

/// The axes whose product is the cells, the last one fastest: hooks, then tokens, keys and parts.
#[derive(Debug, Clone)]
pub struct Cells {
    /// The hooks, all of one site, in ascending order.
    pub hooks: Vec<Hook>,
    /// The positions that are changed, in ascending order; of an attention map the queries.
    pub tokens: Vec<Vec<u32>>,
    /// Of an attention map the keys, in ascending order; else one entry that is not used.
    pub keys: Vec<Vec<u32>>,
    /// The changed values of a row, as ranges; of an attention map the heads.
    pub parts: Parts,
}

/// What one cell changes.
#[derive(Debug, Clone, Copy)]
pub struct SweepCell<'a> {
    /// The hook, inside a block.
    pub hook: Hook,
    /// Index of the hook among those of the sweep.
    pub hook_index: usize,
    /// The positions, in ascending order; of an attention map the queries.
    pub tokens: &'a [u32],
    /// Of an attention map the keys.
    pub keys: &'a [u32],
    /// The changed values of a row, as ranges.
    pub part: &'a [Range<usize>],
}

/// The values that a sweep puts in the place of those of the unchanged pass.
pub enum NewValues<'a> {
    /// Those of another input.
    Of(&'a Trace),
    /// Zeros.
    Zeros,
    /// A row at each hook.
    Rows(&'a [Vec<f32>]),
    /// None: attention edges are masked.
    Masked,
}

impl Cells {
    /// Number of cells.
    pub fn len(&self) -> usize {
        let axes = [self.hooks.len(), self.tokens.len(), self.keys.len(), self.parts.len()];
        axes.into_iter().fold(1, usize::saturating_mul)
    }

    /// The cell at an index.
    pub fn cell(&self, i: usize) -> SweepCell<'_> {
        let (i, part) = (i / self.parts.len(), i % self.parts.len());
        let (i, keys) = (i / self.keys.len(), i % self.keys.len());
        let (hook_index, tokens) = (i / self.tokens.len(), i % self.tokens.len());
        SweepCell {
            hook: self.hooks[hook_index],
            hook_index,
            tokens: &self.tokens[tokens],
            keys: &self.keys[keys],
            part: &self.parts[part],
        }
    }

    /// Groups cells of one hook into batches of at most `room` tokens, or of one cell.
    pub fn batches(&self, n_tokens: usize, room: usize) -> Vec<Range<usize>> {
        let mut batches: Vec<Range<usize>> = Vec::new();
        let mut left = 0;
        for i in 0..self.len() {
            let cell = self.cell(i);
            let tokens = n_tokens.saturating_sub(cell.first());
            let same_hook = batches.last().is_some_and(|b| self.cell(b.start).hook == cell.hook);
            match batches.last_mut() {
                Some(batch) if same_hook && tokens <= left => {
                    batch.end = i + 1;
                    left -= tokens;
                }
                _ => {
                    batches.push(i..i + 1);
                    left = room.saturating_sub(tokens);
                }
            }
        }
        batches
    }
}

impl SweepCell<'_> {
    /// The first token that is changed.
    fn first(&self) -> usize {
        self.tokens.first().map_or(0, |p| *p as usize)
    }

    /// A forward pass with the changes of the cell: the same edits as those of a run with one intervention.
    ///
    /// # Errors
    /// What is inconsistent, if something is.
    pub fn pass(&self, values: &NewValues<'_>) -> Result<Cell, &'static str> {
        let mut numbers = Vec::new();
        let mut gather =
            |row: &[f32]| self.part.iter().for_each(|range| numbers.extend_from_slice(&row[range.clone()]));
        let mut parts = vec![self.part.to_vec()];
        let op = match values {
            NewValues::Of(source) => {
                let rows = source.rows(self.hook).ok_or("the source has no trace at the hook")?;
                let width = rows.len() / source.token_ids().len();
                self.tokens.iter().for_each(|position| gather(&rows[*position as usize * width..][..width]));
                Op::Replace { table: 0..numbers.len(), n_rows: self.tokens.len(), n_keys: 0 }
            }
            NewValues::Zeros => Op::Fill { value: 0.0 },
            NewValues::Rows(rows) => {
                gather(rows.get(self.hook_index).ok_or("there is no row for the hook")?);
                Op::Set { vector: 0..numbers.len() }
            }
            NewValues::Masked => {
                // heads of an attention map are changed one by one
                parts = self.part.iter().map(|head| vec![head.clone()]).collect();
                Op::Mask
            }
        };
        let list = |positions| Tokens::list(positions).ok_or("a position is named twice");
        let keys = if matches!(op, Op::Mask) { list(self.keys)? } else { Tokens::All };
        let applied = Applied { keys, tokens: list(self.tokens)?, ..Applied::told(serde_json::Map::new()) };
        let edit = Edit { hook: self.hook, intervention: 0, parts, op };
        Ok(Cell { edits: Edits::new(vec![edit], numbers)?, applied: vec![applied], first: self.first() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residuum_domain::Site;

    #[test]
    fn batches_hold_one_hook_and_few_tokens() {
        let cells = Cells {
            hooks: (0..3).map(|l| Hook::block(Site::ResidPre, l)).collect(),
            tokens: (0..200).map(|p| vec![p]).collect(),
            keys: vec![Vec::new()],
            parts: vec![vec![]],
        };
        let batches = cells.batches(200, 512);
        assert_eq!(batches.iter().cloned().flatten().collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.clone().map(|i| 200 - cells.cell(i).first()).sum();
            assert!(tokens <= 512);
            assert!(batch.clone().all(|i| cells.cell(i).hook == cells.cell(batch.start).hook));
        }
    }

    #[test]
    fn the_last_axis_is_the_fastest() {
        let cells = Cells {
            hooks: [0, 2].map(|l| Hook::block(Site::AttnScores, l)).to_vec(),
            tokens: vec![vec![4], vec![5]],
            keys: vec![vec![0], vec![1], vec![2]],
            parts: [0..1, 1..2].map(|head| std::iter::once(head).collect()).to_vec(),
        };
        assert_eq!(cells.len(), 24);
        let cell = cells.cell(23 - 1 - 2 * 2);
        assert_eq!((cell.hook_index, cell.tokens, cell.keys, &cell.part[0]), (1, &[5][..], &[0][..], &(0..1)));
    }
}
