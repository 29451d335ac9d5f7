//! Reads SentencePiece's model file, `tokenizer.model`: the fields of its protocol buffer that affect tokens. Field numbers and
//! defaults are those of `sentencepiece_model.proto` (github.com/google/sentencepiece).

use std::path::Path;

use prost::Message;

use crate::error::LoadError;

/// Types of pieces: special tokens, and user-defined tokens, which are matched as a whole.
pub const CONTROL: i32 = 3;
/// See [`CONTROL`].
pub const USER_DEFINED: i32 = 4;

/// Algorithms (`TrainerSpec.model_type`).
pub const UNIGRAM: i32 = 1;
/// See [`UNIGRAM`].
pub const BPE: i32 = 2;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub struct SentencePieceModel {
    /// The pieces, in the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<Piece>,
    /// How the model was trained.
    #[prost(message, optional, tag = "2")]
    pub trainer: Option<Trainer>,
    /// The normalisation of text.
    #[prost(message, optional, tag = "3")]
    pub normalizer: Option<Normalizer>,
}

/// `ModelProto.SentencePiece`.
#[derive(Clone, PartialEq, Message)]
pub struct Piece {
    /// The text, spaces as `▁`.
    #[prost(string, optional, tag = "1")]
    pub piece: Option<String>,
    /// The logarithm of its probability, or minus its rank.
    #[prost(float, optional, tag = "2")]
    pub score: Option<f32>,
    /// Its type.
    #[prost(int32, optional, tag = "3", default = "1")]
    pub kind: Option<i32>,
}

/// `TrainerSpec`.
#[derive(Clone, PartialEq, Message)]
pub struct Trainer {
    /// The algorithm.
    #[prost(int32, optional, tag = "3", default = "1")]
    pub model_type: Option<i32>,
    /// Whether characters without a piece are encoded as bytes.
    #[prost(bool, optional, tag = "35", default = "false")]
    pub byte_fallback: Option<bool>,
    /// Id of the unknown token.
    #[prost(int32, optional, tag = "40", default = "0")]
    pub unk_id: Option<i32>,
    /// Id of BOS; -1 if there is none.
    #[prost(int32, optional, tag = "41", default = "1")]
    pub bos_id: Option<i32>,
    /// Id of EOS; -1 if there is none.
    #[prost(int32, optional, tag = "42", default = "2")]
    pub eos_id: Option<i32>,
    /// The piece of the unknown token.
    #[prost(string, optional, tag = "45", default = "<unk>")]
    pub unk_piece: Option<String>,
    /// The piece of BOS.
    #[prost(string, optional, tag = "46", default = "<s>")]
    pub bos_piece: Option<String>,
    /// The piece of EOS.
    #[prost(string, optional, tag = "47", default = "</s>")]
    pub eos_piece: Option<String>,
}

/// `NormalizerSpec`.
#[derive(Clone, PartialEq, Message)]
pub struct Normalizer {
    /// Replacements of characters.
    #[prost(bytes = "vec", optional, tag = "2")]
    pub precompiled_charsmap: Option<Vec<u8>>,
    /// Whether a space is prepended to the text.
    #[prost(bool, optional, tag = "3", default = "true")]
    pub add_dummy_prefix: Option<bool>,
    /// Whether runs of spaces become one space.
    #[prost(bool, optional, tag = "4", default = "true")]
    pub remove_extra_whitespaces: Option<bool>,
}

impl SentencePieceModel {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not a SentencePiece model, or neither BPE nor unigram.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path).map_err(|e| LoadError::file(path, e))?;
        let model = Self::decode(bytes.as_slice());
        let model = model.map_err(|e| LoadError::file(path, format!("is not a SentencePiece model: {e}")))?;
        if model.pieces.is_empty() {
            return Err(LoadError::file(path, "is not a SentencePiece model: it has no pieces"));
        }
        match model.trainer().model_type() {
            UNIGRAM | BPE => Ok(model),
            other => Err(LoadError::file(path, format!("has model_type {other}; 1 (unigram) and 2 (BPE) are known"))),
        }
    }

    /// How the model was trained, with defaults for absent fields.
    pub fn trainer(&self) -> Trainer {
        self.trainer.clone().unwrap_or_default()
    }

    /// The normalisation of text, with defaults for absent fields.
    pub fn normalizer(&self) -> Normalizer {
        self.normalizer.clone().unwrap_or_default()
    }

    /// The pieces' texts.
    pub fn texts(&self) -> Vec<String> {
        self.pieces.iter().map(|p| p.piece().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_have_the_defaults_of_the_format() {
        let model = SentencePieceModel::default();
        let trainer = model.trainer();
        assert_eq!((trainer.model_type(), trainer.unk_id(), trainer.bos_id(), trainer.eos_id()), (UNIGRAM, 0, 1, 2));
        assert_eq!((trainer.unk_piece(), trainer.bos_piece(), trainer.eos_piece()), ("<unk>", "<s>", "</s>"));
        assert!(!trainer.byte_fallback());
        assert!(model.normalizer().add_dummy_prefix() && model.normalizer().remove_extra_whitespaces());
        assert_eq!(Piece::default().kind(), 1);
    }
}
