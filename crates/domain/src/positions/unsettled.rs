//! Positions that can be resolved only when generation has ended.

use serde::{Deserialize, Serialize};

use super::{Positions, PositionsRequest, TokenView, Which};
use crate::problem::{Code, Problem};

/// Positions that depend on tokens that are not generated yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Unsettled {
    /// Tokens of the model's reply to a chat, or of the message that it continues.
    Reply {
        /// Its first token.
        reply_from: u32,
        /// Which of its tokens.
        which: Which,
        /// Whether the mean over them is wanted.
        mean: bool,
    },
    /// Any other positions.
    Asked(PositionsRequest),
}

impl Unsettled {
    /// An upper bound of the positions: those of the longest possible continuation.
    #[must_use]
    pub fn most(&self) -> Positions {
        match self {
            Self::Reply { mean: true, .. } => Positions::Mean,
            Self::Reply { reply_from, which: Which::All, .. } => {
                Positions::Range { start: Some((*reply_from).into()), end: None }
            }
            Self::Reply { .. } => Positions::Last,
            Self::Asked(asked) if asked.is_mean() => Positions::Mean,
            Self::Asked(_) => Positions::All,
        }
    }

    /// Resolves the positions. `special` has an entry for every token: whether it is a special token. Special tokens at the end
    /// of a reply are not part of the reply.
    ///
    /// # Errors
    /// As [`PositionsRequest::resolve`]; [`Code::PositionOutOfRange`] for an empty reply.
    pub fn resolve(&self, special: &[bool]) -> Result<Positions, Problem> {
        match self {
            Self::Asked(asked) => asked.resolve(&TokenView { special, spelled: None, messages: None }),
            Self::Reply { reply_from, which, mean } => {
                let start = *reply_from as usize;
                let end = special.iter().rposition(|special| !special).map_or(0, |last| last + 1);
                if start >= end {
                    let detail = "the reply has no tokens: the model ended it at once";
                    return Err(Problem::at(Code::PositionOutOfRange, "/positions", detail));
                }
                let positions = which.of(start..end);
                let twice = |detail| Problem::at(Code::InvalidValue, "/positions", detail);
                if *mean { Positions::mean_of(positions).map_err(twice) } else { Ok(positions) }
            }
        }
    }
}

impl PositionsRequest {
    /// The same positions, with the index of the message replaced.
    #[must_use]
    pub fn of_message(&self, message: i64) -> Self {
        match self {
            Self::Message { which, .. } => Self::Message { message, which: *which },
            Self::Mean { mean } => Self::Mean { mean: Box::new(mean.of_message(message)) },
            other => other.clone(),
        }
    }

    /// The index of the message, and which of its tokens, if the positions refer to a message.
    #[must_use]
    pub fn message(&self) -> Option<(i64, Which)> {
        match self {
            Self::Message { message, which } => Some((*message, *which)),
            Self::Mean { mean } => mean.message(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reply_is_what_was_generated_without_the_tokens_that_end_it() {
        let special = [true, false, false, false, false, true];
        let reply = |which, mean| Unsettled::Reply { reply_from: 3, which, mean };
        let range = Positions::Range { start: Some(3), end: Some(5) };
        assert_eq!(reply(Which::First, false).resolve(&special), Ok(Positions::One(3)));
        assert_eq!(reply(Which::Last, false).resolve(&special), Ok(Positions::One(4)));
        assert_eq!(reply(Which::All, false).resolve(&special), Ok(range.clone()));
        assert_eq!(reply(Which::All, true).resolve(&special), Ok(Positions::MeanOf(Box::new(range))));
        let empty = reply(Which::Last, false).resolve(&[true, false, false, true]).unwrap_err();
        assert_eq!(empty.code, Code::PositionOutOfRange);
    }

    #[test]
    fn what_is_not_settled_survives_storage() {
        let asked: PositionsRequest = serde_json::from_value(json!({"mean": {"special": false}})).unwrap();
        for unsettled in
            [Unsettled::Asked(asked.clone()), Unsettled::Reply { reply_from: 7, which: Which::All, mean: true }]
        {
            let stored = serde_json::to_value(&unsettled).unwrap();
            assert_eq!(serde_json::from_value::<Unsettled>(stored).unwrap(), unsettled);
        }
        // the format of versions before replies were introduced
        let before = serde_json::from_value::<Unsettled>(serde_json::to_value(&asked).unwrap()).unwrap();
        assert_eq!(before, Unsettled::Asked(asked));
        // not part of the API
        let stored = json!({"reply_from": 7, "which": "all", "mean": true});
        assert!(serde_json::from_value::<PositionsRequest>(stored).is_err());
    }
}
