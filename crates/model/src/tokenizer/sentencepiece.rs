//! What the readers of GGUF files and of `tokenizer.model` share: SentencePiece's BPE as a list of merges, and how its pieces spell
//! spaces and bytes.

use tokenizers::{
    decoders::{DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::Vocab,
    normalizers::Replace,
};

/// How pieces spell a space.
pub const SPACE: &str = "▁";

/// Longest piece, in bytes. Every way to cut it is looked up.
pub const MAX_PIECE: usize = 4096;

/// A way to make a piece of two others.
#[derive(Debug, Clone, Copy)]
pub struct Merge<'p> {
    /// Position of the piece that is made.
    pub piece: usize,
    /// Characters of the first half.
    pub first_chars: usize,
    /// The halves.
    pub halves: (&'p str, &'p str),
}

/// Every way to join two pieces into a third, in no useful order.
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

/// The merges as the tokenizer wants them.
pub fn pairs(merges: Vec<Merge<'_>>) -> Vec<(String, String)> {
    merges.into_iter().map(|m| (m.halves.0.to_owned(), m.halves.1.to_owned())).collect()
}

/// Spaces and bytes back from the pieces; `strip_one` takes away the space that was put in front.
///
/// # Errors
/// None that depends on the input.
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
