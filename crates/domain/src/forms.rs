//! Deserialises values that a client may write in several forms (a word, a number, an object), and lists the forms in errors.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

/// Largest number of elements of a list: more than any context has tokens, and few enough to keep in memory.
pub const MAX_LIST: usize = 1 << 20;

/// A type with several forms.
pub trait Forms {
    /// The forms, as errors list them.
    fn forms() -> Vec<String>;
}

impl Forms for Vec<usize> {
    fn forms() -> Vec<String> {
        vec!["an array of whole numbers from 0 on".to_owned()]
    }
}

/// Joins forms for the end of a sentence: `a, b or c`.
#[must_use]
pub fn listed(forms: &[String]) -> String {
    match forms {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A word as JSON spells it.
#[must_use]
pub fn word(word: &str) -> String {
    format!("\"{word}\"")
}

/// An object as errors show it, by its fields.
#[must_use]
pub fn object(fields: &[&str]) -> String {
    let fields: Vec<String> = fields.iter().map(|field| format!("\"{field}\":")).collect();
    format!("{{{}}}", fields.join(", "))
}

/// Reads a list of at most [`MAX_LIST`] integers.
///
/// # Errors
/// For an element that is not an integer, and for a longer list.
pub fn list<'de, A: SeqAccess<'de>>(mut elements: A) -> Result<Vec<i64>, A::Error> {
    let mut list = Vec::new();
    while let Some(number) = elements.next_element()? {
        if list.len() == MAX_LIST {
            return Err(A::Error::custom(format!("a list of numbers has at most {MAX_LIST}")));
        }
        list.push(number);
    }
    Ok(list)
}

/// One of several words, or a `T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordOr<W, T> {
    /// One of the words.
    Word(W),
    /// A `T`.
    Other(T),
}

impl<'de, W: Copy, T: Deserialize<'de> + Forms> WordOr<W, T> {
    /// Reads one of `words`, or a `T`.
    ///
    /// # Errors
    /// For anything else, listing the words and the forms of `T`.
    pub fn read<D: Deserializer<'de>>(deserializer: D, words: &[(&'static str, W)]) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either { words, other: PhantomData })
    }
}

struct Either<'w, W, T> {
    words: &'w [(&'static str, W)],
    other: PhantomData<T>,
}

impl<'de, W: Copy, T: Deserialize<'de> + Forms> Visitor<'de> for Either<'_, W, T> {
    type Value = WordOr<W, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut forms: Vec<String> = self.words.iter().map(|(name, _)| word(name)).collect();
        for form in T::forms() {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        f.write_str(&listed(&forms))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if let Some((_, word)) = self.words.iter().find(|(name, _)| *name == text) {
            return Ok(WordOr::Word(*word));
        }
        let other = T::deserialize(IntoDeserializer::<serde::de::value::Error>::into_deserializer(text));
        other.map(WordOr::Other).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(WordOr::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(WordOr::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(elements)).map(WordOr::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(entries)).map(WordOr::Other)
    }
}
