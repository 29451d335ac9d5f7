//! Byte-level BPE (`tokenizer.ggml.model` gpt2).
//!
//! `tokenizer.ggml.pre` names the rule that splits text into words before merging. The file does not contain the rule itself, so
//! this file has a table of names. Other names are refused, because a slightly different rule would silently give other tokens.

use tokenizers::{
    SplitDelimiterBehavior, Tokenizer,
    models::bpe::{BPE, Vocab},
    normalizers::NFC,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::{
    super::patterns::{GPT_4O, LLAMA3, QWEN2, TEKKEN},
    merges,
};
use crate::{checkpoint::GgufFile, error::LoadError};

/// The rule that a `tokenizer.ggml.pre` names.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    words: Words,
    /// Whether text is normalised to NFC first.
    composed: bool,
    /// Whether words that are in the vocabulary are taken as they are, without merging.
    whole_words: bool,
    /// Whether BOS is added by default.
    pub adds_bos: bool,
}

/// How text is split into words.
#[derive(Debug, Clone, Copy)]
enum Words {
    /// GPT-2's rule.
    Gpt2,
    /// Every digit on its own, then GPT-2's rule (StarCoder, SmolLM).
    Digits,
    /// The model's own regular expression.
    Pattern(&'static str),
}

impl Rule {
    const fn of(words: Words) -> Self {
        Self { words, composed: false, whole_words: false, adds_bos: false }
    }
}

/// The rule of a `tokenizer.ggml.pre`.
fn rule(pre: &str) -> Option<Rule> {
    let pattern = |pattern| Rule::of(Words::Pattern(pattern));
    Some(match pre {
        "gpt-2" | "gpt2" | "phi-2" | "mpt" => Rule::of(Words::Gpt2),
        // The tokenizer of GPT-NeoX.
        "olmo" => Rule { composed: true, ..Rule::of(Words::Gpt2) },
        "smollm" | "starcoder" | "refact" | "codeshell" => Rule::of(Words::Digits),
        "llama-bpe" | "llama3" | "llama-v3" => Rule { whole_words: true, adds_bos: true, ..pattern(LLAMA3) },
        "falcon3" | "dbrx" | "smaug-bpe" => Rule { whole_words: true, ..pattern(LLAMA3) },
        "qwen2" => Rule { composed: true, ..pattern(QWEN2) },
        "stablelm2" | "deepseek-r1-qwen" => pattern(QWEN2),
        "tekken" => Rule { whole_words: true, adds_bos: true, ..pattern(TEKKEN) },
        "gpt-4o" => pattern(GPT_4O),
        _ => return None,
    })
}

/// Why a `tokenizer.ggml.pre` is refused. Converters wrote "default", or nothing, for tokenizers they did not know, such as
/// Llama 3's; llama.cpp then uses a rule that belongs to no model.
fn unknown(pre: &str) -> String {
    let repair = "gguf-new-metadata (of Python's package gguf) --pre-tokenizer NAME writes a copy of the file with the \
                  name of the model's own rule: llama-bpe, qwen2, gpt-2, tekken, …";
    match pre {
        "" => format!("is missing: nothing says how text is cut into words; {repair}"),
        "default" => format!("is \"default\", which does not say how the model cuts text into words; {repair}"),
        _ => format!("{pre:?} is not a known pre-tokeniser"),
    }
}

/// Builds the tokenizer, without its special tokens.
pub fn tokenizer(file: &GgufFile, tokens: &[&str]) -> Result<(Tokenizer, Rule), LoadError> {
    let pre = file.text("tokenizer.ggml.pre").unwrap_or_default();
    let rule = rule(pre).ok_or_else(|| file.refuse("tokenizer.ggml.pre", unknown(pre)))?;
    let vocab: Vocab = tokens.iter().map(|t| (*t).to_owned()).zip(0u32..).collect();
    let bpe = BPE::builder().vocab_and_merges(vocab, merges(file)?).ignore_merges(rule.whole_words).build();
    let bpe = bpe.map_err(|e| file.refuse("tokenizer.ggml.merges", format!("does not fit the tokens: {e}")))?;
    let mut tokenizer = Tokenizer::new(bpe);
    let cut: PreTokenizerWrapper = match rule.words {
        Words::Gpt2 => ByteLevel::new(false, true, true).into(),
        Words::Digits => sequence(Digits::new(true).into(), ByteLevel::new(false, true, true)),
        Words::Pattern(pattern) => {
            let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false);
            let split = split.map_err(|e| file.refuse("tokenizer.ggml.pre", e))?;
            sequence(split.into(), ByteLevel::new(false, true, false))
        }
    };
    let composed = tokenizer.with_normalizer(rule.composed.then_some(NFC)).map(drop);
    composed.map_err(|e| file.refuse("tokenizer.ggml.pre", e))?;
    tokenizer.with_pre_tokenizer(Some(cut));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    Ok((tokenizer, rule))
}

fn sequence(first: PreTokenizerWrapper, bytes: ByteLevel) -> PreTokenizerWrapper {
    Sequence::new(vec![first, bytes.into()]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_converters_is_no_rule() {
        assert!(rule("gpt-2").is_some());
        assert!(rule("default").is_none());
        let reason = unknown("default");
        assert!(
            reason.contains("does not say how the model cuts text") && reason.contains("gguf-new-metadata"),
            "{reason}"
        );
    }
}
