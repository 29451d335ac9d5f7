//! A shard: the part of an export that is written as one file, with caches, their rows and a manifest.

use std::{ops::Range, sync::Arc};

use serde_json::{Value, json};

use super::manifest::arrays;
use crate::api::tensor::{Assembly, Part, convert};
use residuum_domain::{Cache, Dtype, Problem, Selection};
use residuum_engine::questions::{
    export::{CachePages, ExportPlan, Picked},
    mean::mean,
};

// Bounds on a shard's tables, which are in memory, whatever `shard_bytes` is.
const MAX_CACHES: usize = 10_000;
const MAX_ROWS: usize = 4_000_000;
const MAX_PIECES: usize = 1_000_000;
const MAX_MANIFEST: usize = 24 << 20;

/// The parts for rows `rows` of array `array`: rounded to `dtype` and sent as `sent`.
pub fn parts(picked: &Picked, array: usize, rows: Range<usize>, dtype: Dtype, sent: Dtype) -> Vec<Part> {
    let hook = picked.hooks[array];
    let width: usize = picked.cache.cache.row_shapes[hook].iter().product();
    let merged = picked.stored_ranges(rows);
    let parts: Vec<Range<usize>> = merged.into_iter().map(|r| r.start * width..r.end * width).collect();
    if !picked.rows.averaged {
        let cache = &picked.cache;
        let stored = |elements| Part::Stored { cache: Arc::clone(cache), hook, elements, dtype, sent };
        return parts.into_iter().map(stored).collect();
    }
    let n = picked.rows.indices.len();
    let selection = Selection { hook, parts, shape: vec![width], axes: Vec::new(), mean_of: Some(n) };
    let cache = Arc::clone(&picked.cache);
    let tag = format!("mean {} {hook} {:?} {dtype} {sent}", cache.cache.content_hash, selection.parts);
    let make = move |store: &residuum_store::Store| {
        let mean = mean(store, &cache, &selection, n)?;
        let mut rounded = Vec::new();
        dtype.encode(&mean, &mut rounded);
        Ok(convert(rounded, dtype, sent).into())
    };
    vec![Part::Computed { len: (width * sent.size()) as u64, tag, make: Arc::new(make) }]
}

/// The entry of a cache in the manifest.
fn describe(cache: &Cache, row_start: usize, n_rows: usize) -> Value {
    json!({
        "cache": cache.id.to_string(), "run": cache.run.to_string(), "item_index": cache.item_index, "model": cache.model,
        "label": cache.label, "tags": cache.tags, "metadata": cache.metadata, "text": cache.text,
        "n_tokens": cache.token_ids.len(), "row_start": row_start, "n_rows": n_rows,
    })
}

/// A part of an export.
#[derive(Default)]
pub struct Shard {
    /// Its caches.
    pub caches: Vec<Picked>,
    /// Their entries in the manifest, as JSON.
    entries: Vec<String>,
    /// Number of rows of all caches.
    pub n_rows: usize,
}

impl Shard {
    /// Gathers caches until the shard has about `max_bytes` of activations; `None` if there are no more. A cache that
    /// is larger becomes a shard by itself.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn next(
        pages: &mut CachePages,
        plan: &ExportPlan,
        sent: Dtype,
        max_bytes: u64,
    ) -> Result<Option<Self>, Problem> {
        let mut shard = Self::default();
        let (mut n_bytes, mut n_pieces, mut n_manifest) = (0u64, 0, 0);
        while let Some(cache) = pages.next().await? {
            let Some(picked) = plan.pick(&cache) else { continue };
            let n_rows = picked.rows.n_served();
            let entry = describe(&picked.cache.cache, shard.n_rows, n_rows).to_string();
            n_bytes += (n_rows * plan.row_bytes(sent)) as u64;
            n_pieces += picked.n_pieces() * plan.arrays.len();
            n_manifest += entry.len();
            let full = n_bytes > max_bytes
                || n_pieces > MAX_PIECES
                || n_manifest > MAX_MANIFEST
                || shard.n_rows + n_rows > MAX_ROWS
                || shard.caches.len() == MAX_CACHES;
            if full && !shard.caches.is_empty() {
                pages.give_back(picked.cache);
                return Ok(Some(shard));
            }
            shard.n_rows += n_rows;
            shard.entries.push(entry);
            shard.caches.push(picked);
        }
        Ok((!shard.caches.is_empty()).then_some(shard))
    }

    /// The manifest of this shard, as JSON.
    pub fn manifest(&self, plan: &ExportPlan, sent: Dtype) -> String {
        let mut head = arrays(plan, sent);
        head["n_rows"] = self.n_rows.into();
        head["n_caches"] = self.caches.len().into();
        let mut text = head.to_string();
        text.pop();
        text.push_str(",\"caches\":[");
        text.push_str(&self.entries.join(","));
        text.push_str("]}");
        text
    }

    /// One array, `[n_rows, …row]`.
    pub fn array(&self, array: usize, dtype: Dtype, sent: Dtype) -> Assembly {
        let mut assembly = Assembly::default();
        for picked in &self.caches {
            parts(picked, array, 0..picked.rows.n_served(), dtype, sent).into_iter().for_each(|p| assembly.push(p));
        }
        assembly
    }

    /// For each row the index of its cache in the manifest, its position and its token id, as int64; -1 if there is
    /// none.
    pub fn row_tables(&self) -> [(&'static str, Vec<u8>); 3] {
        let mut tables = [Vec::new(), Vec::new(), Vec::new()];
        tables.iter_mut().for_each(|t| t.reserve_exact(self.n_rows * 8));
        for (i, picked) in self.caches.iter().enumerate() {
            for row in 0..picked.rows.n_served() {
                let (position, token) = picked.row(row);
                let cells =
                    [i64::try_from(i).unwrap_or(-1), position.map_or(-1, i64::from), token.map_or(-1, i64::from)];
                tables.iter_mut().zip(cells).for_each(|(table, cell)| table.extend(cell.to_le_bytes()));
            }
        }
        let [cache, position, token] = tables;
        [("row_cache", cache), ("row_position", position), ("row_token_id", token)]
    }
}
