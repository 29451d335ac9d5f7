//! Full-text queries: words, and phrases in quotation marks. It parses them; it does not search.

use std::fmt;

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Largest number of words and phrases in a query.
const MAX_PHRASES: usize = 32;
/// Largest number of characters in a query.
const MAX_CHARS: usize = 1000;

/// Words and phrases that must all occur. It contains no operators: the index gets the words as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextQuery(Vec<String>);

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextQueryError {
    /// A quotation mark has no partner.
    Unclosed,
    /// It has no letter or digit.
    NoWord,
    /// It is too long.
    TooLong,
}

impl fmt::Display for TextQueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => f.write_str("a quotation mark is not closed"),
            Self::NoWord => f.write_str("there is no word to look for"),
            Self::TooLong => {
                write!(f, "at most {MAX_PHRASES} words and phrases with {MAX_CHARS} characters are looked for at once")
            }
        }
    }
}

impl std::error::Error for TextQueryError {}

impl TextQuery {
    /// Parses a query: `tower "in the city"` is a word and a phrase. Punctuation that stands alone is ignored.
    ///
    /// # Errors
    /// [`TextQueryError`].
    pub fn parse(text: &str) -> Result<Self, TextQueryError> {
        if text.chars().count() > MAX_CHARS {
            return Err(TextQueryError::TooLong);
        }
        let mut phrases = Vec::new();
        // alternately outside and inside of quotation marks
        let parts: Vec<&str> = text.split('"').collect();
        if parts.len().is_multiple_of(2) {
            return Err(TextQueryError::Unclosed);
        }
        for (i, part) in parts.into_iter().enumerate() {
            if i % 2 == 1 {
                phrases.push(part);
            } else {
                phrases.extend(part.split_whitespace());
            }
        }
        phrases.retain(|p| p.chars().any(is_of_word));
        match phrases.len() {
            0 => Err(TextQueryError::NoWord),
            1..=MAX_PHRASES => Ok(Self(phrases.into_iter().map(printable).collect())),
            _ => Err(TextQueryError::TooLong),
        }
    }

    /// The words and phrases, without quotation marks and control characters.
    #[must_use]
    pub fn phrases(&self) -> &[String] {
        &self.0
    }
}

/// Parts of a phrase that must each occur wherever the phrase does. They are split at characters that are certain to separate words,
/// so most are single words.
pub fn words(phrase: &str) -> impl Iterator<Item = &str> {
    phrase.split(divides).filter(|part| part.chars().any(is_of_word))
}

/// Whether a character is part of a word for FTS5's `unicode61`, except for characters that are newer than its tables. Circled
/// letters are not.
fn is_of_word(c: char) -> bool {
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
        || c.general_category() == GeneralCategory::PrivateUse
}

/// Whether a character is certain to separate words. For some marks this is not certain.
fn divides(c: char) -> bool {
    !is_of_word(c) && c.general_category_group() != GeneralCategoryGroup::Mark
}

fn printable(phrase: &str) -> String {
    phrase.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_phrases_are_told_apart() {
        let read = |text: &str| TextQuery::parse(text).map(|q| q.0.join("|"));
        assert_eq!(read("  The \"city of\" Paris").as_deref(), Ok("The|city of|Paris"));
        assert_eq!(read("a\"b c\"d").as_deref(), Ok("a|b c|d"));
        assert_eq!(read("x AND NOT (y*) - %").as_deref(), Ok("x|AND|NOT|(y*)"));
        assert_eq!(read("a\0b").as_deref(), Ok("a b"));
        assert_eq!(read("say \"hi"), Err(TextQueryError::Unclosed));
        assert_eq!(read("vitamin \u{24b6}").as_deref(), Ok("vitamin"), "a circled letter is no letter to the index");
        for empty in ["", " ", "%", "\"\"", "\"--\" ...", "\u{24b6}"] {
            assert_eq!(read(empty), Err(TextQueryError::NoWord), "{empty}");
        }
        assert_eq!(read(&"a ".repeat(33)), Err(TextQueryError::TooLong));
        assert_eq!(read(&"a".repeat(1001)), Err(TextQueryError::TooLong));
    }

    #[test]
    fn phrases_are_divided_where_that_is_sure() {
        let divided = |phrase| words(phrase).collect::<Vec<_>>().join("|");
        assert_eq!(divided("the city's 2024-01-05 \u{2014} a.b"), "the|city|s|2024|01|05|a|b");
        assert_eq!(divided("vitamin \u{24b6} - x"), "vitamin|x");
        // a combining mark may belong to the letter before it, and separates nothing
        assert_eq!(divided("cafe\u{301}s \u{4f60}\u{597d}\u{3002}\u{4f60}"), "cafe\u{301}s|\u{4f60}\u{597d}|\u{4f60}");
        assert_eq!(divided("\u{e000}"), "\u{e000}");
        assert_eq!(divided(" - "), "");
    }
}
