//! Interventions: changes of values at hook points during a forward pass.
//!
//! The interventions of a request become [`Edits`], which all inputs of a run share: the hook, the part of a row, the operation, and
//! its numbers. Which of them an input uses, and the tokens they touch, depends on the input ([`Applied`]). Both affect the numbers of
//! a forward pass, so both are part of its key ([`key`]).

use std::{ops::Range, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::{forms::WordOr, hook::Hook, positions::PositionsRequest};

/// Tokens of one input, including those that will be generated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// Every token.
    All,
    /// The tokens from this position on.
    From(u32),
    /// The tokens before this position.
    Before(u32),
    /// These positions, ascending, each with its index in the request's list.
    List(Vec<(u32, u32)>),
}

impl Tokens {
    /// The tokens at these positions; `None` if a position appears twice.
    #[must_use]
    pub fn list(positions: &[u32]) -> Option<Self> {
        let mut list: Vec<(u32, u32)> = positions.iter().copied().zip(0..).collect();
        list.sort_unstable();
        list.windows(2).all(|pair| pair[0].0 < pair[1].0).then_some(Self::List(list))
    }

    /// The index of the token at `position` among these, if it is one of them.
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

    /// How many of an input's `n` tokens are among these.
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

/// Tokens as a request refers to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokensRequest {
    /// Every token, including generated ones.
    All,
    /// The tokens of the posted input.
    Prompt,
    /// The generated tokens.
    Generated,
    /// These positions of the posted input; never a mean.
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
                Err(de::Error::custom("tokens are changed one by one: a mean is not a position"))
            }
            WordOr::Other(named) => Ok(Self::At(named)),
        }
    }
}

/// An operation on a part of a row. Its numbers are ranges of [`Edits::numbers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Adds a vector with the length of the part.
    Add {
        /// The vector, multiplied by its strength.
        vector: Range<usize>,
    },
    /// Projects a direction out: `x - (x · u) u`, with the inner product in float64.
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
    /// Multiplies every number by a factor.
    Scale {
        /// The factor.
        factor: f32,
    },
    /// Replaces the part by a row of a table: row i for the i-th token, or its only row for all tokens. For an attention map, the
    /// table is `[heads, rows, n_keys]`.
    Replace {
        /// The table.
        table: Range<usize>,
        /// Number of its rows.
        n_rows: usize,
        /// Number of keys of its rows, for an attention map; else 0.
        n_keys: usize,
    },
    /// Sets attention scores to minus infinity, which masks them.
    Mask,
}

/// Parts of a row, each as ranges of the flattened row.
pub type Parts = Vec<Vec<Range<usize>>>;

/// One change at one hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The hook.
    pub hook: Hook,
    /// Index of the intervention it belongs to, among those of the run.
    pub intervention: usize,
    /// The parts of a row that are changed, each separately, as ranges of the flattened row. For an attention map: the query
    /// heads, each as a range of length one.
    pub parts: Parts,
    /// The operation.
    pub op: Op,
}

/// All changes of a run, in order. Each input uses some of its interventions ([`Applied`]). Two are equal if their
/// digests are.
#[derive(Debug, Clone)]
pub struct Edits {
    /// The changes; those of one intervention follow each other, in the order of the interventions.
    pub list: Vec<Edit>,
    /// Their numbers.
    pub numbers: Arc<[f32]>,
    /// Of each intervention: which of `list` belong to it, and their digest.
    interventions: Vec<(Range<usize>, [u8; 32])>,
}

impl Edits {
    /// Checks changes against the numbers that they refer to.
    ///
    /// # Errors
    /// When a range is outside the numbers, or does not have the length of its parts, or when an intervention has no
    /// changes or they do not follow each other.
    pub fn new(list: Vec<Edit>, numbers: Vec<f32>) -> Result<Self, &'static str> {
        if !list.iter().all(|edit| edit.fits(numbers.len())) {
            return Err("an edit does not have the numbers it needs");
        }
        let mut interventions = Vec::new();
        let mut first = 0;
        for edits in list.chunk_by(|a, b| a.intervention == b.intervention) {
            if edits[0].intervention != interventions.len() {
                return Err("the edits of an intervention are missing or apart");
            }
            let digest = digest(edits, &numbers).ok_or("an edit cannot be written down")?;
            interventions.push((first..first + edits.len(), digest));
            first += edits.len();
        }
        Ok(Self { list, numbers: numbers.into(), interventions })
    }

    /// The changes of one intervention; none if there is no such intervention.
    #[must_use]
    pub fn of(&self, intervention: usize) -> &[Edit] {
        self.interventions.get(intervention).map_or(&[], |(edits, _)| &self.list[edits.clone()])
    }
}

impl PartialEq for Edits {
    fn eq(&self, other: &Self) -> bool {
        let digests = |edits: &Self| edits.interventions.iter().map(|(_, digest)| *digest).collect::<Vec<_>>();
        digests(self) == digests(other)
    }
}

impl Eq for Edits {}

/// blake3 of the changes of one intervention and their numbers, wherever they stand among others.
fn digest(edits: &[Edit], numbers: &[f32]) -> Option<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    for edit in edits {
        let mut alone = Edit { intervention: 0, ..edit.clone() };
        let own = alone.op.rebase();
        let json = serde_json::to_vec(&alone).ok()?;
        hasher.update(&(json.len() as u64).to_le_bytes()).update(&json);
        numbers[own].iter().for_each(|n| {
            hasher.update(&n.to_bits().to_le_bytes());
        });
    }
    Some(*hasher.finalize().as_bytes())
}

impl Op {
    /// Lets the numbers start at 0. Returns where they were.
    fn rebase(&mut self) -> Range<usize> {
        match self {
            Self::Add { vector: span }
            | Self::ProjectOut { direction: span }
            | Self::Set { vector: span }
            | Self::Replace { table: span, .. } => {
                let own = span.clone();
                *span = 0..own.len();
                own
            }
            Self::Fill { .. } | Self::Scale { .. } | Self::Mask => 0..0,
        }
    }
}

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

/// One intervention, resolved for one input. The interventions of an input are applied in the order of its list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Index of the intervention among those of the run; `None` if it is the place in the input's own list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervention: Option<u32>,
    /// The tokens it touches; for an attention map, the queries.
    pub tokens: Tokens,
    /// For an attention map, the keys it touches.
    pub keys: Tokens,
    /// What it does, in readable form: with names resolved and positions as numbers.
    pub described: Map<String, Value>,
}

impl Applied {
    /// An intervention of a stored cache, which is only described and not applied again.
    #[must_use]
    pub fn told(described: Map<String, Value>) -> Self {
        let nothing = || Tokens::List(Vec::new());
        Self { intervention: None, tokens: nothing(), keys: nothing(), described }
    }

    /// Index of the intervention among those of the run, if this is at `place` of its input's list.
    #[must_use]
    pub fn index(&self, place: usize) -> usize {
        self.intervention.map_or(place, |i| i as usize)
    }
}

/// The part of the key of a forward pass that depends on interventions: equal for equal changes to equal tokens, whether all
/// inputs of a run have them or only one.
#[must_use]
pub fn key(edits: &Edits, applied: &[Applied]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (place, one) in applied.iter().enumerate() {
        if let Some((_, digest)) = edits.interventions.get(one.index(place)) {
            hasher.update(digest);
        }
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
        Applied { intervention: None, tokens, keys: Tokens::All, described: Map::new() }
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

    /// A run's interventions that only one input has get the key of a run that has only these.
    #[test]
    fn the_key_does_not_depend_on_interventions_of_other_inputs() {
        let part = || vec![std::iter::once(0..2).collect::<Vec<_>>()];
        let add = |intervention, vector| Edit { intervention, ..edit(part(), Op::Add { vector }) };
        let shared = Edits::new(vec![add(0, 0..2), add(1, 2..4), add(2, 4..6)], vec![1., 2., 3., 4., 5., 6.]).unwrap();
        let alone = Edits::new(vec![add(0, 0..2), add(1, 2..4)], vec![1., 2., 5., 6.]).unwrap();
        let of = |i| Applied { intervention: Some(i), ..applied(Tokens::All) };
        let plain = applied(Tokens::All);
        assert_eq!(key(&shared, &[of(0), of(2)]), key(&alone, &[plain.clone(), plain.clone()]));
        assert_ne!(key(&shared, &[of(0), of(1)]), key(&alone, &[plain.clone(), plain.clone()]));
        assert_ne!(key(&shared, &[of(2), of(0)]), key(&alone, &[plain.clone(), plain]), "the order counts");
        assert_eq!((shared.of(1).len(), shared.of(3).len()), (1, 0));
        assert!(Edits::new(vec![add(0, 0..2), add(2, 0..2)], vec![0.0; 2]).is_err(), "an intervention without edits");
        assert!(Edits::new(vec![add(0, 0..2), add(1, 0..2), add(0, 0..2)], vec![0.0; 2]).is_err());
    }
}
