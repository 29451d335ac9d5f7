//! Tests of the store, with real files.

mod caches;
mod crash;
mod directions;
mod packs;
mod reuse;
mod runs;
mod scan;
mod verify;
mod walk;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tempfile::TempDir;

use super::*;
use crate::domain::*;

pub(super) const T: TenantId = TenantId::DEFAULT;
pub(super) const RESID: &str = "blocks.0.hook_resid_post";
pub(super) const PATTERN: &str = "blocks.0.attn.hook_pattern";
pub(super) const QUERY: &str = "blocks.0.attn.hook_q";

/// A store in a folder of its own.
pub(super) struct Fixture {
    pub(super) dir: TempDir,
    pub(super) store: Store,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        Self { dir, store }
    }

    /// Blob files, unfinished ones among them.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        files(self.dir.path())
    }

    /// A store opened on the folder as a process that is killed now would leave it.
    pub(super) async fn after_crash(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(self.dir.path(), dir.path());
        let store = Store::open(dir.path()).await.unwrap();
        Self { dir, store }
    }

    pub(super) async fn submit(&self, items: Vec<NewItem>) -> RunId {
        match self.store.insert_run(run(items)).await.unwrap() {
            Inserted::Created(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Queues items and completes them, each in a pack of its own.
    pub(super) async fn stored(&self, items: Vec<NewItem>) -> (RunId, Vec<CacheId>) {
        let id = self.submit(items.clone()).await;
        let mut caches = Vec::new();
        for (i, item) in (0..).zip(items) {
            let (pack, cache) = self.pack(id, vec![(i, item)]);
            self.complete(pack).await;
            caches.extend(cache);
        }
        (id, caches)
    }

    pub(super) fn pack(&self, run: RunId, items: Vec<(u32, NewItem)>) -> (FinishedPack, Vec<CacheId>) {
        let header = header(run, items);
        let caches = header.caches.iter().map(|c| c.cache).collect();
        (write(&self.store, header), caches)
    }

    pub(super) async fn complete(&self, pack: FinishedPack) -> Vec<RunId> {
        self.store.complete(Completion { pack: Some(pack), ..Completion::default() }).await.unwrap()
    }

    pub(super) async fn run(&self, id: RunId) -> Run {
        self.store.run(T, id).await.unwrap().unwrap()
    }

    pub(super) async fn cache(&self, id: CacheId) -> Cache {
        self.store.cache(T, id).await.unwrap().unwrap()
    }
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(dir.join("blobs")).unwrap();
    folders.flat_map(|f| fs::read_dir(f.unwrap().path()).unwrap()).map(|f| f.unwrap().path()).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (entry, target) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub(super) fn capture(hooks: &[&str], positions: Positions, dtype: Dtype) -> Capture {
    let mut hooks: Vec<Hook> = hooks.iter().map(|h| h.parse().unwrap()).collect();
    hooks.sort();
    Capture { hooks: hooks.into(), positions, dtype }
}

pub(super) fn item(token_ids: &[u32], capture: Capture) -> NewItem {
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
        interventions: Vec::new(),
    }
}

/// An item with one hook at its last token.
pub(super) fn simple(token_ids: &[u32]) -> NewItem {
    item(token_ids, capture(&[RESID], Positions::Last, Dtype::Float32))
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

pub(super) fn run(items: Vec<NewItem>) -> NewRun {
    NewRun {
        tenant: T,
        model: "tiny".to_owned(),
        reuse: true,
        priority: Priority::Normal,
        tags: vec!["run".to_owned(), "run".to_owned(), "a".to_owned()],
        metadata: object(serde_json::json!({"who": "me"})),
        items,
        idempotency: None,
        edits: None,
    }
}

pub(super) fn provenance() -> Provenance {
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

pub(super) fn key(item: &NewItem) -> [u8; 32] {
    let bytes: Vec<u8> = item.token_ids.iter().flat_map(|t| t.to_le_bytes()).collect();
    *blake3::hash(&bytes).as_bytes()
}

/// A pack of items that capture the same hooks: residual width 4, two heads of 3.
pub(super) fn header(run: RunId, items: Vec<(u32, NewItem)>) -> PackHeader {
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
        tenant: T,
        model: "tiny".to_owned(),
        n_layers: 3,
        d_model: 4,
        provenance: provenance(),
        layout: PackLayout::new(common.hooks.clone(), row_shapes, common.dtype, &spans),
        capture: common,
        caches: items
            .into_iter()
            .map(|(item_index, item)| {
                let forward_key = key(&item);
                PackedCache { cache: CacheId::generate(), run, item_index, item, forward_key }
            })
            .collect(),
    }
}

/// What element `e` of the tensor of hook `h` is in these tests: exact in every dtype.
pub(super) fn value(h: usize, e: usize) -> f32 {
    ((h * 31 + e * 7) % 251) as f32 - 125.0
}

/// Writes a pack hook by hook, item by item.
pub(super) fn write(store: &Store, header: PackHeader) -> FinishedPack {
    let layout = header.layout.clone();
    let mut writer = store.begin_pack(header).unwrap();
    for h in 0..layout.hooks.len() {
        for i in 0..layout.items.len() {
            let values: Vec<f32> = layout.elements(h, i..i + 1).map(|e| value(h, e)).collect();
            writer.write(h, i..i + 1, &values).unwrap();
        }
    }
    writer.finish().unwrap()
}
