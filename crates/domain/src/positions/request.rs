//! Positions as a client asks for them: by number, or by the contents of tokens.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Positions, TokenView};
use crate::problem::{Code, Problem};

/// Positions that may depend on the tokens of the input. [`Self::resolve`] turns them into [`Positions`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PositionsRequest {
    /// Positions that depend only on the number of tokens.
    Known(Positions),
    /// The tokens of the prompt, or those that are generated after it; keeps the position axis.
    Part(Part),
    /// The tokens of an occurrence of a text.
    Text {
        /// The text to find in the input; never empty.
        text: String,
        /// Which occurrence, from 0; negatives count from the last. Occurrences do not overlap.
        occurrence: i64,
        /// Which of its tokens.
        which: Which,
    },
    /// The tokens of the text of a chat message, without what the template adds around it.
    Message {
        /// Index of the message; negatives count from the last, which is the reply if there is one.
        message: i64,
        /// Which of its tokens.
        which: Which,
    },
    /// All special tokens, or all others; keeps the position axis.
    Special {
        /// Which of the two.
        special: bool,
    },
    /// The mean over the rows that other positions select; drops the position axis.
    Mean {
        /// The positions; never a mean.
        mean: Box<PositionsRequest>,
    },
}

/// The two parts of a text that a model continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The input. All of it if nothing is generated.
    Prompt,
    /// What is generated after it.
    Generated,
}

/// Which tokens of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The first one; drops the position axis.
    First,
    /// The last one, which has seen the whole span; drops the position axis.
    #[default]
    Last,
    /// Every one; keeps the position axis.
    All,
}

impl Which {
    /// The positions of these tokens of a span.
    pub(super) fn of(self, span: Range<usize>) -> Positions {
        #[expect(clippy::cast_possible_wrap, reason = "a context is shorter than 2^32")]
        let (start, end) = (span.start as i64, span.end as i64);
        match self {
            Self::First => Positions::One(start),
            Self::Last => Positions::One(end - 1),
            Self::All => Positions::Range { start: Some(start), end: Some(end) },
        }
    }
}

impl PositionsRequest {
    /// Whether it refers to text, so that [`TokenView::spelled`] is needed.
    #[must_use]
    pub fn names_text(&self) -> bool {
        match self {
            Self::Text { .. } | Self::Message { .. } => true,
            Self::Mean { mean } => mean.names_text(),
            Self::Known(_) | Self::Part(_) | Self::Special { .. } => false,
        }
    }

    /// Whether it refers to a message, so that [`TokenView::messages`] is needed.
    #[must_use]
    pub fn names_message(&self) -> bool {
        match self {
            Self::Message { .. } => true,
            Self::Mean { mean } => mean.names_message(),
            _ => false,
        }
    }

    /// Number of positions that are listed individually.
    #[must_use]
    pub fn n_listed(&self) -> usize {
        match self {
            Self::Known(positions) => positions.n_listed(),
            Self::Mean { mean } => mean.n_listed(),
            Self::Part(_) | Self::Text { .. } | Self::Message { .. } | Self::Special { .. } => 0,
        }
    }

    /// Whether it is a mean over other positions.
    #[must_use]
    pub fn is_mean(&self) -> bool {
        matches!(self, Self::Known(Positions::Mean | Positions::MeanOf(_)) | Self::Mean { .. })
    }

    /// Whether it refers to kinds of tokens, so that all tokens must be known, including generated ones.
    #[must_use]
    pub fn names_kind(&self) -> bool {
        match self {
            Self::Special { .. } => true,
            Self::Mean { mean } => mean.names_kind(),
            _ => false,
        }
    }

    /// Replaces the parts of a text by numbers, for an input of `n_prompt` tokens.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for the generated part of an input after which nothing is generated.
    pub fn with_parts(self, n_prompt: usize, generates: bool) -> Result<Self, Problem> {
        let n_prompt = i64::try_from(n_prompt).unwrap_or(i64::MAX);
        let range = |start, end| Self::Known(Positions::Range { start: Some(start), end });
        match self {
            Self::Part(Part::Prompt) => Ok(range(0, Some(n_prompt))),
            Self::Part(Part::Generated) if generates => Ok(range(n_prompt, None)),
            Self::Part(Part::Generated) => {
                let detail = "`generated` positions need `generate`: nothing is generated after this input";
                Err(Problem::at(Code::InvalidValue, "/positions", detail))
            }
            Self::Mean { mean } => {
                let twice = |detail| Problem::at(Code::InvalidValue, "/positions", detail);
                Self::mean(mean.with_parts(usize::try_from(n_prompt).unwrap_or(usize::MAX), generates)?).map_err(twice)
            }
            other => Ok(other),
        }
    }

    /// Resolves the positions among `tokens`.
    ///
    /// # Errors
    /// [`Code::TextNotFound`] saying how often the text occurs; [`Code::PositionOutOfRange`] for a position, message or
    /// kind of token that the input does not have; [`Code::InvalidValue`] for text or messages where there are none, and
    /// for parts that [`Self::with_parts`] has not replaced.
    pub fn resolve(&self, tokens: &TokenView<'_>) -> Result<Positions, Problem> {
        match self {
            Self::Known(positions) => {
                positions.resolve(tokens.special.len())?;
                Ok(positions.clone())
            }
            Self::Part(_) => {
                let detail = "`prompt` and `generated` are positions of an input that is continued";
                Err(Problem::at(Code::InvalidValue, "/positions", detail))
            }
            Self::Text { text, occurrence, which } => tokens.of_text(text, *occurrence).map(|span| which.of(span)),
            Self::Message { message, which } => tokens.of_message(*message).map(|span| which.of(span)),
            Self::Special { special } => tokens.of_kind(*special),
            Self::Mean { mean } => {
                let twice = |detail| Problem::at(Code::InvalidValue, "/positions", detail);
                Positions::mean_of(mean.resolve(tokens)?).map_err(twice)
            }
        }
    }

    pub(super) fn mean(of: Self) -> Result<Self, &'static str> {
        match of {
            Self::Known(of) => Positions::mean_of(of).map(Self::Known),
            Self::Mean { .. } => Err("the mean of a mean is not taken"),
            of => Ok(Self::Mean { mean: Box::new(of) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(v: Value) -> Result<PositionsRequest, serde_json::Error> {
        serde_json::from_value(v)
    }

    #[test]
    fn every_form_is_read_and_written() {
        for v in [
            json!("last"),
            json!("prompt"),
            json!({"mean": "generated"}),
            json!([0, -1]),
            json!({"start": 1, "end": null}),
            json!({"text": "a", "occurrence": -1, "which": "first"}),
            json!({"message": -1, "which": "all"}),
            json!({"special": false}),
            json!({"mean": {"special": false}}),
            json!({"mean": {"text": "a", "occurrence": 0, "which": "all"}}),
            json!({"mean": {"start": 1, "end": 3}}),
        ] {
            assert_eq!(serde_json::to_value(parse(v.clone()).unwrap()).unwrap(), v);
        }
        let short = PositionsRequest::Text { text: "a".to_owned(), occurrence: 0, which: Which::Last };
        assert_eq!(parse(json!({"text": "a"})).unwrap(), short);
        assert_eq!(parse(json!({"text": "a", "occurrence": null, "which": null})).unwrap(), short);
        assert_eq!(parse(json!({"mean": "all"})).unwrap(), PositionsRequest::Known(Positions::Mean));
    }

    #[test]
    fn the_parts_of_a_text_become_ranges() {
        let numbers = |v: Value, generates| {
            parse(v).unwrap().with_parts(3, generates).map(|asked| serde_json::to_value(asked).unwrap())
        };
        assert_eq!(numbers(json!("prompt"), true), Ok(json!({"start": 0, "end": 3})));
        assert_eq!(numbers(json!("prompt"), false), Ok(json!({"start": 0, "end": 3})));
        assert_eq!(numbers(json!("generated"), true), Ok(json!({"start": 3, "end": null})));
        assert_eq!(numbers(json!({"mean": "generated"}), true), Ok(json!({"mean": {"start": 3, "end": null}})));
        assert_eq!(numbers(json!({"special": true}), true), Ok(json!({"special": true})));
        assert_eq!(numbers(json!("generated"), false).unwrap_err().code, Code::InvalidValue);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (v, why) in [
            (json!({"text": ""}), "empty"),
            (json!({"text": 5}), "string"),
            (json!({"text": "a", "occurence": 1}), "occurence"),
            (json!({"text": "a", "occurrence": "last"}), "i64"),
            (json!({"text": "a", "which": "middle"}), "middle"),
            (json!({"text": "a", "message": 0}), "fields"),
            (json!({"message": "user"}), "i64"),
            (json!({"message": 0, "occurrence": 1}), "fields"),
            (json!({"special": 0}), "boolean"),
            (json!({"special": true, "which": "all"}), "field"),
            (json!({"mean": {"mean": {"special": true}}}), "mean of a mean"),
            (json!({"mean": {"special": true}, "which": "all"}), "field"),
            (json!({"word": "a"}), "word"),
        ] {
            let error = parse(v.clone()).unwrap_err().to_string();
            assert!(error.contains(why), "{v}: {error}");
        }
    }
}
