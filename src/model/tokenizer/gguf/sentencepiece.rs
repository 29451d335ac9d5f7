//! SentencePiece BPE (`tokenizer.ggml.model` llama): pieces with scores, the best scored pair of neighbours that makes a
//! piece is joined first; characters that are no piece fall back to bytes.

use std::cmp::Ordering;

use tokenizers::{
    Tokenizer,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::{BPE, Vocab},
    normalizers::{NormalizerWrapper, Prepend, Replace, utils::Sequence as Normalizers},
};

use super::merges;
use crate::model::{
    checkpoint::{GgufFile, MetadataValue},
    error::LoadError,
};

/// How pieces spell a space.
const SPACE: &str = "▁";

/// Longest piece, in bytes. Every way to cut it is looked up.
const MAX_PIECE: usize = 4096;

/// Builds the tokenizer, without its special tokens. `unknown` is the token of what cannot be spelled.
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
        merges(file)?
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
    let mut decoders = vec![Replace::new(SPACE, " ").map_err(refuse)?.into(), ByteFallback::default().into()];
    decoders.push(Fuse::default().into());
    if file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(!gemma) {
        let prefix = Prepend::new(SPACE.to_owned()).into();
        tokenizer.with_normalizer(Some(Normalizers::new(vec![prefix, spaces]))).map_err(refuse)?;
        decoders.push(Strip::new(' ', 1, 0).into());
    } else {
        tokenizer.with_normalizer(Some(spaces)).map_err(refuse)?;
    }
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

/// Gemma's files spell runs of spaces as they are.
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

/// Every way to join two pieces into a third, the best scored first; among equals longer first halves go first, as in
/// transformers.
fn implied_merges(pieces: &[String], vocab: &Vocab, scores: &[f64]) -> Vec<(String, String)> {
    let mut found: Vec<(f64, usize, usize, (&str, &str))> = Vec::new();
    for (piece, score) in pieces.iter().zip(scores) {
        let n = piece.chars().count();
        for (i, (at, _)) in piece.char_indices().enumerate().skip(1) {
            let halves = piece.split_at(at);
            if vocab.contains_key(halves.0) && vocab.contains_key(halves.1) {
                found.push((*score, i, n - i, halves));
            }
        }
    }
    let descending = |a: f64, b: f64| b.partial_cmp(&a).unwrap_or(Ordering::Equal);
    found.sort_by(|a, b| descending(a.0, b.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    found.into_iter().map(|(.., (a, b))| (a.to_owned(), b.to_owned())).collect()
}
