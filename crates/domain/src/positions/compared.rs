//! Which vector of each cache is compared.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Positions;
use crate::{Cache, Code, Problem, Selection, forms::WordOr};

/// One position of each cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ComparedPosition {
    /// The same position, or mean over positions, of every cache.
    At(Positions),
    /// The one row that each cache holds, wherever it was found.
    #[serde(serialize_with = "stored")]
    Stored,
}

fn stored<S: Serializer>(s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str("stored")
}

impl Default for ComparedPosition {
    fn default() -> Self {
        Self::At(Positions::Last)
    }
}

impl<'de> Deserialize<'de> for ComparedPosition {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match WordOr::read(d, &[("stored", ())])? {
            WordOr::Word(()) => Self::Stored,
            WordOr::Other(position) => Self::At(position),
        })
    }
}

impl From<&Positions> for ComparedPosition {
    fn from(position: &Positions) -> Self {
        Self::At(position.clone())
    }
}

impl From<&ComparedPosition> for ComparedPosition {
    fn from(position: &ComparedPosition) -> Self {
        position.clone()
    }
}

impl ComparedPosition {
    /// Whether it is one vector of a cache.
    pub fn is_one(&self) -> bool {
        matches!(self, Self::At(p) if !p.keeps_axis()) || *self == Self::Stored
    }

    /// The vector of `cache` at the hook with this index.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] when the cache lacks the position, or holds several where its one is meant.
    pub fn select(&self, cache: &Cache, hook: usize) -> Result<Selection, Problem> {
        match self {
            Self::At(position) => Selection::of(cache, hook, Some(position)),
            Self::Stored if cache.capture.positions.keeps_axis() => {
                let detail = format!("the cache holds positions {}, not a single row", cache.capture.positions);
                Err(Problem::at(Code::PositionOutOfRange, "position", detail))
            }
            Self::Stored => Selection::of(cache, hook, None),
        }
    }
}
