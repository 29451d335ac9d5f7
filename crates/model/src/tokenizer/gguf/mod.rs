//! Builds the tokenizer of a GGUF file, from its vocabulary and its merges or scores.

mod byte_level;
mod pieces;

use std::collections::BTreeMap;

use tokenizers::{AddedToken, Tokenizer, processors::template::TemplateProcessing};

use super::{Settings, TextTokenizer, chat::Sources};
use crate::{
    checkpoint::{GgufFile, MetadataValue},
    error::LoadError,
};

/// Roles of special tokens and the keys that hold their ids.
const ROLES: &[(&str, &str)] = &[
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
];

/// Types of tokens (`tokenizer.ggml.token_type`): the unknown token, special tokens, and user-defined tokens, which are matched as a
/// whole but are not special.
const UNKNOWN: i128 = 2;
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

impl TextTokenizer {
    /// Builds the tokenizer of a GGUF file.
    ///
    /// # Errors
    /// When the file has no tokenizer, one of another kind, or one that contradicts itself.
    pub fn from_gguf(file: &GgufFile, d_vocab: usize) -> Result<Self, LoadError> {
        let tokens = strings(file, "tokenizer.ggml.tokens")?;
        let roles = roles(file, &tokens)?;
        let (mut tokenizer, special, adds_bos) = match file.text("tokenizer.ggml.model") {
            Some("gpt2") => {
                let (tokenizer, rule) = byte_level::tokenizer(file, &tokens)?;
                (tokenizer, &[CONTROL][..], rule.adds_bos)
            }
            Some("llama") => {
                let unknown = roles.get("unk_token").cloned().or_else(|| marked(file, &tokens, &[UNKNOWN]).pop());
                (pieces::tokenizer(file, &tokens, unknown)?, &[UNKNOWN, CONTROL][..], true)
            }
            Some(other) => {
                let reason =
                    format!("{other:?} is not supported, only gpt2 (byte-level BPE) and llama (SentencePiece BPE)");
                return Err(file.refuse("tokenizer.ggml.model", reason));
            }
            None => return Err(file.refuse("tokenizer.ggml.model", "is missing: the file has no tokenizer")),
        };
        add_marked_tokens(file, &mut tokenizer, &tokens, special)?;
        if let Some(processor) = processor(file, &roles, adds_bos)? {
            tokenizer.with_post_processor(Some(processor));
        }
        let templates = templates(file);
        Self::new(tokenizer, Settings { roles, templates, ..Settings::default() }, d_vocab, file.path())
    }
}

/// The chat templates: the default one, and those that `tokenizer.chat_templates` names.
fn templates(file: &GgufFile) -> Sources {
    let names = strings(file, "tokenizer.chat_templates").unwrap_or_default().into_iter();
    let named = names.filter_map(|name| Some((name, file.text(&format!("tokenizer.chat_template.{name}"))?)));
    let default = file.text("tokenizer.chat_template").map(|source| ("default", source));
    Sources::of_names(named.chain(default).map(|(n, source)| (n.to_owned(), source.to_owned())).collect(), true)
}

fn strings<'f>(file: &'f GgufFile, key: &str) -> Result<Vec<&'f str>, LoadError> {
    let text = |v: &'f MetadataValue| match v {
        MetadataValue::Text(s) => Some(s.as_str()),
        _ => None,
    };
    let list = file.list(key).and_then(|list| list.iter().map(text).collect::<Option<Vec<_>>>());
    list.ok_or_else(|| file.refuse(key, "is missing or not a list of strings"))
}

/// The merges of `tokenizer.ggml.merges`.
fn merges(file: &GgufFile) -> Result<Vec<(String, String)>, LoadError> {
    let pair = |merge: &str| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let merges: Option<Vec<_>> = strings(file, "tokenizer.ggml.merges")?.into_iter().map(pair).collect();
    merges.ok_or_else(|| file.refuse("tokenizer.ggml.merges", "has an entry that is not a pair"))
}

/// The tokens of some types.
fn marked(file: &GgufFile, tokens: &[&str], wanted: &[i128]) -> Vec<String> {
    let kinds = file.list("tokenizer.ggml.token_type").unwrap_or_default();
    let of_kind = |t: &MetadataValue| matches!(t, MetadataValue::Integer(k) if wanted.contains(k));
    kinds.iter().zip(tokens).filter(|(t, _)| of_kind(t)).map(|(_, token)| (*token).to_owned()).collect()
}

/// Adds the tokens of the types `special` as special tokens, and the user-defined ones.
fn add_marked_tokens(
    file: &GgufFile,
    tokenizer: &mut Tokenizer,
    tokens: &[&str],
    special: &[i128],
) -> Result<(), LoadError> {
    let refuse = |e: tokenizers::Error| file.refuse("tokenizer.ggml.token_type", e);
    let special = marked(file, tokens, special).into_iter().map(|t| AddedToken::from(t, true));
    tokenizer.add_special_tokens(special.collect::<Vec<_>>()).map_err(refuse)?;
    // Skip a token that the vocabulary spells differently (Gemma's runs of spaces): merges produce it.
    let whole = marked(file, tokens, &[USER_DEFINED]).into_iter().filter(|t| tokenizer.token_to_id(t).is_some());
    let whole: Vec<AddedToken> = whole.map(|t| AddedToken::from(t, false).normalized(false)).collect();
    tokenizer.add_tokens(whole).map_err(refuse)?;
    Ok(())
}

fn roles(file: &GgufFile, tokens: &[&str]) -> Result<BTreeMap<String, String>, LoadError> {
    let mut roles = BTreeMap::new();
    for (role, key) in ROLES {
        let Some(id) = file.integer(key) else { continue };
        let token = usize::try_from(id).ok().and_then(|id| tokens.get(id));
        let token = token.ok_or_else(|| file.refuse(key, format!("is {id}; there are {} tokens", tokens.len())))?;
        roles.insert((*role).to_owned(), (*token).to_owned());
    }
    Ok(roles)
}

/// Adds BOS and EOS if the file says so; `adds_bos` is the default for BOS.
fn processor(
    file: &GgufFile,
    roles: &BTreeMap<String, String>,
    adds_bos: bool,
) -> Result<Option<TemplateProcessing>, LoadError> {
    let mut template = vec!["$A".to_owned()];
    let mut special = Vec::new();
    for (role, key, at_end) in
        [("bos_token", "tokenizer.ggml.add_bos_token", false), ("eos_token", "tokenizer.ggml.add_eos_token", true)]
    {
        let default = adds_bos && role == "bos_token" && roles.contains_key(role);
        if !file.flag(key).unwrap_or(default) {
            continue;
        }
        let token = roles.get(role).ok_or_else(|| file.refuse(key, format!("is true, but there is no {role}")))?;
        let id = file.integer(ROLES.iter().find(|(r, _)| *r == role).map_or("", |(_, key)| key)).unwrap_or_default();
        let id = u32::try_from(id).map_err(|e| file.refuse(key, e))?;
        template.insert(if at_end { template.len() } else { 0 }, token.clone());
        special.push((token.clone(), id));
    }
    if special.is_empty() {
        return Ok(None);
    }
    let built = TemplateProcessing::builder()
        .try_single(template)
        .map_err(|e| file.refuse("tokenizer.ggml.add_bos_token", e))?
        .special_tokens(special)
        .build();
    built.map(Some).map_err(|e| file.refuse("tokenizer.ggml.add_bos_token", e))
}
