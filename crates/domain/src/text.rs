//! What a text is searched for: words, and phrases in quotation marks.

use std::fmt;

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Most words and phrases of one query.
const MAX_PHRASES: usize = 32;
/// Most characters of one query.
const MAX_CHARS: usize = 1000;

/// Words and phrases that must all occur. Nothing in it is an operator: it is data to whoever looks it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextQuery(Vec<String>);

/// Why a text cannot be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextQueryError {
    /// A quotation mark has no partner.
    Unclosed,
    /// There is no letter or digit in it.
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
    /// Reads a query: `tower "in the city"` is a word and a phrase. Marks that stand alone are no words, and are left out.
    ///
    /// # Errors
    /// [`TextQueryError`].
    pub fn parse(text: &str) -> Result<Self, TextQueryError> {
        if text.chars().count() > MAX_CHARS {
            return Err(TextQueryError::TooLong);
        }
        let mut phrases = Vec::new();
        // outside, inside, outside, ...
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

    /// The words and phrases, none of which has a quotation mark or a control character.
    #[must_use]
    pub fn phrases(&self) -> &[String] {
        &self.0
    }
}

/// What a phrase must have to be found, alone: parts that are divided for sure, most of them a word each.
pub fn words(phrase: &str) -> impl Iterator<Item = &str> {
    phrase.split(divides).filter(|part| part.chars().any(is_of_word))
}

/// Whether a character makes a word: what FTS5's `unicode61` takes for one, apart from characters younger than it. Letters with
/// a circle around them do not.
fn is_of_word(c: char) -> bool {
    matches!(c.general_category_group(), GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number)
        || c.general_category() == GeneralCategory::PrivateUse
}

/// Whether a character divides words. Of some marks that is not sure.
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
        // a mark may belong to the letter before it, and divides nothing
        assert_eq!(divided("cafe\u{301}s \u{4f60}\u{597d}\u{3002}\u{4f60}"), "cafe\u{301}s|\u{4f60}\u{597d}|\u{4f60}");
        assert_eq!(divided("\u{e000}"), "\u{e000}");
        assert_eq!(divided(" - "), "");
    }
}
