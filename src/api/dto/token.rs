//! Tokens of the vocabulary in request and response bodies.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};
use utoipa::ToSchema;

use residuum_engine::questions;

/// A token of the vocabulary: its id, or a text that is exactly one token.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = " Paris")]
pub enum TokenRef {
    /// Its id.
    Id(u32),
    /// Its text. In most vocabularies the space before a word is part of its token.
    Text(String),
}

impl<'de> Deserialize<'de> for TokenRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = TokenRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the id of a token, which is a whole number from 0 on, or its text")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<TokenRef, E> {
                // an id beyond u32 is outside any vocabulary
                Ok(TokenRef::Id(u32::try_from(id).unwrap_or(u32::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenRef, E> {
                Ok(TokenRef::Text(text.to_owned()))
            }
        }

        d.deserialize_any(Read)
    }
}

impl From<TokenRef> for questions::TokenRef {
    fn from(token: TokenRef) -> Self {
        match token {
            TokenRef::Id(id) => Self::Id(id),
            TokenRef::Text(text) => Self::Text(text),
        }
    }
}

/// A token of the vocabulary.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = TokenWithId)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub token: String,
}

impl From<questions::Token> for Token {
    fn from(questions::Token { id, token }: questions::Token) -> Self {
        Self { id, token }
    }
}
