//! Making a new index from the headers of the blobs.
//!
//! A header says of each cache in it all that a completion said, so the same statements put it back. Keys, tenants, pins and
//! expiry are taken from the old index where it can still be read. What else only the index knew is lost: inputs that waited,
//! counts and tags of runs, directions, caches that were answered by stored rows since their pack was written, and edits since
//! then.

mod kept;
mod read_blob;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    sync::Arc,
};

use serde::Serialize;
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    blobs::{InFlight, LocalBlobs},
    blocking::blocking,
    error::StoreError,
    index::{
        connect::migrate,
        ids::Ids,
        rows::{hex, now, to_json},
        terms::Blocks,
        tx::Tx,
    },
    packs::{
        contents::{PackHeader, PackedCache},
        header::{BlobHeader, CacheEntry},
        insert::{CacheRow, Unit, insert_caches_at, insert_extents, insert_pack},
        pack_writer::FinishedPack,
    },
};
use residuum_domain::{CacheId, Hook, NewItem, PackId, RunId, TenantId};

/// Name of the index while it is made.
const UNFINISHED: &str = "rebuild.sqlite";

/// What [`Store::rebuild_index`] came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RebuildReport {
    /// Packs that the new index knows.
    pub n_packs: u64,
    /// Their activations.
    pub n_extents: u64,
    /// Their caches.
    pub n_caches: u64,
    /// Runs that these name.
    pub n_runs: u64,
    /// Activations whose header has no hash, so that their bytes were taken as they are.
    pub n_unhashed: u64,
    /// Activations that were left out because their bytes have changed.
    pub n_damaged: u64,
    /// Files that were moved to the folder `damaged`, the old index among them.
    pub n_set_aside: u64,
    /// What there is to say, in order.
    pub notes: Vec<String>,
}

impl fmt::Display for RebuildReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "rebuild: {note}")?;
        }
        let Self { n_packs, n_extents, n_caches, n_runs, n_unhashed, n_damaged, n_set_aside, .. } = self;
        if *n_unhashed > 0 {
            writeln!(
                f,
                "rebuild: {n_unhashed} extents are of an earlier version, whose headers have no hashes: their bytes were taken \
                 as they are"
            )?;
        }
        write!(
            f,
            "rebuilt the index: {n_runs} runs, {n_caches} caches, {n_extents} extents in {n_packs} packs; left out \
             {n_damaged} damaged extents, set {n_set_aside} files aside.\nNot in blobs, and lost: inputs that waited, runs' \
             tags and metadata, directions; since a pack was written: edits of its caches, deletions, and caches that reused \
             its rows"
        )
    }
}

/// Makes a new index for the data folder `dir` from its blobs, and sets the old one aside. Damaged blobs are set aside,
/// damaged activations left out. The old index, where it can be read, gives its API keys, tenants, pins and expiry.
pub(crate) async fn rebuild_index(dir: &Path) -> Result<RebuildReport, StoreError> {
    let dir = dir.to_owned();
    let blobs = Arc::new(blocking(move || LocalBlobs::open(&dir)).await?);
    let own = Arc::clone(&blobs);
    let listed = blocking(move || {
        let unknown: Vec<PackId> = own.list_unknown()?.into_iter().map(|(pack, _)| pack).collect();
        Ok((own.take_in(&unknown)?, own.list()?, own.scratch(UNFINISHED)?))
    });
    let (n_unknown, mut packs, path) = listed.await?;
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(true);
    let mut conn = options.disable_statement_logging().connect().await?;
    migrate(&mut conn).await?;
    let kept = kept::Kept::read(&blobs.index()).await;
    // A newer pack may hold what an older one did: rows that moved, and inputs that were computed again.
    packs.sort_unstable_by(|a, b| b.cmp(a));
    let mut rebuild = Rebuild {
        blobs: Arc::clone(&blobs),
        ids: Ids::default(),
        known: Known::default(),
        report: RebuildReport::default(),
    };
    let notes = &mut rebuild.report.notes;
    if n_unknown > 0 {
        notes.push(format!("{n_unknown} blobs that an index did not know were taken from the folder `unknown`"));
    }
    match &kept {
        Some(kept) => kept.enter_keys(&mut conn, notes).await?,
        None => {
            notes.push("there is no old index to take API keys from: make some before you serve this folder".to_owned())
        }
    }
    if let Some(kept) = &kept {
        rebuild.known.deleted = kept.enter_tombstones(&mut conn).await?;
    }
    for (pack, n_bytes) in packs {
        if rebuild.known.deleted.contains(pack.as_bytes()) {
            rebuild.report.notes.push(format!("pack {pack} was deleted; the next start removes it"));
        } else {
            rebuild.add(&mut conn, pack, n_bytes).await?;
        }
    }
    rebuild.finish_runs(&mut conn).await?;
    if let Some(kept) = &kept {
        kept.enter_lifetimes(&mut conn, &mut rebuild.report.notes).await?;
    }
    conn.close().await?;
    let mut report = rebuild.report;
    blocking(move || {
        for name in ["index.sqlite-wal", "index.sqlite-shm", "index.sqlite"] {
            if let Some(path) = blobs.set_aside(Path::new(name))? {
                report.n_set_aside += 1;
                report.notes.push(format!("the old {name} is {}", path.display()));
            }
        }
        blobs.rename(UNFINISHED, "index.sqlite")?;
        Ok(report)
    })
    .await
}

/// What is in the new index already.
#[derive(Default)]
struct Known {
    caches: HashSet<CacheId>,
    /// When they were stored: no two at one time.
    times: HashSet<i64>,
    /// With the hashes of their rows.
    items: HashMap<(RunId, u32), blake3::Hash>,
    runs: HashMap<RunId, TenantId>,
    /// Packs and runs that were deleted, as the old index says.
    deleted: HashSet<[u8; 16]>,
}

impl Known {
    /// Whether a cache is new and may be what it says.
    fn takes(&self, tenant: TenantId, entry: &CacheEntry<'_>) -> bool {
        !self.caches.contains(&entry.id)
            && !self.items.contains_key(&(entry.run, entry.item_index))
            && !self.deleted.contains(entry.run.as_bytes())
            && self.runs.get(&entry.run).is_none_or(|owner| *owner == tenant)
    }
}

struct Rebuild {
    blobs: Arc<LocalBlobs>,
    ids: Ids,
    known: Known,
    report: RebuildReport,
}

impl Rebuild {
    async fn add(&mut self, conn: &mut SqliteConnection, pack: PackId, n_bytes: u64) -> Result<(), StoreError> {
        let blobs = Arc::clone(&self.blobs);
        let read = match blocking(move || read_blob::read(&blobs, pack, n_bytes)).await {
            Ok(read) => read,
            Err(StoreError::Damaged { what }) => return self.set_aside(pack, &what).await,
            Err(other) => return Err(other),
        };
        let n_damaged = read.found.iter().filter(|f| f.is_none()).count() as u64;
        if n_damaged > 0 {
            self.report
                .notes
                .push(format!("pack {pack}: the bytes of {n_damaged} extents have changed; they are left out"));
        }
        self.report.n_damaged += n_damaged;
        self.report.n_unhashed += read.n_unhashed;
        let in_flight = self.blobs.adopt(pack);
        let mut tx = Tx::begin(conn, &mut self.ids, now(), &self.blobs.faults, false);
        let added = add_blob(&mut tx, read, in_flight, &mut self.known).await?;
        tx.later("COMMIT");
        tx.flush().await?;
        if added.caches == 0 {
            self.leave_out(conn, pack, added.differs, n_damaged > 0).await?;
        } else {
            self.report.n_packs += 1;
        }
        self.report.n_extents += added.extents;
        self.report.n_caches += added.caches;
        Ok(())
    }

    /// A pack of which nothing is needed. What is elsewhere too, the next start removes; what differs is kept.
    async fn leave_out(
        &mut self,
        conn: &mut SqliteConnection,
        pack: PackId,
        differs: bool,
        damaged: bool,
    ) -> Result<(), StoreError> {
        if damaged {
            return self.set_aside(pack, &format!("pack {pack} holds nothing else that is not elsewhere")).await;
        }
        let note = if differs {
            let blobs = Arc::clone(&self.blobs);
            let path = blocking(move || blobs.set_unknown_aside(pack)).await?.unwrap_or_default();
            self.report.n_set_aside += 1;
            format!(
                "pack {pack} holds inputs that a newer one holds with other numbers; it was moved to {}",
                path.display()
            )
        } else {
            let delete = sqlx::query("INSERT OR IGNORE INTO tombstones (id, kind) VALUES (?, 'pack')");
            delete.bind(pack.as_bytes().as_slice()).execute(conn).await?;
            format!("pack {pack} holds nothing that is not elsewhere; the next start removes it")
        };
        self.report.notes.push(note);
        Ok(())
    }

    async fn set_aside(&mut self, pack: PackId, why: &str) -> Result<(), StoreError> {
        let blobs = Arc::clone(&self.blobs);
        let path = blocking(move || blobs.set_pack_aside(pack)).await?.unwrap_or_default();
        self.report.n_set_aside += 1;
        self.report.notes.push(format!("{why}; it was moved to {}", path.display()));
        Ok(())
    }

    /// Counts what runs have.
    async fn finish_runs(&mut self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        self.report.n_runs = self.known.runs.len() as u64;
        sqlx::query(
            "UPDATE runs SET n_items = c.n, n_done = c.n, n_reused = c.n_reused, generates = c.generates, \
                 finished_at = c.last FROM (SELECT run_id, count(*) AS n, sum(reused) AS n_reused, \
                     max(completion IS NOT NULL) AS generates, max(created_at) AS last FROM caches GROUP BY run_id) c \
             WHERE c.run_id = runs.id",
        )
        .execute(&mut *conn)
        .await?;
        Ok(())
    }
}

/// What of a blob came into the index.
#[derive(Default)]
struct Added {
    extents: u64,
    caches: u64,
    /// Whether it holds rows of an input that another blob holds with other bytes.
    differs: bool,
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

async fn add_blob(
    tx: &mut Tx<'_>,
    blob: read_blob::ReadBlob,
    in_flight: InFlight,
    known: &mut Known,
) -> Result<Added, StoreError> {
    let read_blob::ReadBlob { header, layout, n_bytes, found, .. } = blob;
    let BlobHeader { front, data_start, caches, .. } = header;
    let rows: HashMap<usize, usize> = layout.items.iter().enumerate().map(|(i, s)| (s.row_start, i)).collect();
    let mut keys: Vec<Option<[u8; 32]>> = vec![None; layout.items.len()];
    let mut entries: Vec<Entry> = Vec::new();
    let mut first: Vec<Option<NewItem>> = vec![None; layout.items.len()];
    let mut differs = false;
    for entry in caches {
        let Some(&i) = rows.get(&entry.row_start) else { continue };
        keys[i] = entry.forward_key.as_deref().and_then(key_of);
        let hash = found[i].as_ref().map(|(hash, _)| *hash);
        let takes = hash.filter(|_| known.takes(front.tenant, &entry));
        let other = known.items.get(&(entry.run, entry.item_index)).zip(hash);
        differs |= takes.is_none()
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
                tx.ease().await?;
            }
            first[i].get_or_insert_with(|| entry.item.clone());
            entries.push(entry);
        } else if first[i].is_none() {
            first[i] = Some(entry.item);
        }
    }
    if entries.is_empty() {
        return Ok(Added { differs, ..Added::default() });
    }
    let mut used: Vec<usize> = entries.iter().map(|e| e.rows).collect();
    used.sort_unstable();
    used.dedup();
    // the statements of a completion want a pack as a completion has it
    let zero = blake3::Hash::from_bytes([0; 32]);
    let (hashes, stats) = found.into_iter().map(|f| f.unwrap_or((zero, Vec::new()))).unzip();
    let packed = first.into_iter().zip(&keys).enumerate().filter_map(|(i, (item, key))| {
        let any = entries.iter().find(|e| e.rows == i).or(entries.first())?;
        let (cache, run, item_index) = (any.id, any.run, any.item_index);
        Some(PackedCache { cache, run, item_index, item: item?, forward_key: *key })
    });
    let caches: Vec<PackedCache> = packed.collect();
    let pack = FinishedPack {
        header: PackHeader {
            id: front.pack,
            tenant: front.tenant,
            model: front.model,
            n_layers: front.n_layers,
            d_model: front.d_model,
            provenance: front.provenance,
            capture: front.capture,
            layout,
            caches,
        },
        data_start,
        n_bytes,
        hashes,
        stats,
        _in_flight: in_flight,
    };
    insert_pack(tx, &pack).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM extents").fetch_one(tx.conn().await?).await?;
    let ids: Vec<(usize, i64)> = used.iter().copied().zip(last.unwrap_or(0) + 1..).collect();
    insert_extents(tx, &pack, &ids).await?;
    let keyless: Vec<i64> = ids.iter().filter(|(i, _)| keys[*i].is_none()).map(|(_, id)| *id).collect();
    tx.later("UPDATE extents SET forward_key = NULL WHERE id IN (SELECT value FROM json_each(?))")
        .bind(to_json(&keyless)?);
    insert_entries(tx, front.tenant, &entries, &ids.into_iter().collect()).await?;
    Ok(Added { extents: used.len() as u64, caches: entries.len() as u64, differs })
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
    let blocks = Blocks::find(tx).await?;
    insert_caches_at(tx, blocks, &caches, &times).await?;
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
