//! How many numbers an answer may hold.

use residuum_domain::{Code, Problem};

/// How many numbers an answer may hold, which depends on the form that it is wanted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimit {
    /// The most numbers.
    pub n_numbers: usize,
    /// A sentence that says what to ask for instead of more.
    pub instead: &'static str,
}

impl AnswerLimit {
    /// Refuses an answer of more numbers.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`].
    pub fn check(self, n_numbers: usize) -> Result<(), Problem> {
        let Self { n_numbers: max, instead } = self;
        if n_numbers <= max {
            return Ok(());
        }
        let detail = format!("the answer would hold {n_numbers} numbers; {max} are allowed. {instead}");
        Err(Problem::new(Code::ResultTooLarge, detail))
    }
}
