//! Entering one blob in the new index, by the statements of a completion.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::read_blob::ReadBlob;
use crate::{
    blobs::InFlight,
    error::StoreError,
    index::{
        rows::{hex, to_json},
        terms::Partitions,
        tx::Tx,
    },
    packs::{
        contents::{PackHeader, PackedCache},
        header::{BlobHeader, CacheEntry, Front},
        insert::{CacheRow, Unit, insert_caches_at, insert_extents, insert_pack},
        pack_writer::FinishedPack,
    },
};
use residuum_domain::{CacheId, Hook, NewItem, PackLayout, RunId, TenantId, TensorStats};

/// What is in the new index already.
#[derive(Default)]
pub(super) struct Known {
    caches: HashSet<CacheId>,
    /// When they were stored: no two at one time.
    times: HashSet<i64>,
    /// With the hashes of their rows.
    items: HashMap<(RunId, u32), blake3::Hash>,
    pub(super) runs: HashMap<RunId, TenantId>,
    /// Packs and runs that were deleted, as the old index says.
    pub(super) deleted: HashSet<[u8; 16]>,
}

impl Known {
    /// Whether a cache is new and contradicts nothing.
    fn takes(&self, tenant: TenantId, entry: &CacheEntry<'_>) -> bool {
        !self.caches.contains(&entry.id)
            && !self.items.contains_key(&(entry.run, entry.item_index))
            && !self.deleted.contains(entry.run.as_bytes())
            && self.runs.get(&entry.run).is_none_or(|owner| *owner == tenant)
    }
}

/// How much of a blob was entered in the index.
#[derive(Default)]
pub(super) struct Added {
    pub(super) extents: u64,
    pub(super) caches: u64,
    /// Whether it holds rows of an input that another blob holds with other bytes.
    pub(super) differs: bool,
}

/// A cache of a blob, ready to be inserted.
struct Entry {
    id: CacheId,
    run: RunId,
    item_index: u32,
    model: String,
    created_at: i64,
    reused: bool,
    /// Index of its rows among the items of the layout.
    rows: usize,
    item: NewItem,
}

/// The part of a blob that is to be entered.
struct Chosen {
    entries: Vec<Entry>,
    /// One for each item of the layout.
    keys: Vec<Option<[u8; 32]>>,
    /// One for each item of the layout: the input of a cache that has its rows.
    inputs: Vec<Option<NewItem>>,
    /// See [`Added`].
    differs: bool,
}

/// Enters what the new index does not have of a blob.
///
/// # Errors
/// [`StoreError::Database`], [`StoreError::Full`].
pub(super) async fn add_blob(
    tx: &mut Tx<'_>,
    blob: ReadBlob,
    in_flight: InFlight,
    known: &mut Known,
) -> Result<Added, StoreError> {
    let ReadBlob { header, layout, n_bytes, found, .. } = blob;
    let BlobHeader { front, data_start, caches, .. } = header;
    let Chosen { entries, keys, inputs, differs } = choose(tx, &front, &layout, caches, &found, known).await?;
    if entries.is_empty() {
        return Ok(Added { differs, ..Added::default() });
    }
    let mut used: Vec<usize> = entries.iter().map(|e| e.rows).collect();
    used.sort_unstable();
    used.dedup();
    // the statements of a completion take a pack as a completion has it
    let zero = blake3::Hash::from_bytes([0; 32]);
    let (hashes, stats) = found.into_iter().map(|f| f.unwrap_or((zero, Vec::new()))).unzip();
    let packed = inputs.into_iter().zip(&keys).enumerate().filter_map(|(i, (item, key))| {
        let any = entries.iter().find(|e| e.rows == i).or(entries.first())?;
        let (cache, run, item_index) = (any.id, any.run, any.item_index);
        Some(PackedCache { cache, run, item_index, item: item?, forward_key: *key })
    });
    let caches: Vec<PackedCache> = packed.collect();
    let Front { pack: id, tenant, model, n_layers, d_model, provenance, capture, .. } = front;
    let header = PackHeader { id, tenant, model, n_layers, d_model, provenance, capture, layout, caches };
    let pack = FinishedPack { header, data_start, n_bytes, hashes, stats, _in_flight: in_flight };
    insert_pack(tx, &pack).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM extents").fetch_one(tx.conn().await?).await?;
    let ids: Vec<(usize, i64)> = used.iter().copied().zip(last.unwrap_or(0) + 1..).collect();
    insert_extents(tx, &pack, &ids).await?;
    let keyless: Vec<i64> = ids.iter().filter(|(i, _)| keys[*i].is_none()).map(|(_, id)| *id).collect();
    tx.later("UPDATE extents SET forward_key = NULL WHERE id IN (SELECT value FROM json_each(?))")
        .bind(to_json(&keyless)?);
    insert_entries(tx, tenant, &entries, &ids.into_iter().collect()).await?;
    Ok(Added { extents: used.len() as u64, caches: entries.len() as u64, differs })
}

/// Chooses the caches of a blob that are new, and enters their runs.
async fn choose(
    tx: &mut Tx<'_>,
    front: &Front,
    layout: &PackLayout,
    caches: Vec<CacheEntry<'static>>,
    found: &[Option<(blake3::Hash, Vec<TensorStats>)>],
    known: &mut Known,
) -> Result<Chosen, StoreError> {
    let n = layout.items.len();
    let rows: HashMap<usize, usize> = layout.items.iter().enumerate().map(|(i, s)| (s.row_start, i)).collect();
    let mut chosen = Chosen { entries: Vec::new(), keys: vec![None; n], inputs: vec![None; n], differs: false };
    for entry in caches {
        let Some(&i) = rows.get(&entry.row_start) else { continue };
        chosen.keys[i] = entry.forward_key.as_deref().and_then(key_of);
        let hash = found[i].as_ref().map(|(hash, _)| *hash);
        let takes = hash.filter(|_| known.takes(front.tenant, &entry));
        let other = known.items.get(&(entry.run, entry.item_index)).zip(hash);
        chosen.differs |= takes.is_none()
            && !known.deleted.contains(entry.run.as_bytes())
            && other.map_or(hash.is_some(), |(theirs, own)| *theirs != own);
        let mut entry = read_entry(entry, i, &front.model, &layout.hooks);
        if let Some(hash) = takes {
            known.caches.insert(entry.id);
            while !known.times.insert(entry.created_at) {
                entry.created_at += 1;
            }
            known.items.insert((entry.run, entry.item_index), hash);
            if known.runs.insert(entry.run, front.tenant).is_none() {
                insert_run(tx, front.tenant, &entry);
                tx.flush_if_large().await?;
            }
            chosen.inputs[i].get_or_insert_with(|| entry.item.clone());
            chosen.entries.push(entry);
        } else if chosen.inputs[i].is_none() {
            chosen.inputs[i] = Some(entry.item);
        }
    }
    Ok(chosen)
}

fn read_entry(entry: CacheEntry<'static>, rows: usize, model: &str, hooks: &Arc<[Hook]>) -> Entry {
    let hooks = entry.hooks.map_or_else(|| Arc::clone(hooks), Into::into);
    Entry {
        id: entry.id,
        run: entry.run,
        item_index: entry.item_index,
        model: entry.model.unwrap_or_else(|| model.to_owned()),
        created_at: entry.created_at.unwrap_or_else(|| made_at(entry.id.as_bytes())),
        reused: entry.reused,
        rows,
        item: entry.item.into_item(hooks),
    }
}

/// Inserts caches with their times, and the inputs that they answered.
async fn insert_entries(
    tx: &mut Tx<'_>,
    tenant: TenantId,
    entries: &[Entry],
    extents: &HashMap<usize, i64>,
) -> Result<(), StoreError> {
    let caches: Vec<CacheRow<'_>> = entries
        .iter()
        .map(|e| CacheRow {
            id: e.id,
            run: e.run,
            item_index: e.item_index,
            item: &e.item,
            extent: extents.get(&e.rows).copied().unwrap_or(0),
            reused: e.reused,
            unit: Unit { row: 0, tenant, model: e.model.as_str().into(), ttl: None },
        })
        .collect();
    let times: Vec<i64> = entries.iter().map(|e| e.created_at).collect();
    let partitions = Partitions::find(tx).await?;
    insert_caches_at(tx, partitions, &caches, &times).await?;
    let items: Vec<(String, u32)> = entries.iter().map(|e| (hex(e.run.as_bytes()), e.item_index)).collect();
    tx.later(
        "INSERT INTO run_items (run_id, item_index, status) \
         SELECT unhex(value ->> 0), value ->> 1, 'done' FROM json_each(?)",
    )
    .bind(to_json(&items)?);
    Ok(())
}

/// A run of which only caches are known; they are counted at the end.
fn insert_run(tx: &mut Tx<'_>, tenant: TenantId, of: &Entry) {
    tx.later(
        "INSERT INTO runs (id, tenant_id, status, model, reuse, n_items, metadata, created_at, started_at, finished_at, \
             imported) \
         VALUES (?, ?, 'completed', ?, 1, 1, '{}', ?, ?, ?, ?)",
    )
    .bind(of.run.as_bytes().as_slice())
    .bind(tenant.0)
    .bind(&of.model)
    .bind(made_at(of.run.as_bytes()))
    .bind(made_at(of.run.as_bytes()))
    .bind(of.created_at)
    .bind(of.item.origin.is_some());
}

/// When an id was made, in microseconds: a UUIDv7 begins with milliseconds.
fn made_at(id: &[u8; 16]) -> i64 {
    id[..6].iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte)) * 1000
}

fn key_of(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}
