//! The served model that made a cache, and tokens of its vocabulary as requests name them.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};
use utoipa::ToSchema;

use residuum_domain::{Cache, Code, ModelInfo, Problem};
use residuum_engine::{ModelState, Registry};
use residuum_model::{Model, TextTokenizer};

/// Bytes of a text that may be a token: no vocabulary has longer ones.
const MAX_TOKEN_BYTES: usize = 1024;

/// The model whose weights made this cache, under whatever name it is served now.
///
/// # Errors
/// [`Code::Conflict`] when these weights are not served, saying what is; [`Code::Unavailable`] while they may be loading.
pub fn model_of(models: &Registry, cache: &Cache) -> Result<Arc<Model>, Problem> {
    let wanted = &cache.provenance.model_fingerprint;
    let all = models.all();
    let ready = |(_, state): &(String, ModelState)| match state {
        ModelState::Ready(model) => Some(Arc::clone(model)),
        ModelState::Loading => None,
    };
    if let Some(model) = all.iter().filter_map(ready).find(|m| m.info().fingerprint == *wanted) {
        check_shapes(model.info(), cache)?;
        return Ok(model);
    }
    if all.iter().any(|m| ready(m).is_none()) {
        return Err(Problem::new(Code::Unavailable, "a model is still being loaded").retry_after(2));
    }
    let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
    let same_name = all.iter().filter_map(ready).find(|m| m.info().id == cache.model);
    let reason = match same_name {
        Some(other) => format!("`{}` is now {}…", cache.model, short(&other.info().fingerprint)),
        None => format!("`{}` is not served", cache.model),
    };
    if wanted.is_empty() {
        let detail = format!(
            "this needs the weights that made the cache; it was imported without `model_fingerprint`, and {reason}"
        );
        return Err(Problem::new(Code::Conflict, detail));
    }
    let detail = format!(
        "this needs the weights that made the cache, fingerprint {}…, and no model served here has them: {reason}",
        short(wanted)
    );
    Err(Problem::new(Code::Conflict, detail))
}

/// Which tokens of caches are special, as far as the models that made them are served.
pub struct SpecialTokens(Vec<Arc<Model>>);

impl SpecialTokens {
    /// Of the models that are loaded now.
    pub fn of(models: &Registry) -> Self {
        let ready = |(_, state)| match state {
            ModelState::Ready(model) => Some(model),
            ModelState::Loading => None,
        };
        Self(models.all().into_iter().filter_map(ready).collect())
    }

    /// Whether the token at a position of the cache is special; `None` where its id is not known, or the model is not served.
    pub fn at(&self, cache: &Cache, position: usize) -> Option<bool> {
        let id = cache.token_ids.get(position).filter(|_| cache.knows_token_ids())?;
        let made_by = &cache.provenance.model_fingerprint;
        let model = self.0.iter().find(|model| model.info().fingerprint == *made_by)?;
        Some(model.tokenizer().is_special(*id))
    }
}

/// An import may name weights that cannot have made its tensors.
///
/// # Errors
/// [`Code::Conflict`] at the first hook that the model lacks or has in another shape.
fn check_shapes(model: &ModelInfo, cache: &Cache) -> Result<(), Problem> {
    if cache.origin.is_none() {
        return Ok(());
    }
    for (hook, shape) in cache.capture.hooks.iter().zip(&cache.row_shapes) {
        if !model.has(*hook) || model.row_shape(hook.site()) != *shape {
            let detail = format!(
                "the cache was imported with the fingerprint of `{}`, which has no {hook} with rows of shape {shape:?}",
                model.id
            );
            return Err(Problem::new(Code::Conflict, detail));
        }
    }
    Ok(())
}

/// A token of the vocabulary: its id, or a text that is exactly one token.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = " Paris")]
pub enum TokenRef {
    /// Its id.
    Id(u32),
    /// Its text. A space in front belongs to the token in most vocabularies.
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
                // past u32 it is outside any vocabulary
                Ok(TokenRef::Id(u32::try_from(id).unwrap_or(u32::MAX)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenRef, E> {
                Ok(TokenRef::Text(text.to_owned()))
            }
        }

        d.deserialize_any(Read)
    }
}

/// A token with what it stands for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// What it stands for.
    pub token: String,
}

impl Token {
    /// The token with this id.
    pub fn of(tokenizer: &TextTokenizer, id: u32) -> Self {
        Self { id, token: tokenizer.token_strings(&[id]).concat() }
    }
}

impl TokenRef {
    /// The token meant. Problems point at `pointer`.
    ///
    /// # Errors
    /// [`Code::TokenOutOfVocabulary`]; [`Code::InvalidValue`] for a text of several tokens, naming them, or of none.
    pub fn resolve(&self, tokenizer: &TextTokenizer, pointer: &str) -> Result<Token, Problem> {
        let at = |p: Problem| Problem::at(p.code, pointer, p.detail);
        let id = match self {
            Self::Id(id) => tokenizer.from_ids(&[*id], None).map(|_| *id).map_err(at)?,
            Self::Text(text) if text.len() > MAX_TOKEN_BYTES => {
                let detail = format!("a token is wanted, and this text has {} bytes", text.len());
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
                            "a token is wanted, and this text is {} of them ({}{}); name one by its id, or a text that is one",
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
