//! Limits the size of answers.

use residuum_domain::{Code, Problem};

/// The largest allowed answer. It depends on the format that the client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimit {
    /// Most numbers that the answer may hold.
    pub n_numbers: usize,
    /// A sentence for the client: what to request instead of a larger answer.
    pub instead: &'static str,
}

impl AnswerLimit {
    /// Refuses an answer with more numbers.
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
