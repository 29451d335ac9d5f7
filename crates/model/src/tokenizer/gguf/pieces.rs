//! SentencePiece BPE (`tokenizer.ggml.model` llama): pieces with scores. Of all neighbouring pairs that form a piece, the pair with
//! the best score is merged first; characters without a piece fall back to bytes.

use std::cmp::Ordering;

use tokenizers::{
    Tokenizer,
    models::bpe::{BPE, Vocab},
    normalizers::{NormalizerWrapper, Prepend, Replace, utils::Sequence as Normalizers},
};

use super::{
    super::sentencepiece::{MAX_PIECE, SPACE, decoder, merges, pairs},
    merges as listed_merges,
};
use crate::{
    checkpoint::{GgufFile, MetadataValue},
    error::LoadError,
};

/// Builds the tokenizer, without its special tokens. `unknown` is the unknown token.
pub fn tokenizer(file: &GgufFile, tokens: &[&str], unknown: Option<String>) -> Result<Tokenizer, LoadError> {
    for key in ["tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.remove_extra_whitespaces"] {
        if file.metadata().contains_key(key) && file.flag(key) != Some(false) {
            return Err(file.refuse(key, "is not understood for SentencePiece BPE"));
        }
    }
    if let Some(long) = tokens.iter().map(|t| t.len()).find(|n| *n > MAX_PIECE) {
        return Err(file.refuse("tokenizer.ggml.tokens", format!("has one of {long} bytes")));
    }
    let gemma = file.text("general.architecture").is_some_and(|a| a.starts_with("gemma"));
    let pieces: Vec<String> = tokens.iter().map(|t| if gemma { respelled(t) } else { (*t).to_owned() }).collect();
    let vocab: Vocab = pieces.iter().cloned().zip(0u32..).collect();
    let merges = if file.metadata().contains_key("tokenizer.ggml.merges") {
        listed_merges(file)?
    } else {
        // Gemma's scores do not follow the order of its merges; the order of its tokens does.
        let scores = if gemma { falling(pieces.len()) } else { scores(file, pieces.len())? };
        implied_merges(&pieces, &vocab, &scores)
    };
    let mut bpe = BPE::builder().vocab_and_merges(vocab, merges).fuse_unk(true).byte_fallback(true);
    if let Some(unknown) = unknown {
        bpe = bpe.unk_token(unknown);
    }
    let bpe = bpe.build().map_err(|e| file.refuse("tokenizer.ggml.tokens", format!("make no vocabulary: {e}")))?;
    let mut tokenizer = Tokenizer::new(bpe);
    let refuse = |e: tokenizers::Error| file.refuse("tokenizer.ggml.add_space_prefix", e);
    let spaces: NormalizerWrapper = Replace::new(" ", SPACE).map_err(refuse)?.into();
    let prefixed = file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(!gemma);
    if prefixed {
        let prefix = Prepend::new(SPACE.to_owned()).into();
        tokenizer.with_normalizer(Some(Normalizers::new(vec![prefix, spaces]))).map_err(refuse)?;
    } else {
        tokenizer.with_normalizer(Some(spaces)).map_err(refuse)?;
    }
    tokenizer.with_decoder(Some(decoder(true, prefixed).map_err(refuse)?));
    Ok(tokenizer)
}

/// Respells a run of spaces as SentencePiece does: Gemma's files have plain spaces.
fn respelled(token: &str) -> String {
    if token.len() > 1 && token.bytes().all(|b| b == b' ') { SPACE.repeat(token.len()) } else { token.to_owned() }
}

/// Scores by position.
#[expect(clippy::cast_precision_loss, reason = "a vocabulary has far fewer than 2^52 tokens")]
fn falling(n: usize) -> Vec<f64> {
    (0..n).map(|i| -(i as f64)).collect()
}

fn scores(file: &GgufFile, n: usize) -> Result<Vec<f64>, LoadError> {
    let key = "tokenizer.ggml.scores";
    let number = |v: &MetadataValue| match v {
        MetadataValue::Float(v) if !v.is_nan() => Some(*v),
        _ => None,
    };
    let scores: Option<Vec<f64>> = file.list(key).and_then(|list| list.iter().map(number).collect());
    scores.filter(|s| s.len() == n).ok_or_else(|| file.refuse(key, format!("is missing or not {n} numbers")))
}

/// Every merge of two pieces into a third, the best scored first; among equal scores those with longer first halves, as in
/// transformers.
fn implied_merges(pieces: &[String], vocab: &Vocab, scores: &[f64]) -> Vec<(String, String)> {
    let mut found = merges(pieces, vocab);
    let descending = |a: f64, b: f64| b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    let second_chars = |piece: usize, first: usize| pieces[piece].chars().count() - first;
    found.sort_by(|a, b| {
        descending(scores[a.piece], scores[b.piece])
            .then(b.first_chars.cmp(&a.first_chars))
            .then_with(|| second_chars(b.piece, b.first_chars).cmp(&second_chars(a.piece, a.first_chars)))
    });
    pairs(found)
}
