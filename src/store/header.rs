//! The header of a blob: a safetensors header whose `__metadata__` can rebuild the index.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Eight bytes of length, little-endian; JSON, padded with spaces so
//! that tensors begin at a multiple of eight bytes; the tensors. Metadata is a map from string to string, so structured
//! values are JSON inside strings.

use std::{collections::BTreeMap, fs::File};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    blobs::read_at,
    error::StoreError,
    item::ItemRecord,
    pack::PackHeader,
    rows::{hex, to_json},
};
use crate::domain::{CacheId, Hook, PackId, RunId};

const FORMAT: &str = "residuum-pack-1";
/// Longest header the safetensors format allows.
const MAX_LEN: u64 = 100_000_000;

/// One cache as the header describes it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CacheEntry<'a> {
    id: CacheId,
    run: RunId,
    item_index: u32,
    /// Hexadecimal; none for what was made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) forward_key: Option<String>,
    pub(super) row_start: usize,
    pub(super) map_start: usize,
    /// What it captures, where that is less than the pack holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hooks: Option<Vec<Hook>>,
    #[serde(flatten)]
    pub(super) item: ItemRecord<'a>,
}

/// What a header says, as far as the index can be held against it.
#[derive(Debug)]
pub(super) struct BlobHeader {
    /// Byte of the file where the first tensor begins.
    pub(super) data_start: u64,
    pub(super) pack: PackId,
    /// Name, type, shape and `[begin, end)` in bytes from `data_start`, in order of place.
    pub(super) tensors: Vec<(String, TensorInfo)>,
    pub(super) caches: Vec<CacheEntry<'static>>,
}

/// One tensor's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TensorInfo {
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) data_offsets: (u64, u64),
}

/// The tensors of a layout, as a header lists them.
pub(super) fn tensors(layout: &crate::domain::PackLayout) -> Vec<(String, TensorInfo)> {
    let mut end = 0;
    (0..layout.hooks.len())
        .map(|h| {
            let begin = end;
            end = begin + layout.tensor_bytes(h);
            let info = TensorInfo {
                dtype: layout.dtype.safetensors_name().to_owned(),
                shape: layout.tensor_shape(h),
                data_offsets: (begin, end),
            };
            (layout.hooks[h].to_string(), info)
        })
        .collect()
}

/// The bytes of a blob up to its first tensor.
///
/// # Errors
/// [`StoreError::Misuse`] when the header would be longer than the format allows.
pub(super) fn encode(header: &PackHeader) -> Result<Vec<u8>, StoreError> {
    let caches: Vec<CacheEntry<'_>> = header
        .caches
        .iter()
        .zip(&header.layout.items)
        .map(|(c, span)| CacheEntry {
            id: c.cache,
            run: c.run,
            item_index: c.item_index,
            forward_key: c.forward_key.as_ref().map(|key| hex(key)),
            row_start: span.row_start,
            map_start: span.map_start,
            hooks: (c.item.capture.hooks != header.layout.hooks).then(|| c.item.capture.hooks.to_vec()),
            item: ItemRecord::from(&c.item),
        })
        .collect();
    let metadata = json!({
        "format": FORMAT,
        "pack": header.id.to_string(),
        "tenant": header.tenant.0.to_string(),
        "model": header.model,
        "n_layers": header.n_layers.to_string(),
        "d_model": header.d_model.to_string(),
        "provenance": to_json(&header.provenance)?,
        "capture": to_json(&header.capture)?,
        "row_shapes": to_json(&header.layout.row_shapes)?,
        "caches": to_json(&caches)?,
    });
    let mut root = Map::new();
    root.insert("__metadata__".to_owned(), metadata);
    root.extend(tensors(&header.layout).into_iter().map(|(name, info)| (name, json!(info))));
    let mut json = to_json(&root)?.into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() as u64 > MAX_LEN {
        return Err(StoreError::Misuse("the header of a pack is longer than safetensors allows".to_owned()));
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}

/// Reads the header of the file of `pack`.
///
/// # Errors
/// [`StoreError::Damaged`] when it is not the header of a pack.
pub(super) fn read(file: &File, pack: PackId) -> Result<BlobHeader, StoreError> {
    let damaged = |why: String| StoreError::damaged(format!("the header of pack {pack} {why}"));
    let len = read_at(file, pack, 0, 8)?;
    let len = u64::from_le_bytes(len.try_into().map_err(|_| damaged("has no length".to_owned()))?);
    let size = usize::try_from(len).ok().filter(|_| len <= MAX_LEN);
    let size = size.ok_or_else(|| damaged(format!("claims {len} bytes")))?;
    let json = read_at(file, pack, 8, size)?;
    let malformed = |e: serde_json::Error| damaged(format!("is malformed: {e}"));
    let mut root: Map<String, Value> = serde_json::from_slice(&json).map_err(malformed)?;
    let metadata = root.shift_remove("__metadata__").unwrap_or_default();
    let metadata: BTreeMap<String, String> = serde_json::from_value(metadata).map_err(malformed)?;
    let field = |key: &str| metadata.get(key).ok_or_else(|| damaged(format!("lacks `{key}`")));
    if field("format")? != FORMAT {
        return Err(damaged("names another format".to_owned()));
    }
    let named = field("pack")?.parse().map_err(|_| damaged("names no pack".to_owned()))?;
    let caches = serde_json::from_str(field("caches")?).map_err(malformed)?;
    let tensors = root
        .into_iter()
        .map(|(name, info)| serde_json::from_value(info).map(|info| (name, info)))
        .collect::<Result<_, _>>()
        .map_err(malformed)?;
    Ok(BlobHeader { data_start: 8 + len, pack: named, tensors, caches })
}
