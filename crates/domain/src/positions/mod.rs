//! Positions: which tokens of an input are kept.
//!
//! A client may refer to the contents of tokens ([`PositionsRequest`]: the token at a word, all except special tokens). That is
//! resolved when the input is tokenised. From then on there are only [`Positions`], which are resolved to [`Rows`] by the number of
//! tokens alone.

mod compared;
mod read;
mod request;
mod tokens;
mod unsettled;

use std::{collections::HashMap, fmt, str::FromStr};

use serde::Serialize;
use serde_json::Value;

pub use compared::ComparedPosition;
pub use request::{Part, PositionsRequest, Which};
pub use tokens::{Spelled, TokenView};
pub use unsettled::Unsettled;

use super::problem::{Code, Problem};

/// Which positions of each input to keep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Positions {
    /// The final token; drops the position axis.
    #[default]
    Last,
    /// The mean over all tokens, accumulated in float64; drops the position axis.
    Mean,
    /// Every token.
    All,
    /// One position; negatives count from the end; drops the position axis.
    One(i64),
    /// These positions, in this order, repeats kept.
    List(Vec<i64>),
    /// From `start` (default 0) up to but not including `end` (default: the length); negatives count from the end.
    Range {
        /// First position.
        start: Option<i64>,
        /// End of the range, which is not part of it.
        end: Option<i64>,
    },
    /// The mean over the rows that other positions select; repeated positions count repeatedly. Drops the position axis. The
    /// other positions are never a mean.
    MeanOf(Box<Positions>),
}

/// Positions of one input of known length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row: the mean over these positions, accumulated in float64 in this order.
    Mean(Vec<u32>),
    /// These positions, in order.
    List(Vec<u32>),
}

impl Rows {
    /// How many rows are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Mean(_) => 1,
            Self::List(list) => list.len(),
        }
    }

    /// The positions that the stored rows are computed from.
    #[must_use]
    pub fn positions(&self) -> &[u32] {
        match self {
            Self::Mean(list) | Self::List(list) => list,
        }
    }

    /// The indices among these rows of the positions in `wanted`; `None` if one is missing. A stored mean can serve only itself.
    #[must_use]
    pub fn places(&self, wanted: &Self) -> Option<Vec<usize>> {
        let Self::List(have) = self else { return (self == wanted).then(|| vec![0]) };
        let place: HashMap<u32, usize> = have.iter().enumerate().map(|(i, p)| (*p, i)).collect();
        wanted.positions().iter().map(|p| place.get(p).copied()).collect()
    }

    /// Whether no row is stored. Positions never resolve to this.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Positions {
    /// Whether a tensor captured at these positions keeps its position axis.
    #[must_use]
    pub fn keeps_axis(&self) -> bool {
        matches!(self, Self::All | Self::List(_) | Self::Range { .. })
    }

    /// Number of positions that are listed individually.
    #[must_use]
    pub fn n_listed(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::MeanOf(of) => of.n_listed(),
            Self::Last | Self::Mean | Self::All | Self::One(_) | Self::Range { .. } => 0,
        }
    }

    /// The rows of an input of `n_tokens`.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] naming the position; ranges must be inside the input and not empty.
    pub fn resolve(&self, n_tokens: usize) -> Result<Rows, Problem> {
        let out_of_range = |what: String| {
            Problem::at(Code::PositionOutOfRange, "/positions", format!("{what}: the input has {n_tokens} tokens"))
        };
        let one = |p: i64| {
            index(p, n_tokens)
                .map(|p| u32::try_from(p).expect("a context is shorter than 2^32"))
                .ok_or_else(|| out_of_range(format!("position {p} does not exist")))
        };
        match self {
            Self::Mean if n_tokens > 0 => Ok(Rows::Mean(every(n_tokens))),
            Self::Mean => Err(out_of_range("the mean over no tokens does not exist".to_owned())),
            Self::MeanOf(of) => Ok(match of.resolve(n_tokens)? {
                Rows::Mean(list) | Rows::List(list) => Rows::Mean(list),
            }),
            Self::Last => Ok(Rows::List(vec![one(-1)?])),
            Self::All => Ok(Rows::List(every(n_tokens))),
            Self::One(p) => Ok(Rows::List(vec![one(*p)?])),
            Self::List(list) => Ok(Rows::List(list.iter().map(|p| one(*p)).collect::<Result<_, _>>()?)),
            Self::Range { start, end } => {
                let bound = |b: Option<i64>, default: usize| match b {
                    None => Some(default),
                    Some(b) if b >= 0 => usize::try_from(b).ok().filter(|b| *b <= n_tokens),
                    Some(b) => index(b, n_tokens),
                };
                match (bound(*start, 0), bound(*end, n_tokens)) {
                    (Some(s), Some(e)) if s < e => {
                        #[expect(clippy::cast_possible_truncation, reason = "a context is shorter than 2^32")]
                        let rows = (s as u32..e as u32).collect();
                        Ok(Rows::List(rows))
                    }
                    (Some(_), Some(_)) => Err(out_of_range(format!("the range {self} is empty"))),
                    _ => Err(out_of_range(format!("the range {self} leaves the input"))),
                }
            }
        }
    }

    /// The first position that is selected in any text of at least `shortest` tokens.
    #[must_use]
    pub fn first_needed(&self, shortest: usize) -> usize {
        let place = |p: i64| usize::try_from(p).unwrap_or_else(|_| shortest.saturating_sub(p.unsigned_abs() as usize));
        match self {
            Self::Last => shortest.saturating_sub(1),
            Self::Mean | Self::All => 0,
            Self::One(p) => place(*p),
            Self::List(list) => list.iter().map(|p| place(*p)).min().unwrap_or(0),
            Self::Range { start, .. } => start.map_or(0, place),
            Self::MeanOf(of) => of.first_needed(shortest),
        }
    }

    /// The mean over the rows that `of` selects.
    ///
    /// # Errors
    /// When `of` is a mean already.
    pub fn mean_of(of: Self) -> Result<Self, &'static str> {
        match of {
            Self::Mean | Self::MeanOf(_) => Err("the mean of a mean is not taken"),
            Self::All => Ok(Self::Mean),
            of => Ok(Self::MeanOf(Box::new(of))),
        }
    }
}

impl Serialize for Positions {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let json = match self {
            Self::Last => Value::from("last"),
            Self::Mean => Value::from("mean"),
            Self::All => Value::from("all"),
            Self::One(p) => Value::from(*p),
            Self::List(list) => Value::from(list.clone()),
            Self::Range { start, end } => serde_json::json!({"start": start, "end": end}),
            Self::MeanOf(of) => serde_json::json!({"mean": of}),
        };
        json.serialize(s)
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |b: &Option<i64>| b.map(|b| b.to_string()).unwrap_or_default();
        match self {
            Self::Last => f.write_str("last"),
            Self::Mean => f.write_str("mean"),
            Self::All => f.write_str("all"),
            Self::One(p) => write!(f, "{p}"),
            Self::List(list) => {
                let items: Vec<String> = list.iter().map(ToString::to_string).collect();
                f.write_str(&items.join(","))
            }
            Self::Range { start, end } => write!(f, "{}:{}", bound(start), bound(end)),
            Self::MeanOf(of) => write!(f, "mean of {of}"),
        }
    }
}

impl FromStr for Positions {
    type Err = &'static str;

    /// Reads a query parameter: `last`, `mean`, `all`, `3`, `-1`, `0,2,4` or `2:5`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected last, mean, all, an integer, integers with commas between them, or start:end";
        let int = |t: &str| t.trim().parse::<i64>().map_err(|_| EXPECTED);
        match s {
            "last" => Ok(Self::Last),
            "mean" => Ok(Self::Mean),
            "all" => Ok(Self::All),
            _ if s.contains(':') => {
                let (start, end) = s.split_once(':').ok_or(EXPECTED)?;
                let bound = |t: &str| if t.trim().is_empty() { Ok(None) } else { int(t).map(Some) };
                Ok(Self::Range { start: bound(start)?, end: bound(end)? })
            }
            _ if s.contains(',') => Ok(Self::List(s.split(',').map(int).collect::<Result<_, _>>()?)),
            _ => Ok(Self::One(int(s)?)),
        }
    }
}

fn every(n_tokens: usize) -> Vec<u32> {
    (0..u32::try_from(n_tokens).expect("a context is shorter than 2^32")).collect()
}

/// `i` as an index below `n`; negatives count from the end.
pub(super) fn index(i: i64, n: usize) -> Option<usize> {
    let n_signed = i64::try_from(n).ok()?;
    let i = if i < 0 { i.checked_add(n_signed)? } else { i };
    usize::try_from(i).ok().filter(|i| *i < n)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn positions(v: Value) -> Result<Positions, serde_json::Error> {
        serde_json::from_value(v)
    }

    #[test]
    fn positions_take_every_documented_form() {
        let rows = |v: Value, n: usize| positions(v).unwrap().resolve(n).unwrap();
        assert_eq!(rows(json!("last"), 5), Rows::List(vec![4]));
        assert_eq!(rows(json!("mean"), 3), Rows::Mean(vec![0, 1, 2]));
        assert_eq!(rows(json!({"mean": "all"}), 3), Rows::Mean(vec![0, 1, 2]));
        assert_eq!(rows(json!({"mean": {"start": 1}}), 3), Rows::Mean(vec![1, 2]));
        assert_eq!(rows(json!({"mean": [2, 0, -1]}), 3), Rows::Mean(vec![2, 0, 2]));
        assert_eq!(rows(json!({"mean": "last"}), 3), Rows::Mean(vec![2]));
        assert_eq!(rows(json!("all"), 3), Rows::List(vec![0, 1, 2]));
        assert_eq!(rows(json!(-2), 5), Rows::List(vec![3]));
        assert_eq!(rows(json!([0, -1, 0]), 5), Rows::List(vec![0, 4, 0]));
        assert_eq!(rows(json!({"start": 1}), 4), Rows::List(vec![1, 2, 3]));
        assert_eq!(rows(json!({"start": -2, "end": 4}), 4), Rows::List(vec![2, 3]));
        assert_eq!(rows(json!({"end": -1}), 3), Rows::List(vec![0, 1]));
    }

    #[test]
    fn positions_outside_the_input_are_refused_never_clamped() {
        for v in [
            json!(5),
            json!(-6),
            json!([0, 5]),
            json!({"start": 0, "end": 6}),
            json!({"start": 3, "end": 3}),
            json!({"start": -6}),
            json!({"mean": [0, 5]}),
            json!({"mean": {"start": 5}}),
            json!(i64::MIN),
            json!(i64::MAX),
        ] {
            let problem = positions(v.clone()).unwrap().resolve(5).unwrap_err();
            assert_eq!(problem.code, Code::PositionOutOfRange, "{v}");
        }
        for v in [
            json!("first"),
            json!(1.5),
            json!([]),
            json!(["a"]),
            json!({"from": 1}),
            json!(null),
            json!(true),
            json!({"mean": "mean"}),
            json!({"mean": {"mean": 1}}),
            json!({"mean": 1, "start": 0}),
            json!({"mean": []}),
        ] {
            assert!(positions(v.clone()).is_err(), "{v}");
        }
    }

    #[test]
    fn positions_survive_storage_and_query_spelling() {
        for p in [
            Positions::Last,
            Positions::Mean,
            Positions::All,
            Positions::One(-3),
            Positions::List(vec![1, -1]),
            Positions::Range { start: Some(1), end: None },
            Positions::Range { start: None, end: Some(-1) },
        ] {
            assert_eq!(positions(serde_json::to_value(&p).unwrap()).unwrap(), p);
            assert_eq!(p.to_string().parse(), Ok(p));
        }
        let mean = Positions::MeanOf(Box::new(Positions::Range { start: Some(1), end: Some(3) }));
        assert_eq!(serde_json::to_value(&mean).unwrap(), json!({"mean": {"start": 1, "end": 3}}));
        assert_eq!(positions(serde_json::to_value(&mean).unwrap()).unwrap(), mean);
        assert_eq!(mean.to_string(), "mean of 1:3");
    }
}
