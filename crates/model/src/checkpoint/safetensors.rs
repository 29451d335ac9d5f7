//! Weights of Hugging Face folders: `model.safetensors`, or the shards that `model.safetensors.index.json` names.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;

use super::{Checkpoint, Entry, Stored};
use crate::error::LoadError;

/// Largest header read; the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

impl Checkpoint {
    /// Opens the weights of a Hugging Face folder.
    ///
    /// # Errors
    /// When there are no safetensors weights, or a file is damaged or holds a type that is not a float.
    pub fn open_folder(folder: &Path) -> Result<Self, LoadError> {
        Self::open_files(weight_files(folder)?)
    }

    /// Opens the safetensors files of one checkpoint.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open_files(paths: Vec<PathBuf>) -> Result<Self, LoadError> {
        let mut files = Vec::new();
        let (mut entries, mut unreadable) = (HashMap::new(), HashMap::new());
        for path in paths {
            let file = File::open(&path).map_err(|e| LoadError::file(&path, e))?;
            read_header(&path, &file, files.len(), &mut entries, &mut unreadable)?;
            files.push((path, file));
        }
        Self::new(files, entries, unreadable)
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        return Err(LoadError::file(folder, "has neither model.safetensors nor model.safetensors.index.json"));
    }
    let text = std::fs::read(&index).map_err(|e| LoadError::file(&index, e))?;
    let parsed: Index = serde_json::from_slice(&text).map_err(|e| LoadError::file(&index, e))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let plain = |n: &str| !n.is_empty() && !n.contains(['/', '\\']) && n != "..";
    match names.iter().find(|n| !plain(n)) {
        Some(bad) => Err(LoadError::file(&index, format!("{bad:?} is not a file name"))),
        None => Ok(names.iter().map(|n| folder.join(n)).collect()),
    }
}

fn read_header(
    path: &Path,
    file: &File,
    index: usize,
    entries: &mut HashMap<String, Entry>,
    unreadable: &mut HashMap<String, String>,
) -> Result<(), LoadError> {
    let error = |reason: String| LoadError::file(path, reason);
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(|e| error(format!("is not a safetensors file: {e}")))?;
    let length = u64::from_le_bytes(prefix);
    let available = file.metadata().map_err(|e| error(e.to_string()))?.len().saturating_sub(8);
    if length > MAX_HEADER.min(available) {
        return Err(error("is not a safetensors file, or is truncated: its header does not fit".to_owned()));
    }
    let mut header = vec![0; usize::try_from(length).map_err(|e| error(e.to_string()))?];
    file.read_exact_at(&mut header, 8).map_err(|e| error(e.to_string()))?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| error(format!("has a damaged header: {e}")))?;
    for (name, info) in metadata.tensors() {
        // Integer buffers (attention masks of old GPT-2 files) are not weights, and quantised weights cannot be read. If a family
        // asks for such a tensor, the error names its type.
        let Some(stored) = stored(info.dtype) else {
            unreadable.insert(name.clone(), dtype_name(info.dtype));
            continue;
        };
        let offset = 8 + length + info.data_offsets.0 as u64;
        let entry = Entry { file: index, offset, shape: info.shape.clone(), stored };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(error(format!("tensor `{name}` is in two files")));
        }
    }
    Ok(())
}

/// The name of a type that cannot be read, as PyTorch spells it.
fn dtype_name(dtype: Dtype) -> String {
    let name = match dtype {
        Dtype::BOOL => "bool",
        Dtype::U8 => "uint8",
        Dtype::I8 => "int8",
        Dtype::I16 => "int16",
        Dtype::U16 => "uint16",
        Dtype::I32 => "int32",
        Dtype::U32 => "uint32",
        Dtype::I64 => "int64",
        Dtype::U64 => "uint64",
        Dtype::F8_E4M3 => "float8_e4m3fn",
        Dtype::F8_E5M2 => "float8_e5m2",
        other => return format!("{other:?}"),
    };
    name.to_owned()
}

fn stored(dtype: Dtype) -> Option<Stored> {
    match dtype {
        Dtype::F32 => Some(Stored::F32),
        Dtype::F16 => Some(Stored::F16),
        Dtype::BF16 => Some(Stored::BF16),
        Dtype::F64 => Some(Stored::F64),
        _ => None,
    }
}
