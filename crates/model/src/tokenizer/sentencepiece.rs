//! SentencePiece BPE for GGUF files and `tokenizer.model`: turns scored pieces into a list of merges, and spells spaces and bytes.

use tokenizers::{
    decoders::{DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::Vocab,
    normalizers::Replace,
};

/// How pieces spell a space.
pub const SPACE: &str = "▁";

/// Longest piece, in bytes. Every way to split a piece in two is looked up.
pub const MAX_PIECE: usize = 4096;

/// A piece and two others that it can be merged from.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'p> {
    /// Index of the merged piece.
    pub piece: usize,
    /// Number of characters of the first half.
    pub first_chars: usize,
    /// The halves.
    pub halves: (&'p str, &'p str),
}

/// Every pair of pieces that can be merged into a third, in arbitrary order.
pub fn merges<'p>(pieces: &'p [String], vocab: &Vocab) -> Vec<Merge<'p>> {
    let mut found = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        for (first_chars, (at, _)) in piece.char_indices().enumerate().skip(1) {
            let halves = piece.split_at(at);
            if vocab.contains_key(halves.0) && vocab.contains_key(halves.1) {
                found.push(Merge { piece: i, first_chars, halves });
            }
        }
    }
    found
}

/// The merges as the tokenizers library takes them.
pub fn pairs(merges: Vec<Merge<'_>>) -> Vec<(String, String)> {
    merges.into_iter().map(|m| (m.halves.0.to_owned(), m.halves.1.to_owned())).collect()
}

/// A decoder that turns pieces back into spaces and bytes; `strip_one` removes the space that was prepended.
///
/// # Errors
/// Never for the inputs used here; the library's constructors are fallible.
pub fn decoder(byte_fallback: bool, strip_one: bool) -> tokenizers::Result<Decoders> {
    let mut steps: Vec<DecoderWrapper> = vec![Replace::new(SPACE, " ")?.into()];
    if byte_fallback {
        steps.extend([ByteFallback::default().into(), Fuse::default().into()]);
    }
    if strip_one {
        steps.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(steps))
}
