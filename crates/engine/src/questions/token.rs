//! Tokens of a vocabulary, as questions name them.

use residuum_domain::{Code, Problem};
use residuum_model::TextTokenizer;

/// Most bytes of a text that may be a token: no vocabulary has longer ones.
const MAX_TOKEN_BYTES: usize = 1024;

/// A token of the vocabulary: its id, or a text that is exactly one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRef {
    /// Its id.
    Id(u32),
    /// Its text. A space in front belongs to the token in most vocabularies.
    Text(String),
}

/// A token with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub token: String,
}

impl Token {
    /// The token with this id.
    pub fn of(tokenizer: &TextTokenizer, id: u32) -> Self {
        Self { id, token: tokenizer.token_strings(&[id]).concat() }
    }
}

impl TokenRef {
    /// The token that is meant. Problems point at `pointer`.
    ///
    /// # Errors
    /// [`Code::TokenOutOfVocabulary`]; [`Code::InvalidValue`] for a text of several tokens, naming them, or of none.
    pub fn resolve(&self, tokenizer: &TextTokenizer, pointer: &str) -> Result<Token, Problem> {
        let at = |p: Problem| Problem::at(p.code, pointer, p.detail);
        let id = match self {
            Self::Id(id) => tokenizer.from_ids(&[*id], None).map(|_| *id).map_err(at)?,
            Self::Text(text) if text.len() > MAX_TOKEN_BYTES => {
                let detail = format!("this must be one token, and the text has {} bytes", text.len());
                return Err(Problem::at(Code::InvalidValue, pointer, detail));
            }
            Self::Text(text) => {
                let encoded = tokenizer.encode(text, Some(false)).map_err(at)?;
                match encoded.ids.as_slice() {
                    [id] => *id,
                    ids => {
                        let shown: Vec<String> =
                            ids.iter().zip(&encoded.tokens).take(8).map(|(id, t)| format!("{id} {t:?}")).collect();
                        let detail = format!(
                            "this must be one token, but it is {} tokens ({}{}); give an id, or a text that is one token",
                            ids.len(),
                            shown.join(", "),
                            if ids.len() > shown.len() { ", …" } else { "" }
                        );
                        return Err(Problem::at(Code::InvalidValue, pointer, detail));
                    }
                }
            }
        };
        Ok(Token::of(tokenizer, id))
    }
}
