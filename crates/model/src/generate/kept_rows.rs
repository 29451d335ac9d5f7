//! Rows that are captured while a sequence is decoded, until it is known which of them are wanted.

use std::{ops::Range, sync::Arc};

use residuum_domain::{Hook, Positions, Rows};

use crate::capture::mean::mean_of_kept;

/// The hooks to capture while decoding, and from which position on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// The hooks, in execution order; none of them an attention map, whose rows become longer with the text.
    pub hooks: Arc<[Hook]>,
    /// The first position that may be wanted; `None`: only the last one of the finished text is.
    pub from: Option<usize>,
}

impl Keep {
    /// What to keep for `positions` of a text of at least `shortest` tokens.
    #[must_use]
    pub fn new(hooks: Arc<[Hook]>, positions: &Positions, shortest: usize) -> Self {
        let from = match positions {
            Positions::Last | Positions::One(-1) => None,
            positions => Some(positions.first_needed(shortest)),
        };
        Self { hooks, from }
    }
}

/// The captured rows of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptRows {
    keep: Keep,
    /// Positions of the rows; consecutive.
    positions: Range<usize>,
    /// One for each hook: `[rows, …row shape]`.
    values: Vec<Vec<f32>>,
}

impl KeptRows {
    /// Nothing yet.
    pub(super) fn new(keep: Keep) -> Self {
        let values = vec![Vec::new(); keep.hooks.len()];
        Self { keep, positions: 0..0, values }
    }

    /// The hooks.
    #[must_use]
    pub fn hooks(&self) -> &Arc<[Hook]> {
        &self.keep.hooks
    }

    /// Which of the tokens `step` of a text are to be captured; those that are captured already are not captured again.
    /// `is_last`: the text ends with this step.
    pub(super) fn wanted(&self, step: Range<usize>, is_last: bool) -> Range<usize> {
        let from = match self.keep.from {
            Some(from) => from.max(self.positions.end),
            None if is_last => step.end - 1,
            None => step.end,
        };
        from.clamp(step.start, step.end)..step.end
    }

    /// Appends the rows of consecutive positions of one hook.
    pub(super) fn append(&mut self, hook: usize, values: &[f32]) {
        self.values[hook].extend_from_slice(values);
    }

    /// Notes that the rows of these positions have been appended to every hook.
    pub(super) fn appended(&mut self, positions: Range<usize>) {
        if positions.is_empty() {
            return;
        }
        let start = if self.positions.is_empty() { positions.start } else { self.positions.start };
        self.positions = start..positions.end;
    }

    /// The stored rows of hook number `hook`: those that a forward pass over the whole text would have recorded. `None` if one of
    /// them was not captured.
    #[must_use]
    pub fn rows(&self, hook: usize, rows: &Rows) -> Option<Vec<f32>> {
        let width = self.values[hook].len() / self.positions.len().max(1);
        let row = |position: &u32| {
            let at = (*position as usize).checked_sub(self.positions.start)?;
            self.values[hook].get(at * width..(at + 1) * width)
        };
        let wanted = rows.positions().iter().map(row).collect::<Option<Vec<&[f32]>>>()?;
        Some(match rows {
            Rows::List(_) => wanted.concat(),
            Rows::Mean(_) => mean_of_kept(&wanted, width),
        })
    }
}

#[cfg(test)]
mod tests {
    use residuum_domain::Site;

    use super::*;

    fn kept(positions: &Positions) -> KeptRows {
        KeptRows::new(Keep::new([Hook::global(Site::FinalNorm)].into(), positions, 4))
    }

    /// Captures the values 10 p and 10 p + 1 at each position p of the steps.
    fn run(kept: &mut KeptRows, steps: &[Range<usize>]) {
        for (i, step) in steps.iter().enumerate() {
            let wanted = kept.wanted(step.clone(), i + 1 == steps.len());
            wanted.clone().for_each(|p| kept.append(0, &[10.0 * p as f32, 10.0 * p as f32 + 1.0]));
            kept.appended(wanted);
        }
    }

    #[test]
    fn only_the_last_row_is_kept_if_nothing_else_is_wanted() {
        let mut last = kept(&Positions::Last);
        run(&mut last, &[0..3, 3..4, 4..5]);
        assert_eq!(last.rows(0, &Rows::List(vec![4])), Some(vec![40.0, 41.0]));
        assert_eq!((last.rows(0, &Rows::List(vec![3])), last.values[0].len()), (None, 2));
    }

    #[test]
    fn rows_are_kept_from_the_first_that_may_be_wanted() {
        let mut some = kept(&Positions::Range { start: Some(-2), end: None });
        // the cache is dropped after the second step, and the third passes all tokens again
        run(&mut some, &[0..3, 3..4, 0..5, 5..6]);
        assert_eq!(some.positions, 2..6);
        assert_eq!(some.rows(0, &Rows::List(vec![5, 4, 4])), Some(vec![50.0, 51.0, 40.0, 41.0, 40.0, 41.0]));
        assert_eq!(some.rows(0, &Rows::Mean(vec![2, 5])), Some(vec![35.0, 36.0]));
        assert_eq!(some.rows(0, &Rows::List(vec![1])), None);
    }
}
