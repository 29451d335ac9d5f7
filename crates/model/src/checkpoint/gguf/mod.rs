//! GGUF files: weights, configuration and tokenizer in one file.

mod header;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    path::{Path, PathBuf},
};

pub use header::MetadataValue;

use super::{Checkpoint, Entry};
use crate::{error::LoadError, load_progress::LoadProgress};
use header::Header;

/// An opened GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    metadata: BTreeMap<String, MetadataValue>,
    checkpoint: Checkpoint,
}

impl GgufFile {
    /// Opens and checks the header.
    ///
    /// # Errors
    /// When the file is damaged, truncated, or one part of several.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|e| LoadError::file(path, e))?;
        let length = file.metadata().map_err(|e| LoadError::file(path, e))?.len();
        let header = Header::read(&file, length);
        let header = header.map_err(|e| LoadError::file(path, format!("is not a readable GGUF file: {e}")))?;
        if header.metadata.get("split.count").and_then(integer).is_some_and(|n| n > 1) {
            return Err(LoadError::file(path, "is one part of a split GGUF file; merge the parts first"));
        }
        let entry = |t: header::TensorInfo| Entry { file: 0, offset: t.offset, shape: t.shape, stored: t.stored };
        let entries = header.tensors.into_iter().map(|(name, info)| (name, entry(info))).collect();
        let checkpoint = Checkpoint::new(vec![(path.to_owned(), file)], entries, HashMap::new())?;
        Ok(Self { path: path.to_owned(), metadata: header.metadata, checkpoint })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// As [`Checkpoint::report_to`].
    pub fn report_to(&mut self, progress: &LoadProgress) {
        self.checkpoint.report_to(progress);
    }

    /// All metadata.
    pub fn metadata(&self) -> &BTreeMap<String, MetadataValue> {
        &self.metadata
    }

    /// An error about a key.
    pub fn refuse(&self, key: &str, reason: impl std::fmt::Display) -> LoadError {
        LoadError::file(&self.path, format!("`{key}` {reason}"))
    }

    /// Refuses a file with tensors that nothing has read: they might change what the model computes.
    ///
    /// # Errors
    /// Naming the first of them.
    pub fn finish(&self) -> Result<(), LoadError> {
        match self.checkpoint.unused().first() {
            None => Ok(()),
            Some(name) => {
                let reason = format!("tensor `{name}` is not understood and might change what the model computes");
                Err(LoadError::file(&self.path, reason))
            }
        }
    }

    /// A string, if the key is present and has this type.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(MetadataValue::Text(s)) => Some(s),
            _ => None,
        }
    }

    /// A non-negative integer of any width, if the key is present and has this type.
    pub fn integer(&self, key: &str) -> Option<u64> {
        self.metadata.get(key).and_then(integer)
    }

    /// A boolean, if the key is present and has this type.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(MetadataValue::Flag(b)) => Some(*b),
            _ => None,
        }
    }

    /// A list, if the key is present and has this type.
    pub fn list(&self, key: &str) -> Option<&[MetadataValue]> {
        match self.metadata.get(key) {
            Some(MetadataValue::List(list)) => Some(list),
            _ => None,
        }
    }
}

/// A non-negative integer of any width.
fn integer(value: &MetadataValue) -> Option<u64> {
    match value {
        MetadataValue::Integer(v) => u64::try_from(*v).ok(),
        _ => None,
    }
}
