//! How much memory a checkpoint will take, from the headers of its files.

use std::path::Path;

use super::{
    checkpoint::{Checkpoint, GgufFile},
    error::LoadError,
    hub::Location,
    tokenizer,
};

/// Bytes of memory that a tokenizer takes for each byte of its files: its vocabulary and merges are kept in several maps.
const TOKENIZER_BYTES_PER_BYTE: u64 = 12;
/// Bytes of memory that a tokenizer takes for each entry of a GGUF file's vocabulary or list of merges.
const TOKENIZER_BYTES_PER_ENTRY: u64 = 450;

/// Bytes of memory that a model takes once it is loaded: its weights as float32, and its tokenizer. Reads headers only.
///
/// # Errors
/// When there are no weights, or a file is damaged.
pub fn memory_needed(location: &Location) -> Result<u64, LoadError> {
    match location {
        Location::Folder(folder) => {
            let weights = Checkpoint::open_folder(folder)?.bytes_as_float32();
            let files = tokenizer::folder_files(folder)?;
            let files: Vec<&Path> = files.iter().map(std::path::PathBuf::as_path).collect();
            Ok(weights.saturating_add(bytes_of(&files).saturating_mul(TOKENIZER_BYTES_PER_BYTE)))
        }
        Location::Gguf(path) => {
            let file = GgufFile::open(path)?;
            let entries = |key: &str| file.list(key).map_or(0, |list| list.len() as u64);
            let entries = entries("tokenizer.ggml.tokens") + entries("tokenizer.ggml.merges");
            Ok(file.checkpoint().bytes_as_float32().saturating_add(entries * TOKENIZER_BYTES_PER_ENTRY))
        }
    }
}

/// Bytes of files; those that cannot be read count as none.
pub fn bytes_of(files: &[&Path]) -> u64 {
    files.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum()
}
