//! The edits of the interventions that have been read so far, within the bounds of a run.

use std::ops::Range;

use crate::Asked;
use residuum_domain::{Code, Edit, Hook, Op, Parts, Problem};

/// Most numbers of all interventions of a run: 128 MiB, which are stored with the run.
const MAX_NUMBERS: usize = 32 << 20;
/// Most ranges of changed values of all interventions of a run.
const MAX_RANGES: usize = 2 << 20;

/// The interventions that have been read so far.
#[derive(Default)]
pub struct Made {
    /// Their edits.
    pub edits: Vec<Edit>,
    /// The numbers of the edits.
    pub numbers: Vec<f32>,
    /// Their tokens and descriptions.
    pub asked: Vec<Asked>,
    n_ranges: usize,
}

impl Made {
    /// Keeps numbers of an edit. Returns where they are.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`] beyond the bound of a run.
    pub fn keep(&mut self, numbers: &[f32]) -> Result<Range<usize>, Problem> {
        let start = self.numbers.len();
        if start + numbers.len() > MAX_NUMBERS {
            let detail = format!(
                "the interventions of the run take more than {MAX_NUMBERS} numbers; change fewer layers, positions or inputs"
            );
            return Err(Problem::at(Code::ResultTooLarge, "", detail));
        }
        self.numbers.extend_from_slice(numbers);
        Ok(start..self.numbers.len())
    }

    /// Adds an intervention: its edit at each hook.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`] beyond the bound of a run.
    pub fn push(&mut self, hooks: &[Hook], edits: Vec<(Parts, Op)>, asked: Asked) -> Result<(), Problem> {
        self.n_ranges += edits.iter().flat_map(|(parts, _)| parts).map(Vec::len).sum::<usize>();
        if self.n_ranges > MAX_RANGES {
            let detail = format!(
                "the interventions of the run change more than {MAX_RANGES} parts of rows; change fewer layers, heads or inputs"
            );
            return Err(Problem::at(Code::ResultTooLarge, "", detail));
        }
        let intervention = self.asked.len();
        let edit = |(hook, (parts, op)): (&Hook, (Parts, Op))| Edit { hook: *hook, intervention, parts, op };
        self.edits.extend(hooks.iter().zip(edits).map(edit));
        self.asked.push(asked);
        Ok(())
    }
}
