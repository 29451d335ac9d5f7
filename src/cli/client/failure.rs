//! Why a client command failed, with the exit code that says so to scripts.

use std::{fmt, io};

use super::{answers::Problem, visible::visible};

/// The result of a client command.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// Why a client command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line does not make sense. Exit code 2.
    Usage(String),
    /// What was named does not exist. Exit code 3.
    NotFound(String),
    /// The server understood the request and refused it. Exit code 4.
    Refused {
        message: String,
        /// What the server said.
        problem: Box<Problem>,
    },
    /// No server answered. Exit code 5.
    Unreachable(String),
    /// Anything else. Exit code 1.
    Other(String),
    /// Whoever read the output has closed it: the command ends without a message, and well.
    BrokenPipe,
}

impl Failure {
    /// The exit code of the program.
    pub(super) const fn code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Other(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused { .. } => 4,
            Self::Unreachable(_) => 5,
        }
    }

    /// The failure of an answer with this HTTP status.
    pub(super) fn of_problem(status: u16, problem: &Problem) -> Self {
        let message = problem.to_string();
        let unknown = ["unknown_cache", "unknown_model", "unknown_direction", "unknown_sae", "unknown_source"]
            .contains(&problem.code.as_str());
        match status {
            404 => Self::NotFound(message),
            _ if unknown => Self::NotFound(message),
            400..=499 | 503 | 507 => Self::Refused { message, problem: Box::new(problem.clone()) },
            _ => Self::Other(message),
        }
    }

    /// A file that could not be read or written.
    pub(super) fn file(path: &std::path::Path, error: &io::Error) -> Self {
        Self::Other(format!("{}: {error}", path.display()))
    }

    /// An answer that is not what this version expects.
    pub(super) fn unexpected(error: &dyn fmt::Display) -> Self {
        Self::Other(format!("the server's answer is not what this version expects: {}", visible(&error.to_string())))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message)
            | Self::NotFound(message)
            | Self::Refused { message, .. }
            | Self::Unreachable(message)
            | Self::Other(message) => f.write_str(message),
            Self::BrokenPipe => f.write_str("the output was closed"),
        }
    }
}

/// An error of standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::Other(format!("the output could not be written: {error}"))
    }
}

impl fmt::Display for Problem {
    /// The detail, a line for each field at fault, and the code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = if self.detail.is_empty() { &self.title } else { &self.detail };
        f.write_str(&visible(detail))?;
        for error in &self.errors {
            // the only error often repeats the detail
            let more =
                if error.detail == self.detail { String::new() } else { format!(": {}", visible(&error.detail)) };
            write!(f, "\n  at {}{more}", visible(&error.pointer))?;
        }
        if !self.code.is_empty() {
            write!(f, "\n  code {}", visible(&self.code))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::answers::FieldError;

    fn problem(code: &str) -> Problem {
        let errors = vec![
            FieldError { pointer: "/a".to_owned(), detail: "no\u{1b}[31m".to_owned() },
            FieldError { pointer: "/b".to_owned(), detail: "layer 30".to_owned() },
        ];
        Problem { title: "T".to_owned(), detail: "layer 30".to_owned(), code: code.to_owned(), errors }
    }

    #[test]
    fn a_problem_shows_detail_fields_and_code() {
        let text = problem("layer_out_of_range").to_string();
        assert_eq!(text, "layer 30\n  at /a: no␛[31m\n  at /b\n  code layer_out_of_range");
        let bare = Problem { title: "Gone".to_owned(), ..Problem::default() };
        assert_eq!(bare.to_string(), "Gone");
    }

    #[test]
    fn the_exit_code_says_what_kind_of_failure_it_was() {
        let code = |status, code: &str| Failure::of_problem(status, &problem(code)).code();
        assert_eq!(code(404, "cache_not_found"), 3);
        assert_eq!(code(422, "unknown_cache"), 3);
        assert_eq!(code(422, "layer_out_of_range"), 4);
        assert_eq!(code(429, "queue_full"), 4);
        assert_eq!(code(503, "unavailable"), 4);
        assert_eq!(code(500, "internal_error"), 1);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::Unreachable(String::new()).code(), 5);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code(), 1);
    }
}
