//! Finds the tokens of a text, a message or a kind among the tokens of one input.

use std::{borrow::Cow, ops::Range};

use super::{Positions, index};
use crate::problem::{Code, Problem};

/// Number of characters of a text that an error shows.
const SHOWN: usize = 100;

/// What positions need to know about the tokens of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView<'a> {
    /// For each token, whether it is a special token.
    pub special: &'a [bool],
    /// The text that they spell; `None` if they do not spell one.
    pub spelled: Option<Spelled<'a>>,
    /// For a chat, the range of characters of each message in the text, `None` if it is unknown; `None` for other inputs.
    pub messages: Option<Vec<Option<Range<usize>>>>,
}

/// A text, and the characters that each token covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spelled<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// For each token, the characters `[start, end)` that it covers; `None` for a token that was added.
    pub offsets: Cow<'a, [Option<(usize, usize)>]>,
    /// Characters whose tokens were truncated; they are not searched.
    pub cut: Range<usize>,
}

impl Spelled<'_> {
    /// The tokens that cover characters of `span`; `None` if there are none.
    #[must_use]
    pub fn tokens(&self, span: &Range<usize>) -> Option<Range<usize>> {
        // Tokens are in the order of the text; added tokens are before and after it.
        let first = self.offsets.iter().position(Option::is_some)?;
        let last = self.offsets.iter().rposition(Option::is_some)?;
        let within = &self.offsets[first..=last];
        let start = within.partition_point(|offset| offset.is_none_or(|(_, end)| end <= span.start));
        let end = within.partition_point(|offset| offset.is_none_or(|(start, _)| start < span.end));
        (start < end).then(|| first + start..first + end)
    }

    /// Every occurrence of `text` that is not truncated, in characters.
    fn occurrences(&self, text: &str) -> Vec<Range<usize>> {
        if self.cut.is_empty() {
            return occurrences(&self.text, text, 0);
        }
        let byte = |at: usize| self.text.char_indices().nth(at).map_or(self.text.len(), |(byte, _)| byte);
        let mut found = occurrences(&self.text[..byte(self.cut.start)], text, 0);
        found.extend(occurrences(&self.text[byte(self.cut.end)..], text, self.cut.end));
        found
    }
}

/// Every occurrence of `needle` in `text`, without overlaps, in characters, which are numbered from `first`.
fn occurrences(text: &str, needle: &str, first: usize) -> Vec<Range<usize>> {
    let width = needle.chars().count();
    let (mut byte, mut at) = (0, first);
    let matches = text.match_indices(needle).map(|(start, _)| {
        at += text[byte..start].chars().count();
        byte = start;
        at..at + width
    });
    matches.collect()
}

impl TokenView<'_> {
    /// The tokens of an occurrence of `text`.
    pub(super) fn of_text(&self, text: &str, occurrence: i64) -> Result<Range<usize>, Problem> {
        let not_found = |detail: String| Problem::at(Code::TextNotFound, "/positions", detail);
        let spelled = self.spelled()?;
        let found = spelled.occurrences(text);
        let shown: String = text.chars().take(SHOWN).collect();
        let Some(nth) = index(occurrence, found.len()) else {
            let left = if spelled.cut.is_empty() { "" } else { " in what truncation left" };
            return Err(not_found(match found.len() {
                0 => format!("{shown:?} does not occur{left}"),
                1 => format!("{shown:?} occurs once{left}, so there is no occurrence {occurrence}: 0 is the first"),
                n => {
                    format!("{shown:?} occurs {n} times{left}, so there is no occurrence {occurrence}: 0 is the first")
                }
            }));
        };
        spelled.tokens(&found[nth]).ok_or_else(|| not_found(format!("no token covers {shown:?} there")))
    }

    /// The tokens of the text of a message.
    pub(super) fn of_message(&self, message: i64) -> Result<Range<usize>, Problem> {
        let missing = |detail: String| Problem::at(Code::PositionOutOfRange, "/positions", detail);
        let Some(messages) = &self.messages else {
            let detail = "message positions need a chat as input";
            return Err(Problem::at(Code::InvalidValue, "/positions", detail));
        };
        let nth = index(message, messages.len()).ok_or_else(|| {
            missing(format!("message {message} does not exist: the chat's messages number {}", messages.len()))
        })?;
        let Some(span) = &messages[nth] else {
            return Err(missing(format!("the rendered chat does not show where message {message} is")));
        };
        let tokens = self.spelled()?.tokens(span);
        tokens.ok_or_else(|| missing(format!("truncation left nothing of message {message}")))
    }

    /// The special tokens, or the others.
    pub(super) fn of_kind(&self, special: bool) -> Result<Positions, Problem> {
        let which = self.special.iter().enumerate().filter(|(_, s)| **s == special);
        #[expect(clippy::cast_possible_wrap, reason = "a context is shorter than 2^32")]
        let list: Vec<i64> = which.map(|(i, _)| i as i64).collect();
        match list.as_slice() {
            [] => {
                let kind = if special { "no special tokens" } else { "only special tokens" };
                Err(Problem::at(Code::PositionOutOfRange, "/positions", format!("the input has {kind}")))
            }
            [first, .., last] if last - first + 1 == i64::try_from(list.len()).unwrap_or(i64::MAX) => {
                Ok(Positions::Range { start: Some(*first), end: Some(last + 1) })
            }
            _ => Ok(Positions::List(list)),
        }
    }

    fn spelled(&self) -> Result<&Spelled<'_>, Problem> {
        self.spelled.as_ref().ok_or_else(|| {
            let detail = "the tokens of this model do not spell a text of their own; send the input as text";
            Problem::at(Code::InvalidValue, "/positions", detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::PositionsRequest;

    /// `<s>`, "The", " café", " caf", "é" in two pieces, ".", `</s>`.
    const TEXT: &str = "The café café.";
    const SPECIAL: [bool; 8] = [true, false, false, false, false, false, false, true];
    const OFFSETS: [Option<(usize, usize)>; 8] =
        [None, Some((0, 3)), Some((3, 8)), Some((8, 12)), Some((12, 13)), Some((12, 13)), Some((13, 14)), None];

    fn view(cut: Range<usize>) -> TokenView<'static> {
        let spelled = Spelled { text: TEXT.into(), offsets: OFFSETS.as_slice().into(), cut };
        TokenView { special: &SPECIAL, spelled: Some(spelled), messages: Some(vec![Some(4..8), None, Some(9..14)]) }
    }

    fn ask(positions: Value) -> Result<Value, Problem> {
        let request: PositionsRequest = serde_json::from_value(positions).unwrap();
        request.resolve(&view(0..0)).map(|p| serde_json::to_value(p).unwrap())
    }

    #[test]
    fn text_is_found_by_occurrence() {
        for (asked, found) in [
            (json!({"text": "café"}), json!(2)),
            (json!({"text": "café", "occurrence": 1}), json!(5)),
            (json!({"text": "café", "occurrence": -1, "which": "first"}), json!(3)),
            (json!({"text": "café", "occurrence": -1, "which": "all"}), json!({"start": 3, "end": 6})),
            (json!({"text": "The", "which": "all"}), json!({"start": 1, "end": 2})),
            (json!({"text": "e c", "which": "all"}), json!({"start": 1, "end": 3})),
            (json!({"text": "é", "occurrence": 1, "which": "first"}), json!(4)),
            (json!({"text": TEXT, "which": "all"}), json!({"start": 1, "end": 7})),
            (
                json!({"mean": {"text": "café", "occurrence": 1, "which": "all"}}),
                json!({"mean": {"start": 3, "end": 6}}),
            ),
        ] {
            assert_eq!(ask(asked.clone()).unwrap(), found, "{asked}");
        }
    }

    #[test]
    fn tokens_whose_spaces_were_trimmed_are_found_by_what_is_left_of_them() {
        // "a", two spaces, " b", as a tokenizer gives them that trims offsets.
        let offsets = [Some((0, 1)), Some((3, 3)), Some((4, 5))];
        let spelled = Spelled { text: "a   b".into(), offsets: offsets.as_slice().into(), cut: 0..0 };
        assert_eq!(spelled.tokens(&(0..5)), Some(0..3));
        assert_eq!(spelled.tokens(&(3..5)), Some(2..3));
        assert_eq!(spelled.tokens(&(1..3)), None);
        let view = TokenView { special: &[false; 3], spelled: Some(spelled), messages: None };
        let problem = view.of_text("  ", 0).unwrap_err();
        assert_eq!((problem.code, problem.detail.as_str()), (Code::TextNotFound, "no token covers \"  \" there"));
    }

    #[test]
    fn a_missing_occurrence_says_how_many_there_are() {
        for (asked, says) in [
            (json!({"text": "tea"}), "\"tea\" does not occur"),
            (json!({"text": "The", "occurrence": 1}), "occurs once"),
            (json!({"text": "café", "occurrence": -3}), "occurs 2 times"),
        ] {
            let problem = ask(asked).unwrap_err();
            assert_eq!(problem.code, Code::TextNotFound);
            assert!(problem.detail.contains(says), "{}", problem.detail);
        }
    }

    #[test]
    fn kinds_and_messages() {
        assert_eq!(ask(json!({"special": false})).unwrap(), json!({"start": 1, "end": 7}));
        assert_eq!(ask(json!({"special": true})).unwrap(), json!([0, 7]));
        assert_eq!(ask(json!({"mean": {"special": false}})).unwrap(), json!({"mean": {"start": 1, "end": 7}}));
        assert_eq!(ask(json!({"message": -1, "which": "all"})).unwrap(), json!({"start": 3, "end": 7}));
        assert_eq!(ask(json!({"message": 0})).unwrap(), json!(2));
        for (asked, says) in [(json!({"message": 1}), "does not show"), (json!({"message": 3}), "messages number 3")] {
            let problem = ask(asked).unwrap_err();
            assert!(problem.code == Code::PositionOutOfRange && problem.detail.contains(says), "{problem}");
        }
        let none = TokenView { special: &[true], spelled: None, messages: None };
        for asked in [json!({"special": false}), json!({"text": "a"}), json!({"message": 0}), json!(1)] {
            let request: PositionsRequest = serde_json::from_value(asked).unwrap();
            assert!(request.resolve(&none).is_err());
        }
    }

    #[test]
    fn what_was_cut_is_not_searched() {
        let find = |cut: Range<usize>, text: &str| view(cut).spelled.unwrap().occurrences(text);
        assert_eq!(find(0..0, "caf"), [4..7, 9..12]);
        assert_eq!(find(0..6, "caf"), std::iter::once(9..12).collect::<Vec<_>>());
        assert_eq!(find(10..14, "caf"), std::iter::once(4..7).collect::<Vec<_>>());
        assert!(find(3..9, " ").is_empty() && find(3..9, "Thecaf").is_empty());
        let problem = view(3..14).of_text("café", 0).unwrap_err();
        assert_eq!(problem.detail, "\"café\" does not occur in what truncation left");
    }
}
