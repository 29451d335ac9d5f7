//! The order of listings and exports.

use super::ids::{CacheId, RunId};

/// In which direction of time something is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// The oldest first.
    Ascending,
    /// The newest first.
    Descending,
}

impl Order {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ascending, Self::Descending];

    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ascending => "asc",
            Self::Descending => "desc",
        }
    }
}

/// What caches are sorted by wherever they make rows: by run, the oldest first, and within a run in the order of its
/// inputs.
pub type RunOrder = (RunId, u64, CacheId);
