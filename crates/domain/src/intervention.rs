//! Interventions: what a forward pass changes at its hook points instead of only looking.
//!
//! A request's interventions become [`Edits`], the same for every input of a run: which hook, which part of a row, what
//! to do with it, and the numbers that takes. Which tokens they touch depends on the input ([`Applied`]). Together they
//! decide the numbers of a forward pass, so together they make up a part of its key ([`key`]).

use std::{ops::Range, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::{forms::WordOr, hook::Hook, positions::PositionsRequest};

/// Tokens of one input, those to come included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// Every token.
    All,
    /// Those from this position on.
    From(u32),
    /// Those before this position.
    Before(u32),
    /// These positions, ascending, each with its place among those that were named.
    List(Vec<(u32, u32)>),
}

impl Tokens {
    /// The tokens at these positions; `None` when one is named twice.
    #[must_use]
    pub fn list(positions: &[u32]) -> Option<Self> {
        let mut list: Vec<(u32, u32)> = positions.iter().copied().zip(0..).collect();
        list.sort_unstable();
        list.windows(2).all(|pair| pair[0].0 < pair[1].0).then_some(Self::List(list))
    }

    /// The place of the token at `position` among these, if it is one of them.
    #[must_use]
    pub fn place(&self, position: u32) -> Option<usize> {
        match self {
            Self::All => Some(position as usize),
            Self::From(first) => position.checked_sub(*first).map(|p| p as usize),
            Self::Before(end) => (position < *end).then_some(position as usize),
            Self::List(list) => {
                let found = list.binary_search_by_key(&position, |(p, _)| *p).ok()?;
                Some(list[found].1 as usize)
            }
        }
    }

    /// How many of an input's `n` tokens these are.
    #[must_use]
    pub fn count(&self, n: usize) -> usize {
        match self {
            Self::All => n,
            Self::From(first) => n.saturating_sub(*first as usize),
            Self::Before(end) => n.min(*end as usize),
            Self::List(list) => list.len(),
        }
    }
}

/// Tokens as a request names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokensRequest {
    /// Every token, those to come too.
    All,
    /// Those of the input as posted.
    Prompt,
    /// Those that the run generates.
    Generated,
    /// These, counted in the input as posted; never a mean.
    At(PositionsRequest),
}

impl<'de> Deserialize<'de> for TokensRequest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Clone, Copy)]
        enum Word {
            All,
            Prompt,
            Generated,
        }
        const WORDS: [(&str, Word); 3] = [("all", Word::All), ("prompt", Word::Prompt), ("generated", Word::Generated)];
        match WordOr::<Word, PositionsRequest>::read(d, &WORDS)? {
            WordOr::Word(Word::All) => Ok(Self::All),
            WordOr::Word(Word::Prompt) => Ok(Self::Prompt),
            WordOr::Word(Word::Generated) => Ok(Self::Generated),
            WordOr::Other(named) if named.is_mean() => {
                Err(de::Error::custom("tokens are changed one by one: a mean is no position"))
            }
            WordOr::Other(named) => Ok(Self::At(named)),
        }
    }
}

/// What is done to a part of a row. Spans are ranges of [`Edits::numbers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Adds a vector of the part's length.
    Add {
        /// The vector, its strength multiplied in.
        vector: Range<usize>,
    },
    /// Takes out what lies along a direction: `x - (x · u) u`, the product accumulated in float64.
    ProjectOut {
        /// The direction `u`, of length one.
        direction: Range<usize>,
    },
    /// Replaces the part by a vector.
    Set {
        /// The vector.
        vector: Range<usize>,
    },
    /// Replaces every number by this one.
    Fill {
        /// The number.
        value: f32,
    },
    /// Multiplies every number.
    Scale {
        /// With this.
        factor: f32,
    },
    /// Replaces the part by a row of a table: the i-th token's by the i-th, or everyone's by the only one. Of an attention
    /// map the table is `[heads, rows, n_keys]`.
    Replace {
        /// The table.
        table: Range<usize>,
        /// Its rows.
        n_rows: usize,
        /// Keys of its rows, for an attention map; 0 elsewhere.
        n_keys: usize,
    },
    /// Minus infinity: an attention score that is masked.
    Mask,
}

/// Parts of a row, each as ranges of the flattened row.
pub type Parts = Vec<Vec<Range<usize>>>;

/// One change at one hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Where.
    pub hook: Hook,
    /// Which of the request's interventions it belongs to: [`Applied`] has its tokens at the same place.
    pub intervention: usize,
    /// The parts of a row that are changed, each by itself, as ranges of the flattened row. Of an attention map: the query
    /// heads, each as a range of length one.
    pub parts: Parts,
    /// What is done.
    pub op: Op,
}

/// Everything a run changes, in order. Equal when the digests are.
#[derive(Debug, Clone)]
pub struct Edits {
    /// The changes.
    pub list: Vec<Edit>,
    /// The numbers they take.
    pub numbers: Arc<[f32]>,
    digest: [u8; 32],
}

impl Edits {
    /// Changes and the numbers that their spans point into.
    ///
    /// # Errors
    /// When a span leaves the numbers or is not as long as the parts it is for.
    pub fn new(list: Vec<Edit>, numbers: Vec<f32>) -> Result<Self, &'static str> {
        if !list.iter().all(|edit| edit.fits(numbers.len())) {
            return Err("an edit does not have the numbers it needs");
        }
        let mut hasher = blake3::Hasher::new();
        let json = serde_json::to_vec(&list).map_err(|_| "an edit cannot be written down")?;
        hasher.update(&(json.len() as u64).to_le_bytes()).update(&json);
        numbers.iter().for_each(|n| {
            hasher.update(&n.to_bits().to_le_bytes());
        });
        Ok(Self { list, numbers: numbers.into(), digest: *hasher.finalize().as_bytes() })
    }

    /// blake3 of the changes and their numbers.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for Edits {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Edits {}

impl Edit {
    fn fits(&self, n_numbers: usize) -> bool {
        let inside = |span: &Range<usize>| span.start <= span.end && span.end <= n_numbers;
        let lengths = || self.parts.iter().map(|part| part.iter().map(ExactSizeIterator::len).sum::<usize>());
        match &self.op {
            Op::Add { vector: span } | Op::ProjectOut { direction: span } | Op::Set { vector: span } => {
                inside(span) && lengths().all(|n| n == span.len())
            }
            Op::Replace { table, n_rows, n_keys } => {
                let width = if *n_keys == 0 { lengths().next().unwrap_or(0) } else { *n_keys * self.parts.len() };
                inside(table) && *n_rows > 0 && table.len() == n_rows * width && (*n_keys > 0 || self.parts.len() == 1)
            }
            Op::Fill { .. } | Op::Scale { .. } | Op::Mask => true,
        }
    }
}

/// What one intervention means for one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The tokens it touches; of an attention map, the queries.
    pub tokens: Tokens,
    /// The keys it touches, of an attention map.
    pub keys: Tokens,
    /// What it does, for people: names resolved, positions settled.
    pub described: Map<String, Value>,
}

impl Applied {
    /// One that is only told of: what it touched has been touched.
    #[must_use]
    pub fn told(described: Map<String, Value>) -> Self {
        let nothing = || Tokens::List(Vec::new());
        Self { tokens: nothing(), keys: nothing(), described }
    }
}

/// What interventions contribute to the key of a forward pass: equal for equal changes of equal tokens.
#[must_use]
pub fn key(edits: &Edits, applied: &[Applied]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(edits.digest());
    for one in applied {
        for tokens in [&one.tokens, &one.keys] {
            let (kind, list): (u32, Vec<u32>) = match tokens {
                Tokens::All => (0, Vec::new()),
                Tokens::From(first) => (1, vec![*first]),
                Tokens::Before(end) => (2, vec![*end]),
                Tokens::List(list) => (3, list.iter().flat_map(|(position, place)| [*position, *place]).collect()),
            };
            hasher.update(&kind.to_le_bytes()).update(&(list.len() as u64).to_le_bytes());
            list.iter().for_each(|n| {
                hasher.update(&n.to_le_bytes());
            });
        }
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Site;

    fn edit(parts: Parts, op: Op) -> Edit {
        Edit { hook: Hook::block(Site::ResidPost, 0), intervention: 0, parts, op }
    }

    fn applied(tokens: Tokens) -> Applied {
        Applied { tokens, keys: Tokens::All, described: Map::new() }
    }

    #[test]
    fn tokens_know_their_places() {
        let list = Tokens::list(&[7, 2, 5]).unwrap();
        assert_eq!([2, 5, 7, 3].map(|p| list.place(p)), [Some(1), Some(2), Some(0), None]);
        assert_eq!(Tokens::list(&[1, 2, 1]), None);
        assert_eq!(
            [Tokens::All.place(4), Tokens::From(3).place(4), Tokens::From(3).place(2)],
            [Some(4), Some(1), None]
        );
        assert_eq!([Tokens::Before(3).place(2), Tokens::Before(3).place(3)], [Some(2), None]);
        assert_eq!([Tokens::All, Tokens::From(3), Tokens::Before(3), list].map(|t| t.count(5)), [5, 2, 3, 3]);
    }

    #[test]
    fn edits_have_the_numbers_they_need() {
        let whole = || vec![std::iter::once(0..3).collect::<Vec<_>>()];
        assert!(Edits::new(vec![edit(whole(), Op::Add { vector: 0..3 })], vec![1.0; 3]).is_ok());
        assert!(Edits::new(vec![edit(whole(), Op::Add { vector: 0..3 })], vec![1.0; 2]).is_err());
        assert!(Edits::new(vec![edit(whole(), Op::Set { vector: 0..2 })], vec![1.0; 3]).is_err());
        let table = Op::Replace { table: 0..6, n_rows: 2, n_keys: 0 };
        assert!(Edits::new(vec![edit(whole(), table.clone())], vec![1.0; 6]).is_ok());
        assert!(Edits::new(vec![edit(vec![vec![0..1, 2..4]], table)], vec![1.0; 6]).is_ok());
        assert!(
            Edits::new(vec![edit(whole(), Op::Replace { table: 0..6, n_rows: 3, n_keys: 0 })], vec![1.0; 6]).is_err()
        );
    }

    #[test]
    fn the_key_tells_numbers_and_tokens_apart() {
        let add = |x: f32| {
            let part = std::iter::once(0..1).collect();
            Edits::new(vec![edit(vec![part], Op::Add { vector: 0..1 })], vec![x]).unwrap()
        };
        let keys = [
            key(&add(1.0), &[applied(Tokens::All)]),
            key(&add(2.0), &[applied(Tokens::All)]),
            key(&add(1.0), &[applied(Tokens::From(0))]),
            key(&add(1.0), &[applied(Tokens::list(&[0]).unwrap())]),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(keys[0], key(&add(1.0), &[applied(Tokens::All)]));
    }
}
