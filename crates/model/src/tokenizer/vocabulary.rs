//! Reads the vocabulary of a folder: from `tokenizer.json`, `vocab.json` with `merges.txt`, `vocab.txt`, or `tokenizer.model`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    models::{
        bpe::{BPE, Merges, Vocab},
        wordpiece::WordPiece,
    },
};

use super::{
    class::Class,
    sentencepiece::{MAX_PIECE, merges, pairs},
    sentencepiece_model::SentencePieceModel,
};
use crate::error::LoadError;

/// The file with the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `tokenizer.json`.
    Serialized(PathBuf),
    /// `vocab.json`, with `merges.txt` next to it.
    Merges(PathBuf),
    /// `vocab.txt`.
    Words(PathBuf),
    /// `tokenizer.model`.
    Pieces(PathBuf),
}

impl Source {
    /// The file in `folder` that transformers uses for `class`; `tokenizer.json` takes precedence.
    pub fn find(folder: &Path, class: Class) -> Option<Self> {
        let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
        let words = || file("vocab.txt").map(Self::Words);
        let merges = || file("merges.txt").and(file("vocab.json")).map(Self::Merges);
        let pieces = || file("tokenizer.model").map(Self::Pieces);
        let serialized = file("tokenizer.json").map(Self::Serialized);
        if class.word_pieces() {
            return serialized.or_else(words);
        }
        if class.pieces() || class == Class::Qwen35 {
            return serialized.or_else(pieces);
        }
        serialized.or_else(pieces).or_else(merges).or_else(words)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Serialized(path) | Self::Merges(path) | Self::Words(path) | Self::Pieces(path) => path,
        }
    }
}

/// The parts of `tokenizer.json`.
#[derive(Debug, Deserialize)]
pub struct Serialized {
    /// The normaliser.
    pub normalizer: Option<NormalizerWrapper>,
    /// The pre-tokeniser.
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    /// The post-processor, which adds tokens around a text.
    pub post_processor: Option<PostProcessorWrapper>,
    #[serde(default)]
    added_tokens: Vec<WithId>,
    /// The model: vocabulary, merges and options.
    pub model: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct WithId {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

impl Serialized {
    /// The added tokens by id.
    pub fn added_tokens(&self) -> BTreeMap<u32, AddedToken> {
        self.added_tokens.iter().map(|t| (t.id, t.token.clone())).collect()
    }

    /// Ids by token. In a list, as unigram models have, the id is the position.
    fn vocab(&self) -> Option<Vocab> {
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        match self.model.get("vocab")? {
            Value::Object(map) => map.iter().map(|(token, n)| Some((token.clone(), id(n)?))).collect(),
            Value::Array(list) => {
                let token = |entry: &Value| entry.as_str().or_else(|| entry.get(0)?.as_str()).map(str::to_owned);
                list.iter().zip(0u32..).map(|(entry, i)| Some((token(entry)?, i))).collect()
            }
            _ => None,
        }
    }

    /// The merges; empty if the model has none.
    fn merges(&self) -> Option<Merges> {
        let pair = |merge: &Value| match merge {
            Value::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(a), Value::String(b)] => Some((a.clone(), b.clone())),
                _ => None,
            },
            _ => None,
        };
        match self.model.get("merges") {
            None => Some(Merges::new()),
            Some(Value::Array(list)) => list.iter().map(pair).collect(),
            Some(_) => None,
        }
    }
}

/// The vocabulary itself.
#[derive(Debug)]
pub enum Vocabulary {
    /// The model of `tokenizer.json`.
    Serialized(Box<Serialized>),
    /// Tokens and merges.
    Merges(Vocab, Merges),
    /// Word pieces.
    Words(Vocab),
    /// SentencePiece.
    Pieces(Box<SentencePieceModel>),
}

impl Vocabulary {
    /// Reads the vocabulary; `serialized` is the content of `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn read(source: &Source, serialized: &[u8]) -> Result<Self, LoadError> {
        let path = source.path();
        let failed = |e: tokenizers::Error| LoadError::file(path, e);
        Ok(match source {
            Source::Serialized(_) => {
                Self::Serialized(serde_json::from_slice(serialized).map_err(|e| LoadError::file(path, e))?)
            }
            Source::Merges(_) => {
                let merges = path.with_file_name("merges.txt");
                let (vocab, merges) = BPE::read_file(text(path)?, text(&merges)?).map_err(failed)?;
                Self::Merges(vocab, merges)
            }
            Source::Words(_) => Self::Words(WordPiece::read_file(text(path)?).map_err(failed)?),
            Source::Pieces(_) => {
                let model = SentencePieceModel::read(path)?;
                if let Some(long) = model.pieces.iter().map(|p| p.piece().len()).find(|n| *n > MAX_PIECE) {
                    return Err(LoadError::file(path, format!("has a piece of {long} bytes")));
                }
                Self::Pieces(Box::new(model))
            }
        })
    }

    /// Tokens and merges.
    ///
    /// # Errors
    /// When `path` does not hold them.
    pub fn bpe(&self, path: &Path) -> Result<(Vocab, Merges), LoadError> {
        match self {
            Self::Serialized(json) => json
                .vocab()
                .zip(json.merges())
                .ok_or_else(|| LoadError::file(path, "`model` lacks a vocabulary or merges that are pairs")),
            Self::Merges(vocab, merges) => Ok((vocab.clone(), merges.clone())),
            Self::Words(_) => {
                Err(LoadError::file(path, "is a list of word pieces, and the tokenizer's class merges pairs"))
            }
            Self::Pieces(model) => Ok(bpe_of_pieces(&model.texts())),
        }
    }

    /// Word pieces.
    ///
    /// # Errors
    /// When `path` does not hold them.
    pub fn words(&self, path: &Path) -> Result<Vocab, LoadError> {
        match self {
            Self::Serialized(json) => {
                json.vocab().ok_or_else(|| LoadError::file(path, "`model` lacks a vocabulary of tokens and ids"))
            }
            Self::Words(vocab) => Ok(vocab.clone()),
            Self::Merges(..) | Self::Pieces(_) => {
                Err(LoadError::file(path, "is not a list of word pieces, which the tokenizer's class needs"))
            }
        }
    }
}

/// Merges of a `tokenizer.model` as transformers orders them: by the id of the merged piece, then by the length of the first half.
pub fn bpe_of_pieces(pieces: &[String]) -> (Vocab, Merges) {
    let vocab: Vocab = pieces.iter().cloned().zip(0u32..).collect();
    let mut found = merges(pieces, &vocab);
    found.sort_by_key(|m| (m.piece, m.first_chars));
    let merges = pairs(found);
    (vocab, merges)
}

/// A path as the tokenizers library accepts it.
fn text(path: &Path) -> Result<&str, LoadError> {
    path.to_str().ok_or_else(|| LoadError::file(path, "has a name that is not UTF-8"))
}
