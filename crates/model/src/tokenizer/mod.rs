//! Tokenizers: text to tokens and back, the BOS rule, and chat templates. This module knows text and token ids, not what a model
//! computes.

mod added;
mod chat;
mod class;
mod differences;
mod encoded;
mod folder;
mod gguf;
mod growth;
mod longest;
mod mistral_regex;
mod patterns;
mod rebuild;
mod room;
mod sentencepiece;
mod sentencepiece_model;
mod side_files;
mod spelling;
mod vocabulary;

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use serde_json::{Map, Value};
use tokenizers::{Encoding, Tokenizer};

use crate::error::LoadError;
pub use chat::{ChatEnd, GivenTemplate};
use chat::{Sources, Templates};
pub use encoded::Encoded;
pub(super) use folder::files as folder_files;
use residuum_domain::{BosDecision, Code, Problem, Warning, positions::Spelled};
use spelling::Spelling;

/// Longest text that is encoded, in bytes, unless the model's context is unusually long. The regular expressions of pre-tokenisers
/// stop silently on huge inputs.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// Bytes of text per token of the context, for contexts so long that this exceeds [`MAX_TEXT_BYTES`].
const BYTES_PER_TOKEN: usize = 8;

/// Calls the tokenizers library and turns a panic into an error: it panics on some files that contradict themselves.
///
/// # Errors
/// The library's, or that it panicked.
fn unwound<T>(ask: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // whatever the library had begun is dropped
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| Err("the tokenizers library cannot work with it".into()))
}

/// A checkpoint's tokenizer and chat template. Shared between threads.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    spelling: Spelling,
    bos: Option<(u32, String)>,
    adds_bos: bool,
    special: HashSet<u32>,
    d_vocab: usize,
    /// Length of the longest text that is encoded, in bytes.
    longest_text: usize,
    /// Largest number of token ids that are accepted.
    max_ids: usize,
    /// Largest number of bytes of text that a token covers, if there is a bound.
    bytes_per_token: Option<usize>,
    templates: Templates,
    warnings: Vec<Warning>,
}

/// Settings of a checkpoint's tokenizer, besides the vocabulary.
#[derive(Debug, Default)]
struct Settings {
    /// Special tokens by their role (`bos_token`, `eos_token`, …).
    roles: BTreeMap<String, String>,
    /// Sources of the chat templates.
    templates: Sources,
    /// Warnings about it.
    warnings: Vec<Warning>,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("bos", &self.bos)
            .field("adds_bos", &self.adds_bos)
            .field("d_vocab", &self.d_vocab)
            .field("has_chat_template", &!self.templates.is_empty())
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// `d_vocab` is the number of rows of the model's embedding; errors name `path`.
    ///
    /// # Errors
    /// When the tokenizer can expand a short text far too much, see [`growth`].
    fn new(tokenizer: Tokenizer, settings: Settings, d_vocab: usize, path: &Path) -> Result<Self, LoadError> {
        let longest_text = growth::Growth::check(&tokenizer, path)?.longest_text();
        let added = tokenizer.get_added_tokens_decoder();
        let with_a_role = settings.roles.values().filter_map(|token| tokenizer.token_to_id(token));
        let marked = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id);
        let special: HashSet<u32> = marked.chain(with_a_role).collect();
        let first =
            |special| unwound(|| tokenizer.encode_fast("a", special)).ok().and_then(|e| e.get_ids().first().copied());
        let put_first = first(true).filter(|id| special.contains(id) && first(false) != Some(*id));
        let role = |name: &str| {
            let token = settings.roles.get(name)?;
            Some((tokenizer.token_to_id(token)?, token.clone()))
        };
        let text = |id| added.get(&id).map(|token| token.content.clone()).or_else(|| tokenizer.id_to_token(id));
        let unnamed = || put_first.and_then(|id| Some((id, text(id)?)));
        let bos = role("bos_token").or_else(|| role("cls_token")).or_else(unnamed);
        let adds_bos = bos.as_ref().is_some_and(|(id, _)| first(true) == Some(*id) && first(false) != Some(*id));
        let spelling = Spelling::of(&tokenizer);
        let templates = Templates::new(settings.templates, settings.roles);
        let bytes_per_token = longest::bytes_per_token(&tokenizer);
        let warnings = settings.warnings;
        Ok(Self {
            tokenizer,
            spelling,
            bos,
            adds_bos,
            special,
            d_vocab,
            longest_text,
            max_ids: MAX_TEXT_BYTES,
            bytes_per_token,
            templates,
            warnings,
        })
    }

    /// The same, for a model with this context length: texts of up to eight bytes per token are encoded, if that is more than
    /// [`MAX_TEXT_BYTES`].
    #[must_use]
    pub fn for_context(mut self, n_ctx: usize) -> Self {
        let times = n_ctx.saturating_mul(BYTES_PER_TOKEN).div_ceil(MAX_TEXT_BYTES).max(1);
        self.longest_text = self.longest_text.saturating_mul(times);
        self.max_ids = self.max_ids.saturating_mul(times);
        self
    }

    /// Encodes text. `prepend_bos`: `None` follows the tokenizer's own rule; true makes sure that there is exactly one BOS;
    /// false leaves out everything the tokenizer would add (transformers' `add_special_tokens=False`; for BERT, both `[CLS]`
    /// and `[SEP]`). Pointers are relative to the text.
    ///
    /// # Errors
    /// [`Code::NoBosToken`], [`Code::EmptyInput`]; [`Code::TooManyTokens`] for a text with more bytes than
    /// [`Self::for_context`] allows, or one that the tokenizer may expand to more than eight times that.
    pub fn encode(&self, text: &str, prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        self.encode_text(text, prepend_bos, true)
    }

    /// Encodes a rendered chat: special tokens in the text are recognised, none are added unless asked for.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_chat(&self, rendered: &str, prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        self.encode_text(rendered, prepend_bos, false)
    }

    fn encode_text(&self, text: &str, prepend_bos: Option<bool>, own_rule: bool) -> Result<Encoded, Problem> {
        if text.len() > self.longest_text {
            let detail = format!("the text has {} bytes; at most {} are encoded", text.len(), self.longest_text);
            return Err(Problem::at(Code::TooManyTokens, "", detail));
        }
        let _room = room::for_encoding(text.len());
        let own_rule = own_rule && prepend_bos != Some(false);
        let encoding: Encoding = unwound(|| self.tokenizer.encode_char_offsets(text, own_rule))
            .map_err(|e| Problem::at(Code::InvalidValue, "", format!("the text cannot be encoded: {e}")))?;
        let mut ids = encoding.get_ids().to_vec();
        let in_text = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
        let mut offsets: Vec<_> = in_text.map(|(offset, added)| (*added == 0).then_some(*offset)).collect();
        let bos = self.bos.as_ref().map(|(id, _)| *id);
        let n_suffix = encoding.get_special_tokens_mask().iter().rev().take_while(|own| **own == 1).count();
        // A BOS that the tokenizer added is removed first and counts as absent: what remains is what was posted.
        if own_rule && self.adds_bos {
            ids.remove(0);
            offsets.remove(0);
        }
        let wanted = prepend_bos.unwrap_or(own_rule && self.adds_bos);
        let added = self.add_bos(&mut ids, wanted)?;
        if added {
            offsets.insert(0, None);
        }
        let decision = BosDecision {
            requested: prepend_bos,
            present: ids.first() == bos.as_ref() && bos.is_some(),
            added,
            token_id: bos,
        };
        Ok(Encoded { n_suffix: n_suffix.min(ids.len()), ..self.finish(ids, Some(offsets), decision)? })
    }

    /// Accepts token ids; with `prepend_bos` `None`, nothing is added.
    ///
    /// # Errors
    /// [`Code::TokenOutOfVocabulary`] with pointer `/{index}`, [`Code::NoBosToken`], [`Code::EmptyInput`];
    /// [`Code::TooManyTokens`] for more ids than a text may have bytes.
    pub fn from_ids(&self, ids: &[u32], prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        if ids.len() > self.max_ids {
            let detail = format!("the input has {} token ids; at most {} are taken", ids.len(), self.max_ids);
            return Err(Problem::at(Code::TooManyTokens, "", detail));
        }
        let mut ids = ids.to_vec();
        self.check_ids(&ids)?;
        let bos = self.bos.as_ref().map(|(id, _)| *id);
        let added = self.add_bos(&mut ids, prepend_bos == Some(true))?;
        let present = bos.is_some() && ids.first() == bos.as_ref();
        let decision = BosDecision { requested: prepend_bos, present, added, token_id: bos };
        self.finish(ids, None, decision)
    }

    /// Prepends BOS if it is wanted and not there yet; returns whether it did.
    fn add_bos(&self, ids: &mut Vec<u32>, wanted: bool) -> Result<bool, Problem> {
        if !wanted {
            return Ok(false);
        }
        let Some((bos, _)) = &self.bos else {
            let detail = "prepend_bos is true, but the tokenizer has no beginning-of-sequence token";
            return Err(Problem::at(Code::NoBosToken, "", detail));
        };
        let missing = ids.first() != Some(bos);
        if missing {
            ids.insert(0, *bos);
        }
        Ok(missing)
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), Problem> {
        match ids.iter().position(|id| *id as usize >= self.d_vocab) {
            None => Ok(()),
            Some(i) => {
                let detail = format!("token {} does not exist: the vocabulary has {} ids", ids[i], self.d_vocab);
                Err(Problem::at(Code::TokenOutOfVocabulary, format!("/{i}"), detail))
            }
        }
    }

    fn finish(
        &self,
        ids: Vec<u32>,
        offsets: Option<Vec<Option<(usize, usize)>>>,
        bos: BosDecision,
    ) -> Result<Encoded, Problem> {
        if ids.is_empty() {
            return Err(Problem::at(Code::EmptyInput, "", "the input has no tokens"));
        }
        // A tokenizer may have more tokens than the model has embeddings. For a text, the pointer is the text itself.
        self.check_ids(&ids).map_err(|p| if offsets.is_some() { Problem::at(p.code, "", p.detail) } else { p })?;
        let special = self.special_mask(&ids);
        Ok(Encoded { tokens: self.token_strings(&ids), special, offsets, bos, n_suffix: 0, ids, cut: 0..0 })
    }

    /// Renders a chat with the template that the request contains or names, or with the model's own. Pointers are relative to
    /// the request's item.
    ///
    /// # Errors
    /// [`Code::NoChatTemplate`], or [`Code::ChatTemplateFailed`] with the template's own message;
    /// [`Code::InvalidValue`] when the last message has no text to continue.
    pub fn render_chat(
        &self,
        messages: &[Value],
        end: ChatEnd,
        kwargs: &Map<String, Value>,
        given: Option<&GivenTemplate>,
    ) -> Result<String, Problem> {
        let template = self.templates.choose(given, kwargs)?;
        let _room = needs_room(messages, given).then(room::for_rendering);
        template.render(messages, end, kwargs)
    }

    /// The range of characters of each message's text in `rendered`, which [`Self::render_chat`] made from the same chat,
    /// without white space at the ends; `None` if the rendering does not show it.
    #[must_use]
    pub fn message_spans(
        &self,
        messages: &[Value],
        end: ChatEnd,
        kwargs: &Map<String, Value>,
        given: Option<&GivenTemplate>,
        rendered: &str,
    ) -> Vec<Option<Range<usize>>> {
        match self.templates.choose(given, kwargs) {
            Ok(template) => {
                let _room = needs_room(messages, given).then(room::for_rendering);
                template.spans(messages, end, kwargs, rendered)
            }
            Err(_) => vec![None; messages.len()],
        }
    }

    /// The text that tokens spell, and the characters of it that each token covers; `None` for a vocabulary whose tokens do
    /// not include the spaces between words (WordPiece).
    #[must_use]
    pub fn spell(&self, ids: &[u32]) -> Option<Spelled<'static>> {
        if !self.spelling.joins() {
            return None;
        }
        let pieces: Vec<_> = ids.iter().map(|id| self.spelling.bytes(&self.tokenizer, *id)).collect();
        let (text, offsets) = spelling::join(&pieces);
        Some(Spelled { text: text.into(), offsets: offsets.into(), cut: 0..0 })
    }

    /// Whether the checkpoint has a chat template.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        !self.templates.is_empty()
    }

    /// The BOS token, id and text: the one that the checkpoint names, else its CLS token, else the special token that its
    /// tokenizer prepends to texts.
    #[must_use]
    pub fn bos_token(&self) -> Option<(u32, &str)> {
        self.bos.as_ref().map(|(id, s)| (*id, s.as_str()))
    }

    /// Whether the tokenizer adds BOS to text by its own rule.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Warnings about the tokenizer, found while it was read.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Number of token ids: the rows of the model's embedding.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.d_vocab
    }

    /// An upper bound on the bytes of a text with `tokens` tokens: every longer text has more tokens. `None` if there is no
    /// bound, as for tokenizers that drop white space or encode any word as one unknown token. It does not apply to texts that are
    /// truncated.
    #[must_use]
    pub fn longest_text_that_fits(&self, tokens: usize) -> Option<usize> {
        self.bytes_per_token?.checked_mul(tokens)
    }

    /// Which of these tokens are special tokens.
    #[must_use]
    pub fn special_mask(&self, ids: &[u32]) -> Vec<bool> {
        ids.iter().map(|id| self.is_special(*id)).collect()
    }

    /// Whether this is a special token: the tokenizer marks it as one, or it has a role such as BOS.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The text of the tokens from `first` on, without special tokens, as a continuation of the text before them.
    #[must_use]
    pub fn continuation(&self, ids: &[u32], first: usize) -> String {
        // A decoder may treat the start of a text differently, so decode from the start with and without these tokens.
        let (before, whole) = (self.decode(&ids[..first]), self.decode(ids));
        match whole.strip_prefix(before.as_str()) {
            Some(rest) => rest.to_owned(),
            None => self.decode(&ids[first..]),
        }
    }

    /// The text of tokens, without special tokens.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        self.tokenizer.decode(ids, true).unwrap_or_default()
    }

    /// As [`Self::decode`], with the number of bytes at the start of the text that further tokens cannot change: the last
    /// character may be incomplete.
    #[must_use]
    pub fn decode_certain(&self, ids: &[u32]) -> (String, usize) {
        let text = self.decode(ids);
        let certain = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
        if certain == text.len() || self.spelling != Spelling::ByteLevel {
            return (text, certain);
        }
        // An incomplete character is one U+FFFD at the end; all others stand for bytes that are no character.
        let ordinary = ids.iter().filter(|id| !self.is_special(**id));
        let bytes: Vec<u8> = ordinary.flat_map(|id| self.token_bytes(*id)).collect();
        let tail = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        let is_incomplete = std::str::from_utf8(tail).is_err_and(|e| e.error_len().is_none());
        let held = if is_incomplete { char::REPLACEMENT_CHARACTER.len_utf8() } else { 0 };
        let certain = text.len() - held;
        (text, certain)
    }

    /// The bytes of a token; those of U+FFFD for an id without a token.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.spelling.bytes(&self.tokenizer, id)
    }

    /// The text of each token. Bytes that are not UTF-8 by themselves, and ids without a token, become U+FFFD.
    #[must_use]
    pub fn token_strings(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|id| self.spelling.decode(&self.tokenizer, *id)).collect()
    }
}

/// Whether rendering a chat may take much memory. A template from a request may do anything; a model's own template is trusted if
/// the messages are short.
fn needs_room(messages: &[Value], given: Option<&GivenTemplate>) -> bool {
    fn weight(value: &Value) -> usize {
        size_of::<Value>()
            + match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(weight).sum(),
                Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + weight(value)).sum(),
                _ => 0,
            }
    }
    given.is_some() || messages.iter().map(weight).sum::<usize>() > room::SHORT
}
