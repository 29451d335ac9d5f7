//! Why a checkpoint could not be loaded, and why a forward pass ended early.

use std::{fmt, path::Path};

/// A checkpoint that cannot be served: the file (or key) at fault and the reason, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    place: String,
    reason: String,
}

impl LoadError {
    /// An error about `place`, usually a file.
    #[must_use]
    pub fn new(place: impl Into<String>, reason: impl fmt::Display) -> Self {
        // Reasons from other libraries may contain line breaks; the log takes one line.
        let reason = reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { place: place.into(), reason }
    }

    /// An error about the file at `path`.
    pub(crate) fn file(path: &Path, reason: impl fmt::Display) -> Self {
        Self::new(path.display().to_string(), reason)
    }

    /// The file or key at fault.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl std::error::Error for LoadError {}

/// Why a forward pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The caller cancelled it.
    #[error("the forward pass was cancelled")]
    Cancelled,
    /// The sink refused a tensor.
    #[error("the captured values could not be taken: {0}")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(#[from] candle_core::Error),
    /// The batch does not match the model: an error of the caller, described.
    #[error("{0}")]
    Failed(String),
}
