//! The header of a blob: a safetensors header whose `__metadata__` can rebuild the index.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Eight bytes of length, little-endian; JSON, padded with spaces so
//! that tensors begin at a multiple of eight bytes; the tensors. Metadata is a map from string to string, so structured
//! values are JSON inside strings.

use std::{collections::BTreeMap, fs::File};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    blobs::read_at,
    error::StoreError,
    index::rows::{hex, to_json},
    packs::{contents::PackHeader, item::ItemRecord},
};
use residuum_domain::{CacheId, Capture, Hook, ItemSpan, PackId, PackLayout, Problem, Provenance, RunId, TenantId};

const FORMAT: &str = "residuum-pack-1";
/// Longest header the safetensors format allows.
const MAX_LEN: u64 = 100_000_000;

/// One cache as the header describes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CacheEntry<'a> {
    pub(crate) id: CacheId,
    pub(crate) run: RunId,
    pub(crate) item_index: u32,
    /// Name of its model, where that is another than the pack's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// When it was stored, in microseconds; left out where its id says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<i64>,
    /// Whether it was answered by what is stored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reused: bool,
    /// Hexadecimal; `None`: made elsewhere, never reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forward_key: Option<String>,
    /// blake3 of its rows, hook after hook, in hexadecimal. The first versions did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_hash: Option<String>,
    pub(crate) row_start: usize,
    pub(crate) map_start: usize,
    /// What it captures, where that is less than the pack holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Vec<Hook>>,
    #[serde(flatten)]
    pub(crate) item: ItemRecord<'a>,
}

/// What a header says.
#[derive(Debug)]
pub(crate) struct BlobHeader {
    /// Byte of the file where the first tensor begins.
    pub(crate) data_start: u64,
    pub(crate) front: Front,
    /// Name, type, shape and `[begin, end)` in bytes from `data_start`, in order of place.
    pub(crate) tensors: Vec<(String, TensorInfo)>,
    /// Several may share rows.
    pub(crate) caches: Vec<CacheEntry<'static>>,
}

/// What the caches of a pack have in common.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    pub(crate) pack: PackId,
    pub(crate) tenant: TenantId,
    /// Name of the model, unless a cache names another.
    pub(crate) model: String,
    pub(crate) n_layers: usize,
    pub(crate) d_model: usize,
    pub(crate) provenance: Provenance,
    /// Hooks and dtype; positions are each cache's own.
    pub(crate) capture: Capture,
    pub(crate) row_shapes: Vec<Vec<usize>>,
}

/// One tensor's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data_offsets: (u64, u64),
}

/// The tensors of a layout, as a header lists them.
pub(crate) fn tensors(layout: &PackLayout) -> Vec<(String, TensorInfo)> {
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

/// The bytes of a blob up to its first tensor. Their number depends on everything but `hashes`, of which there is one for each item:
/// blake3 of its rows.
///
/// # Errors
/// As [`assemble`].
pub(crate) fn encode(header: &PackHeader, hashes: &[blake3::Hash]) -> Result<Vec<u8>, StoreError> {
    let caches: Vec<CacheEntry<'_>> = header
        .caches
        .iter()
        .zip(&header.layout.items)
        .zip(hashes)
        .map(|((c, span), hash)| CacheEntry {
            id: c.cache,
            run: c.run,
            item_index: c.item_index,
            model: None,
            created_at: None,
            reused: false,
            forward_key: c.forward_key.as_ref().map(|key| hex(key)),
            content_hash: Some(hash.to_hex().to_string()),
            row_start: span.row_start,
            map_start: span.map_start,
            hooks: (c.item.capture.hooks != header.layout.hooks).then(|| c.item.capture.hooks.to_vec()),
            item: ItemRecord::from(&c.item),
        })
        .collect();
    let front = Front {
        pack: header.id,
        tenant: header.tenant,
        model: header.model.clone(),
        n_layers: header.n_layers,
        d_model: header.d_model,
        provenance: header.provenance.clone(),
        capture: header.capture.clone(),
        row_shapes: header.layout.row_shapes.clone(),
    };
    assemble(&front, &header.layout, &caches)
}

/// The bytes of a blob up to its first tensor.
///
/// # Errors
/// [`StoreError::Misuse`] when the header would be longer than the format allows.
pub(crate) fn assemble(front: &Front, layout: &PackLayout, caches: &[CacheEntry<'_>]) -> Result<Vec<u8>, StoreError> {
    let metadata = json!({
        "format": FORMAT,
        "pack": front.pack.to_string(),
        "tenant": front.tenant.0.to_string(),
        "model": front.model,
        "n_layers": front.n_layers.to_string(),
        "d_model": front.d_model.to_string(),
        "provenance": to_json(&front.provenance)?,
        "capture": to_json(&front.capture)?,
        "row_shapes": to_json(&front.row_shapes)?,
        "caches": to_json(caches)?,
    });
    let mut root = Map::new();
    root.insert("__metadata__".to_owned(), metadata);
    root.extend(tensors(layout).into_iter().map(|(name, info)| (name, json!(info))));
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
pub(crate) fn read(file: &File, pack: PackId) -> Result<BlobHeader, StoreError> {
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
    let wrong = |key: &str| damaged(format!("has a malformed `{key}`"));
    let front = Front {
        pack: field("pack")?.parse().map_err(|_| wrong("pack"))?,
        tenant: TenantId(field("tenant")?.parse().map_err(|_| wrong("tenant"))?),
        model: field("model")?.clone(),
        n_layers: field("n_layers")?.parse().map_err(|_| wrong("n_layers"))?,
        d_model: field("d_model")?.parse().map_err(|_| wrong("d_model"))?,
        provenance: serde_json::from_str(field("provenance")?).map_err(malformed)?,
        capture: serde_json::from_str(field("capture")?).map_err(malformed)?,
        row_shapes: serde_json::from_str(field("row_shapes")?).map_err(malformed)?,
    };
    let caches = serde_json::from_str(field("caches")?).map_err(malformed)?;
    let tensors = root
        .into_iter()
        .map(|(name, info)| serde_json::from_value(info).map(|info| (name, info)))
        .collect::<Result<_, _>>()
        .map_err(malformed)?;
    Ok(BlobHeader { data_start: 8 + len, front, tensors, caches })
}

impl CacheEntry<'_> {
    /// Its place in the pack.
    ///
    /// # Errors
    /// [`Problem`] when its positions are not those of an input of so many tokens.
    pub(crate) fn span(&self) -> Result<ItemSpan, Problem> {
        let n_tokens = self.item.token_ids.len();
        let n_rows = self.item.positions.resolve(n_tokens)?.len();
        Ok(ItemSpan { n_tokens, n_rows, row_start: self.row_start, map_start: self.map_start })
    }
}
