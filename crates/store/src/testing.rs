//! Items, captures and packs for tests of this crate and of those above it.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{PackHeader, PackedCache};
use residuum_domain::{
    BosDecision, CacheId, Capture, Dtype, Hook, NewItem, PackId, PackLayout, Positions, Provenance, Rows, RunId, Site,
    TenantId,
};

/// The blob files below the data folder `dir`, unfinished ones among them.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(dir.join("blobs")).unwrap();
    folders.flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap()).map(|f| f.unwrap().path()).collect()
}

/// A capture of `hooks`, in their canonical order.
pub fn capture(hooks: &[&str], positions: Positions, dtype: Dtype) -> Capture {
    let mut hooks: Vec<Hook> = hooks.iter().map(|h| h.parse().unwrap()).collect();
    hooks.sort();
    Capture { hooks: hooks.into(), positions, dtype }
}

/// An item with every field set.
pub fn item(token_ids: &[u32], capture: Capture) -> NewItem {
    NewItem {
        token_ids: token_ids.to_vec(),
        tokens: token_ids.iter().map(|t| format!("<{t}>")).collect(),
        text: Some(format!("Text of {token_ids:?} \u{e9}\0\u{1f600} end")),
        capture,
        bos: BosDecision { requested: None, present: true, added: true, token_id: Some(0) },
        n_truncated: 2,
        tags: vec!["zulu".to_owned(), "alpha".to_owned()],
        metadata: object(serde_json::json!({"n": 0.1, "deep": {"a": [1, null]}})),
        label: Some("label".to_owned()),
        generation: None,
        unsettled: None,
        completion: None,
        origin: None,
        interventions: Vec::new(),
    }
}

/// The object that `value` is.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

/// Provenance of a model that does not exist.
pub fn provenance() -> Provenance {
    Provenance {
        model_fingerprint: "f".to_owned(),
        architecture: "llama".to_owned(),
        weights_dtype: "bfloat16".to_owned(),
        compute_dtype: "float32".to_owned(),
        device: "cpu".to_owned(),
        residuum_version: "0.1.0".to_owned(),
        numerics_version: 1,
    }
}

/// The forward key that these tests give an item.
pub fn key(item: &NewItem) -> [u8; 32] {
    let bytes: Vec<u8> = item.token_ids.iter().flat_map(|t| t.to_le_bytes()).collect();
    *blake3::hash(&bytes).as_bytes()
}

/// A pack of items that capture the same hooks: residual width 4, two heads of 3.
pub fn header(run: RunId, items: Vec<(u32, NewItem)>) -> PackHeader {
    let common = items[0].1.capture.clone();
    let shape = |h: &Hook| match h.site() {
        Site::Pattern | Site::AttnScores => vec![2],
        Site::Q => vec![2, 3],
        _ => vec![4],
    };
    let rows: Vec<Rows> = items.iter().map(|(_, i)| i.capture.positions.resolve(i.token_ids.len()).unwrap()).collect();
    let spans: Vec<(usize, &Rows)> = items.iter().zip(&rows).map(|((_, i), r)| (i.token_ids.len(), r)).collect();
    let row_shapes = common.hooks.iter().map(shape).collect();
    PackHeader {
        id: PackId::generate(),
        tenant: TenantId::DEFAULT,
        model: "tiny".to_owned(),
        n_layers: 3,
        d_model: 4,
        provenance: provenance(),
        layout: PackLayout::new(common.hooks.clone(), row_shapes, common.dtype, &spans),
        capture: common,
        caches: items
            .into_iter()
            .map(|(item_index, item)| {
                let forward_key = Some(key(&item));
                PackedCache { cache: CacheId::generate(), run, item_index, item, forward_key }
            })
            .collect(),
    }
}

/// What element `e` of the tensor of hook `h` is in these tests: exact in every dtype.
pub fn value(h: usize, e: usize) -> f32 {
    ((h * 31 + e * 7) % 251) as f32 - 125.0
}
