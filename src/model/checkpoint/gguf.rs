//! GGUF files: weights, configuration and tokenizer in one.

use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

pub use candle_core::quantized::gguf_file::Value as MetadataValue;
use candle_core::quantized::{GgmlDType, gguf_file::Content};

use super::{Checkpoint, Entry, Stored};
use crate::model::error::LoadError;

/// An opened GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    metadata: HashMap<String, MetadataValue>,
    checkpoint: Checkpoint,
}

impl GgufFile {
    /// Opens and checks the header.
    ///
    /// # Errors
    /// When the file is damaged, truncated, or one part of several.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(|e| LoadError::file(path, e))?;
        // The reader divides by the file's alignment, which a damaged file may give as zero.
        let content = catch_unwind(AssertUnwindSafe(|| Content::read(&mut BufReader::new(&file))))
            .map_err(|_| LoadError::file(path, "is not a readable GGUF file"))?
            .map_err(|e| LoadError::file(path, format!("is not a readable GGUF file: {e}")))?;
        if content.metadata.get("split.count").and_then(integer).is_some_and(|n| n > 1) {
            return Err(LoadError::file(path, "is one part of a split GGUF file; merge the parts first"));
        }
        let mut entries = HashMap::new();
        for (name, info) in content.tensor_infos {
            let offset = content.tensor_data_offset.saturating_add(info.offset);
            let shape = info.shape.dims().to_vec();
            entries.insert(name, Entry { file: 0, offset, shape, stored: stored(info.ggml_dtype) });
        }
        let checkpoint = Checkpoint::new(vec![(path.to_owned(), file)], entries)?;
        Ok(Self { path: path.to_owned(), metadata: content.metadata, checkpoint })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// All metadata.
    pub fn metadata(&self) -> &HashMap<String, MetadataValue> {
        &self.metadata
    }

    /// An error about a key.
    pub fn refuse(&self, key: &str, reason: impl std::fmt::Display) -> LoadError {
        LoadError::file(&self.path, format!("`{key}` {reason}"))
    }

    /// A string, if the key is there and is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(MetadataValue::String(s)) => Some(s),
            _ => None,
        }
    }

    /// An integer of any width, if the key is there and is one.
    pub fn integer(&self, key: &str) -> Option<u64> {
        self.metadata.get(key).and_then(integer)
    }

    /// A truth value, if the key is there and is one.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(MetadataValue::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// A list, if the key is there and is one.
    pub fn list(&self, key: &str) -> Option<&[MetadataValue]> {
        match self.metadata.get(key) {
            Some(MetadataValue::Array(list)) => Some(list),
            _ => None,
        }
    }
}

/// A non-negative integer of any width.
pub(super) fn integer(value: &MetadataValue) -> Option<u64> {
    match value {
        MetadataValue::U8(v) => Some(u64::from(*v)),
        MetadataValue::U16(v) => Some(u64::from(*v)),
        MetadataValue::U32(v) => Some(u64::from(*v)),
        MetadataValue::U64(v) => Some(*v),
        MetadataValue::I8(v) => u64::try_from(*v).ok(),
        MetadataValue::I16(v) => u64::try_from(*v).ok(),
        MetadataValue::I32(v) => u64::try_from(*v).ok(),
        MetadataValue::I64(v) => u64::try_from(*v).ok(),
        _ => None,
    }
}

fn stored(dtype: GgmlDType) -> Stored {
    match dtype {
        GgmlDType::F32 => Stored::F32,
        GgmlDType::F16 => Stored::F16,
        GgmlDType::BF16 => Stored::BF16,
        other => Stored::Quantised(other),
    }
}
