//! The field `input` of a request: texts or token ids, one or several.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Unexpected, Visitor},
};
use utoipa::ToSchema;

/// Maximum number of inputs of any request; parsing stops there. The server's own limit is checked later.
const MAX_INPUTS: usize = 1_000_000;

/// One or several inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids of one input.
    TokenIds(Vec<u32>),
    /// Token ids of several inputs.
    TokenIdLists(Vec<Vec<u32>>),
}

/// Whether there may be several inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    /// One or several.
    Yes,
    /// Exactly one.
    No,
}

impl Input {
    /// How many inputs there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::TokenIds(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::TokenIdLists(lists) => lists.len(),
        }
    }

    /// Deserializes one input or, if `many` allows it, several.
    ///
    /// # Errors
    /// If it is not text, token ids, or an array of one of these.
    pub fn read<'de, D: Deserializer<'de>>(deserializer: D, many: Many) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read { many })
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer, Many::Yes)
    }
}

struct Read {
    many: Many,
}

impl<'de> Visitor<'de> for Read {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.many {
            Many::Yes => "a string, an array of strings, an array of token ids or an array of arrays of token ids",
            Many::No => "a string or an array of token ids",
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Input, A::Error> {
        // the type of the first element decides that of the others
        match (elements.next_element()?, self.many) {
            (None, _) => Ok(Input::TokenIds(Vec::new())),
            (Some(First::Id(id)), _) => rest(id, elements, usize::MAX).map(|ids| Input::TokenIds(only_ids(ids))),
            (Some(First::Text(text)), Many::Yes) => rest(text, elements, MAX_INPUTS).map(Input::Texts),
            (Some(First::Ids(ids)), Many::Yes) => {
                let lists = rest(TokenIds(ids), elements, MAX_INPUTS)?;
                Ok(Input::TokenIdLists(lists.into_iter().map(|TokenIds(ids)| ids).collect()))
            }
            (Some(First::Text(_) | First::Ids(_)), Many::No) => {
                Err(de::Error::custom("must be one input, not several"))
            }
        }
    }
}

fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
    first: T,
    mut elements: A,
    most: usize,
) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(next) = elements.next_element()? {
        if all.len() == most {
            return Err(de::Error::custom(format!("a request has at most {most} inputs")));
        }
        all.push(next);
    }
    Ok(all)
}

fn only_ids(ids: Vec<TokenId>) -> Vec<u32> {
    ids.into_iter().map(|TokenId(id)| id).collect()
}

/// The id of a token. Larger numbers than a `u32` become [`u32::MAX`], which is outside any vocabulary too.
#[derive(Debug, Clone, Copy)]
struct TokenId(u32);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self::of)
    }
}

impl TokenId {
    fn of(id: u64) -> Self {
        Self(u32::try_from(id).unwrap_or(u32::MAX))
    }
}

/// Token ids of one input.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenIds(pub Vec<u32>);

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|ids| Self(only_ids(ids)))
    }
}

/// The first element of an array.
enum First {
    Text(String),
    Id(TokenId),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or an array of token ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<First, E> {
                Ok(First::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<First, E> {
                Ok(First::Id(TokenId::of(id)))
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<First, E> {
                u64::try_from(id).map(TokenId::of).map(First::Id).map_err(|_| {
                    E::invalid_value(Unexpected::Signed(id), &"a token id, which is a whole number from 0 on")
                })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<First, A::Error> {
                let mut ids = Vec::new();
                while let Some(TokenId(id)) = elements.next_element()? {
                    ids.push(id);
                }
                Ok(First::Ids(ids))
            }
        }

        deserializer.deserialize_any(Read)
    }
}

/// One or several inputs, as texts or token ids.
#[derive(Serialize, ToSchema)]
#[schema(as = Input, example = "The Eiffel Tower is in the city of")]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Input for the specification")]
pub enum InputSchema {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids of one input.
    TokenIds(Vec<u32>),
    /// Token ids of several inputs.
    TokenIdLists(Vec<Vec<u32>>),
}
