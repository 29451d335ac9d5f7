//! The tokenizer inside a GGUF file: a byte-level BPE from its vocabulary and merges.
//!
//! `tokenizer.ggml.pre` names the rule that cuts text into words before merging. The file does not hold the rule
//! itself, so the names are a table here; a name that is not in it is refused, because a near miss gives other
//! tokens without anyone noticing.

use std::collections::BTreeMap;

use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::TemplateProcessing,
};

use super::{Settings, TextTokenizer};
use crate::model::{
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

/// How text is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// GPT-2's rule.
    Gpt2,
    /// Every digit on its own, then GPT-2's rule (StarCoder, SmolLM).
    Digits,
    /// A regular expression of the model's own. Tokens that are in the vocabulary are not merged from parts where
    /// `whole_words`.
    Pattern { pattern: &'static str, whole_words: bool },
}

/// Digits in groups of up to three.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Digits one by one.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The rule of a `tokenizer.ggml.pre`.
fn words(pre: &str) -> Option<Words> {
    Some(match pre {
        "default" | "gpt-2" | "gpt2" | "phi-2" | "olmo" | "mpt" => Words::Gpt2,
        "smollm" | "starcoder" | "refact" | "codeshell" => Words::Digits,
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "dbrx" | "smaug-bpe" => {
            Words::Pattern { pattern: LLAMA3, whole_words: true }
        }
        "qwen2" | "stablelm2" | "deepseek-r1-qwen" => Words::Pattern { pattern: QWEN2, whole_words: false },
        _ => return None,
    })
}

impl TextTokenizer {
    /// Builds the tokenizer of a GGUF file.
    ///
    /// # Errors
    /// When the file holds another kind of tokenizer, or none, or one that contradicts itself.
    pub fn from_gguf(file: &GgufFile, d_vocab: usize) -> Result<Self, LoadError> {
        match file.text("tokenizer.ggml.model") {
            Some("gpt2") => {}
            Some(other) => {
                let reason = format!("{other:?} is not supported, only gpt2 (byte-level BPE)");
                return Err(file.refuse("tokenizer.ggml.model", reason));
            }
            None => return Err(file.refuse("tokenizer.ggml.model", "is missing: the file has no tokenizer")),
        }
        let pre = file.text("tokenizer.ggml.pre").unwrap_or_default();
        let words = words(pre)
            .ok_or_else(|| file.refuse("tokenizer.ggml.pre", format!("{pre:?} is no pre-tokeniser known here")))?;
        let tokens = strings(file, "tokenizer.ggml.tokens")?;
        let mut tokenizer = byte_level_bpe(file, &tokens, words)?;
        add_marked_tokens(file, &mut tokenizer, &tokens)?;
        let roles = roles(file, &tokens)?;
        if let Some(processor) = processor(file, &roles)? {
            tokenizer.with_post_processor(Some(processor));
        }
        let template = file.text("tokenizer.chat_template").map(str::to_owned);
        Ok(Self::new(tokenizer, Settings { roles, template }, d_vocab))
    }
}

fn strings<'f>(file: &'f GgufFile, key: &str) -> Result<Vec<&'f str>, LoadError> {
    let text = |v: &'f MetadataValue| match v {
        MetadataValue::String(s) => Some(s.as_str()),
        _ => None,
    };
    let list = file.list(key).and_then(|list| list.iter().map(text).collect::<Option<Vec<_>>>());
    list.ok_or_else(|| file.refuse(key, "is missing or not a list of strings"))
}

fn byte_level_bpe(file: &GgufFile, tokens: &[&str], words: Words) -> Result<Tokenizer, LoadError> {
    let vocab: Vocab = tokens.iter().map(|t| (*t).to_owned()).zip(0u32..).collect();
    let pair = |merge: &str| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let merges = strings(file, "tokenizer.ggml.merges")?.into_iter().map(pair).collect::<Option<Vec<_>>>();
    let merges = merges.ok_or_else(|| file.refuse("tokenizer.ggml.merges", "has an entry that is no pair"))?;
    let whole_words = matches!(words, Words::Pattern { whole_words: true, .. });
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(whole_words).build();
    let bpe = bpe.map_err(|e| file.refuse("tokenizer.ggml.merges", format!("does not fit the tokens: {e}")))?;
    let mut tokenizer = Tokenizer::new(bpe);
    let cut: PreTokenizerWrapper = match words {
        Words::Gpt2 => ByteLevel::new(false, true, true).into(),
        Words::Digits => sequence(Digits::new(true).into(), ByteLevel::new(false, true, true)),
        Words::Pattern { pattern, .. } => {
            let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false);
            let split = split.map_err(|e| file.refuse("tokenizer.ggml.pre", e))?;
            sequence(split.into(), ByteLevel::new(false, true, false))
        }
    };
    tokenizer.with_pre_tokenizer(Some(cut));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok(tokenizer)
}

fn sequence(first: PreTokenizerWrapper, bytes: ByteLevel) -> PreTokenizerWrapper {
    Sequence::new(vec![first, bytes.into()]).into()
}

/// Tokens marked control (3) are special tokens, those marked user-defined (4) are matched whole but are not special.
fn add_marked_tokens(file: &GgufFile, tokenizer: &mut Tokenizer, tokens: &[&str]) -> Result<(), LoadError> {
    let types = file.list("tokenizer.ggml.token_type").unwrap_or_default();
    let marked = |kind: i32, special: bool| -> Vec<AddedToken> {
        let of_kind = |t: &&MetadataValue| matches!(t, MetadataValue::I32(k) if *k == kind);
        let named = types.iter().zip(tokens).filter(|(t, _)| of_kind(t));
        named.map(|(_, token)| AddedToken::from(*token, special).normalized(false)).collect()
    };
    let refuse = |e: tokenizers::Error| file.refuse("tokenizer.ggml.token_type", e);
    tokenizer.add_special_tokens(marked(3, true)).map_err(refuse)?;
    tokenizer.add_tokens(marked(4, false)).map_err(refuse)?;
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

/// Adds BOS and EOS where the file says so.
fn processor(file: &GgufFile, roles: &BTreeMap<String, String>) -> Result<Option<TemplateProcessing>, LoadError> {
    let mut template = vec!["$A".to_owned()];
    let mut special = Vec::new();
    for (role, key, at_end) in
        [("bos_token", "tokenizer.ggml.add_bos_token", false), ("eos_token", "tokenizer.ggml.add_eos_token", true)]
    {
        if file.flag(key) != Some(true) {
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
