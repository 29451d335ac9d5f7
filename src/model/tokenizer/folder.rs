//! The tokenizer of a Hugging Face folder: `tokenizer.json` (or BERT's `vocab.txt`), and what `tokenizer_config.json`
//! adds.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokenizers::Tokenizer;

use super::{
    Settings, TextTokenizer,
    chat::{self, Sources},
    wordpiece,
};
use crate::model::{config::Config, error::LoadError};

/// Roles a special token can have.
const ROLES: &[&str] = &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Files that a tokenizer may have, in the order they are hashed.
const FILES: &[&str] =
    &["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// The files of a folder's tokenizer that are there, in the order they are hashed.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = FILES.iter().map(|f| folder.join(f)).filter(|p| p.is_file());
    listed.chain(chat::other_files(folder)).collect()
}

impl TextTokenizer {
    /// Reads the tokenizer of a folder.
    ///
    /// # Errors
    /// When there is neither `tokenizer.json` nor BERT's `vocab.txt`, or a file is damaged.
    pub fn from_folder(folder: &Path, d_vocab: usize) -> Result<Self, LoadError> {
        let (path, vocab) = (folder.join("tokenizer.json"), folder.join("vocab.txt"));
        let config_path = folder.join("tokenizer_config.json");
        let config = object(&config_path)?;
        let map = object(&folder.join("special_tokens_map.json"))?;
        let role = |name: &str| [&config, &map].into_iter().find_map(|o| content(o.get(name)?));
        let mut roles: BTreeMap<String, String> =
            ROLES.iter().filter_map(|r| Some(((*r).to_owned(), role(r)?))).collect();
        let mut tokenizer = if path.is_file() {
            Tokenizer::from_file(&path).map_err(|e| LoadError::file(&path, e))?
        } else if vocab.is_file() {
            let config = Config::new(config_path.display().to_string(), config.clone());
            wordpiece::from_vocab(&vocab, &config, &mut roles)?
        } else {
            return Err(LoadError::file(&path, "is missing; a fast tokenizer (or BERT's vocab.txt) is needed"));
        };
        // Lengths are the server's business: a truncated input would be a silently different one.
        tokenizer.with_truncation(None).map_err(|e| LoadError::file(&path, e))?;
        tokenizer.with_padding(None);
        let templates = Sources::of_folder(folder, &config)?;
        Ok(Self::new(tokenizer, Settings { roles, templates }, d_vocab))
    }
}

/// A JSON object, empty when the file does not exist.
fn object(path: &Path) -> Result<serde_json::Map<String, Value>, LoadError> {
    if !path.is_file() {
        return Ok(serde_json::Map::new());
    }
    let text = std::fs::read(path).map_err(|e| LoadError::file(path, e))?;
    serde_json::from_slice(&text).map_err(|e| LoadError::file(path, e))
}

/// A token is written as a string or as an object with its content.
fn content(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}
