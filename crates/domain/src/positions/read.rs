//! Reads positions from JSON.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer},
};

use super::{Part, Positions, PositionsRequest, Which};
use crate::forms::{Forms, list, listed, object, word};

/// Positions that are words.
const NAMED: [(&str, Positions); 3] = [("last", Positions::Last), ("mean", Positions::Mean), ("all", Positions::All)];

/// The parts of a text that is continued.
const PARTS: [(&str, Part); 2] = [("prompt", Part::Prompt), ("generated", Part::Generated)];

/// Fields of a range, all optional.
const RANGE: [&str; 2] = ["start", "end"];

/// Forms that refer to the contents of tokens, with their fields. The first field identifies the form.
const BY_TOKENS: [&[&str]; 3] = [&["text", "occurrence", "which"], &["message", "which"], &["special"]];

/// The field of a mean over positions.
const MEAN: [&str; 1] = ["mean"];

/// Every field that an object may have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    start: Option<i64>,
    end: Option<i64>,
    text: Option<String>,
    occurrence: Option<i64>,
    which: Option<Which>,
    message: Option<i64>,
    special: Option<bool>,
    mean: Option<Box<PositionsRequest>>,
}

impl Fields {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("start", self.start.is_some()),
            ("end", self.end.is_some()),
            ("text", self.text.is_some()),
            ("occurrence", self.occurrence.is_some()),
            ("which", self.which.is_some()),
            ("message", self.message.is_some()),
            ("special", self.special.is_some()),
            ("mean", self.mean.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }

    /// Refuses fields that do not belong to the same form.
    fn check(&self) -> Result<(), String> {
        let is_given = |field: &str| self.given().any(|given| given == field);
        let forms = BY_TOKENS.into_iter().chain([&MEAN[..]]);
        let form = forms.into_iter().find(|form| is_given(form[0])).unwrap_or(&RANGE);
        match self.given().find(|field| !form.contains(field)) {
            Some(field) => {
                Err(format!("`{field}` does not go with the rest; positions have the fields {}", object(form)))
            }
            None => Ok(()),
        }
    }

    fn positions(self) -> Result<PositionsRequest, String> {
        self.check()?;
        let which = self.which.unwrap_or_default();
        match self {
            Self { text: Some(text), .. } if text.is_empty() => Err("the text of positions is empty".to_owned()),
            Self { text: Some(text), occurrence, .. } => {
                Ok(PositionsRequest::Text { text, occurrence: occurrence.unwrap_or(0), which })
            }
            Self { message: Some(message), .. } => Ok(PositionsRequest::Message { message, which }),
            Self { special: Some(special), .. } => Ok(PositionsRequest::Special { special }),
            Self { mean: Some(of), .. } => PositionsRequest::mean(*of).map_err(ToOwned::to_owned),
            Self { start, end, .. } => Ok(PositionsRequest::Known(Positions::Range { start, end })),
        }
    }
}

impl Forms for Positions {
    fn forms() -> Vec<String> {
        let numbers = ["a whole number", "an array of whole numbers"].map(ToOwned::to_owned);
        let names = NAMED.iter().map(|(name, _)| word(name));
        names.chain(numbers).chain([object(&RANGE), object(&MEAN)]).collect()
    }
}

impl Forms for PositionsRequest {
    fn forms() -> Vec<String> {
        let parts = PARTS.iter().map(|(name, _)| word(name));
        parts.chain(Positions::forms()).chain(BY_TOKENS.map(object)).collect()
    }
}

/// Reads positions. `by_tokens`: whether forms that refer to the contents of tokens are allowed.
struct Read {
    by_tokens: bool,
}

impl<'de> Visitor<'de> for Read {
    type Value = PositionsRequest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(&if self.by_tokens { PositionsRequest::forms() } else { Positions::forms() }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PositionsRequest, E> {
        if let Some((_, part)) = PARTS.into_iter().find(|(name, _)| *name == text && self.by_tokens) {
            return Ok(PositionsRequest::Part(part));
        }
        let named = NAMED.into_iter().find(|(name, _)| *name == text);
        let named = named.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self));
        named.map(|(_, positions)| PositionsRequest::Known(positions))
    }

    fn visit_i64<E: Error>(self, position: i64) -> Result<PositionsRequest, E> {
        Ok(PositionsRequest::Known(Positions::One(position)))
    }

    fn visit_u64<E: Error>(self, position: u64) -> Result<PositionsRequest, E> {
        // a number beyond `i64` is not a position either
        self.visit_i64(i64::try_from(position).unwrap_or(i64::MAX))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<PositionsRequest, A::Error> {
        let list = list(elements)?;
        if list.is_empty() {
            return Err(A::Error::custom("the list of positions is empty"));
        }
        Ok(PositionsRequest::Known(Positions::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<PositionsRequest, A::Error> {
        let fields = Fields::deserialize(MapAccessDeserializer::new(entries))?;
        fields.positions().map_err(A::Error::custom)
    }
}

impl<'de> Deserialize<'de> for PositionsRequest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Read { by_tokens: true })
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match d.deserialize_any(Read { by_tokens: false })? {
            PositionsRequest::Known(positions) => Ok(positions),
            _ => Err(D::Error::custom(format!("must be {}", listed(&Self::forms())))),
        }
    }
}
