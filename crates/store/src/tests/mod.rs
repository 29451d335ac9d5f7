//! Tests of the store, with real files.

mod backup;
mod caches;
mod compact;
mod crash;
mod damage;
mod deleting;
mod directions;
mod faults;
mod finding;
mod flips;
mod full;
mod imports;
mod keys;
mod loaded_before;
mod old;
mod ordering;
mod packs;
mod plans;
mod rebuild;
mod repair;
mod retention;
mod reuse;
mod runs;
mod scan;
mod unknown;
mod verify;
mod waiting;
mod walk;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::*;
use crate::index::{readers::Reader, write::Write};
pub(super) use crate::testing::{capture, files, header, item, key, object, provenance, value};
use residuum_domain::*;

pub(super) const T: TenantId = TenantId::DEFAULT;
pub(super) const RESID: &str = "blocks.0.hook_resid_post";
pub(super) const PATTERN: &str = "blocks.0.attn.hook_pattern";
pub(super) const QUERY: &str = "blocks.0.attn.hook_q";

impl Store {
    pub(super) async fn reader(&self) -> Result<Reader, StoreError> {
        self.index().reader().await
    }

    pub(super) async fn write<W: Write>(&self, change: W) -> Result<W::Output, StoreError> {
        self.index().write(change).await
    }

    pub(super) fn commits(&self) -> u64 {
        self.index().commits().unwrap_or(0)
    }
}

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

    /// A store that keeps the files of deleted caches so long for their readers.
    pub(super) async fn keeping(time: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep_deleted = KeepDeleted { time, ..KeepDeleted::default() };
        let options = StoreOptions { keep_deleted, ..StoreOptions::default() };
        let store = Store::open_with(dir.path(), options).await.unwrap();
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

    /// The caches of a new run in one pack.
    pub(super) async fn stored_together(&self, items: Vec<NewItem>) -> Vec<CacheId> {
        let id = self.submit(items.clone()).await;
        let (pack, caches) = self.pack(id, (0..).zip(items).collect());
        self.complete(pack).await;
        caches
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

/// Every cache as clients see it, with the bytes of its tensors.
pub(super) type Everything = BTreeMap<CacheId, (Cache, Vec<Vec<u8>>)>;

/// What a store holds for a tenant; every byte was checked.
pub(super) async fn everything(store: &Store, tenant: TenantId) -> Everything {
    let mut all = Everything::new();
    for cache in store.caches(tenant, &CacheFilter::default(), None, 100_000).await.unwrap() {
        let stored = store.stored(tenant, &[cache.id]).await.unwrap().remove(0).unwrap();
        stored.check(store).await.unwrap();
        let parts: Vec<_> = (0..cache.capture.hooks.len()).map(|h| (h, 0..stored.elements(h))).collect();
        let bytes = stored.read_many(store, &parts).await.unwrap();
        all.insert(cache.id, (cache, bytes));
    }
    all
}

/// Items of every sort that fit one pack: rows of all lengths, maps, means, one that was continued, one with fewer hooks.
pub(super) fn variety(dtype: Dtype) -> Vec<NewItem> {
    let all = |positions| capture(&[PATTERN, QUERY, RESID], positions, dtype);
    let range = Positions::Range { start: Some(1), end: None };
    let mut items = vec![
        item(&[1, 2, 3], all(Positions::All)),
        item(&[4, 5, 6, 7], all(Positions::List(vec![-1, 0, 0]))),
        item(&[8, 9], all(Positions::Mean)),
        item(&[10, 11, 12], all(range)),
        item(&[13, 14, 15], all(Positions::Last)),
    ];
    items[1].text = None;
    items[1].tags.clear();
    items[2].label = None;
    items[3].completion = Some(TextCompletion {
        first: 1,
        text: "and so on".to_owned(),
        finish_reason: FinishReason::Stop,
        generation: Generation {
            max_new_tokens: 9,
            temperature: 0.5,
            top_k: Some(3),
            top_p: None,
            seed: u64::MAX,
            stop: vec![
                "
"
                .to_owned(),
            ],
            sample: 2,
            n: 3,
        },
        logprobs: vec![-0.25, -7.5],
    });
    items
}

impl Fixture {
    /// Stores [`variety`] in one pack, and each again in one of its own, the last with fewer hooks; one is answered by what is
    /// stored. Gives the runs.
    pub(super) async fn varied(&self, dtype: Dtype) -> Vec<RunId> {
        let items = variety(dtype);
        let together = self.submit(items.clone()).await;
        let (pack, _) = self.pack(together, (0..).zip(items.clone()).collect());
        self.complete(pack).await;
        let (alone, _) = self.stored(items.clone()).await;
        let less = item(&[13, 14, 15], capture(&[PATTERN], Positions::Last, dtype));
        let narrow = self.submit(vec![less.clone()]).await;
        let mut header = header(narrow, vec![(0, items[4].clone())]);
        header.caches[0].item = less.clone();
        self.complete(write(&self.store, header)).await;
        let reusing = self.reusing(&less).await;
        vec![together, alone, narrow, reusing]
    }

    /// A run whose one input is answered by what is stored.
    pub(super) async fn reusing(&self, item: &NewItem) -> RunId {
        let run = self.submit(vec![item.clone()]).await;
        let want = Wanted { forward_key: key(item), capture: item.capture.clone(), n_tokens: item.token_ids.len() };
        let found = self.store.find_reusable(T, &[want]).await.unwrap().remove(0);
        let Some(Reusable::Extent(extent)) = found else { panic!("nothing to reuse") };
        let reused = vec![ReusedCache { extent, cache: CacheId::generate(), run, item_index: 0, item: item.clone() }];
        assert_eq!(self.store.complete(Completion { reused, ..Completion::default() }).await.unwrap(), [run]);
        run
    }

    pub(super) async fn assert_clean(&self) {
        let report = self.store.verify().await.unwrap();
        assert!(report.is_clean(), "{report}");
        let packs = self.store.stats().await.unwrap().n_packs;
        assert_eq!(packs as usize, self.files().len(), "files that nobody knows");
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
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

/// An item with one hook at its last token.
pub(super) fn simple(token_ids: &[u32]) -> NewItem {
    item(token_ids, capture(&[RESID], Positions::Last, Dtype::Float32))
}

pub(super) fn run(items: Vec<NewItem>) -> NewRun {
    NewRun {
        tenant: T,
        model: "tiny".to_owned(),
        reuse: true,
        priority: Priority::Normal,
        tags: vec!["run".to_owned(), "run".to_owned(), "a".to_owned()],
        metadata: object(serde_json::json!({"who": "me"})),
        ttl_seconds: None,
        items,
        idempotency: None,
        edits: None,
    }
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
