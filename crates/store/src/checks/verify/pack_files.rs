//! Comparing packs as the index describes them with their files.

use std::{collections::HashMap, fs::File, sync::Arc};

use super::contradictions::advance;
use crate::{
    blobs::LocalBlobs,
    error::StoreError,
    index::{
        SqliteIndex,
        intern::{Layout, Origin},
        rows::{Fields, hex, pack_id},
    },
    packs::{
        header::{self, BlobHeader},
        location::{PackDims, hash},
        sub_batch::count_special,
    },
};
use residuum_domain::{CacheId, Dtype, Hook, ItemSpan, PackId, Positions, Provenance, RunId, TenantId, TensorStats};

/// Packs looked up at a time.
const PAGE: i64 = 64;

/// A pack as the index has it.
pub(crate) struct PackRow {
    pub(crate) id: PackId,
    tenant: TenantId,
    layout: Arc<Layout>,
    dtype: Dtype,
    data_start: u64,
    dims: PackDims,
    pub(super) n_bytes: u64,
    pub(crate) extents: Vec<ExtentRow>,
}

/// An extent as the index has it.
pub(crate) struct ExtentRow {
    pub(crate) id: i64,
    span: ItemSpan,
    positions: Positions,
    origin: Arc<Origin>,
    /// Hexadecimal.
    forward_key: Option<String>,
    content_hash: blake3::Hash,
    /// One for each hook; `None`: all values are finite.
    stats: Option<Vec<TensorStats>>,
    caches: Vec<CacheRow>,
}

/// What a header says of a cache too.
struct CacheRow {
    id: CacheId,
    run: RunId,
    item_index: u32,
    hooks: Arc<[Hook]>,
    token_ids: Vec<u8>,
    text: Option<String>,
    /// JSON
    tokens: String,
}

/// What is wrong with the file of a pack.
#[derive(Debug, Default)]
pub(crate) struct PackFaults {
    pub(crate) issues: Vec<String>,
    /// Extents whose bytes are not what they were.
    pub(crate) lost: Vec<i64>,
}

impl PackFaults {
    pub(crate) fn is_empty(&self) -> bool {
        self.issues.is_empty()
    }

    fn add(&mut self, issue: impl Into<String>) {
        self.issues.push(issue.into());
    }
}

impl SqliteIndex {
    /// The packs behind `last`, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`] for rows that make no sense, [`StoreError::IndexDamaged`] where they are
    /// out of order: so a walk over all packs ends.
    pub(crate) async fn packs_after(&self, last: Option<PackId>) -> Result<Vec<PackRow>, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let rows = sqlx::query(
            "SELECT id, tenant_id, layout_id, dtype, data_start, n_rows, n_map, n_bytes FROM packs WHERE id > ? \
             ORDER BY id LIMIT +?",
        )
        .bind(last.map_or_else(Vec::new, |id| id.as_bytes().to_vec()))
        .bind(PAGE)
        .fetch_all(&mut *snapshot)
        .await?;
        let mut packs = Vec::with_capacity(rows.len());
        let mut before = last;
        for row in &rows {
            let f = Fields::of("packs", row);
            let id = pack_id(&f, "id")?;
            before = advance(before, Some(id))?;
            let extents = sqlx::query(
                "SELECT id, provenance_id, positions, n_tokens, n_rows, row_start, map_start, forward_key, content_hash, stats \
                 FROM extents WHERE pack_id = ? ORDER BY row_start",
            )
            .bind(id.as_bytes().as_slice())
            .fetch_all(&mut *snapshot)
            .await?;
            let mut pack = PackRow {
                id,
                tenant: TenantId(f.get("tenant_id")?),
                layout: self.memo().layout(&mut snapshot, f.get("layout_id")?).await?,
                dtype: f.read("dtype", |d: &str| d.parse().ok())?,
                data_start: f.uint("data_start")?,
                dims: PackDims { n_rows: f.uint("n_rows")?, n_map: f.uint("n_map")? },
                n_bytes: f.uint("n_bytes")?,
                extents: Vec::with_capacity(extents.len()),
            };
            for row in &extents {
                let origin = Fields::of("extents", row).get("provenance_id")?;
                let origin = self.memo().origin(&mut snapshot, origin).await?;
                pack.extents.push(ExtentRow::decode(row, origin)?);
            }
            self.add_caches(&mut snapshot, &mut pack).await?;
            packs.push(pack);
        }
        Ok(packs)
    }

    async fn add_caches(&self, conn: &mut sqlx::SqliteConnection, pack: &mut PackRow) -> Result<(), StoreError> {
        let rows = sqlx::query(
            "SELECT e.id AS extent_id, c.id, c.run_id, c.item_index, c.hook_set_id, c.token_ids, c.text, c.tokens FROM extents e \
             CROSS JOIN caches c ON c.extent_id = e.id WHERE e.pack_id = ?",
        )
        .bind(pack.id.as_bytes().as_slice())
        .fetch_all(&mut *conn)
        .await?;
        let places: HashMap<i64, usize> = pack.extents.iter().enumerate().map(|(i, e)| (e.id, i)).collect();
        for row in &rows {
            let f = Fields::of("caches", row);
            let cache = CacheRow {
                id: f.read("id", CacheId::from_slice)?,
                run: f.read("run_id", RunId::from_slice)?,
                item_index: f.uint("item_index")?,
                hooks: self.memo().hooks(&mut *conn, f.get("hook_set_id")?).await?,
                token_ids: f.get("token_ids")?,
                text: f.get("text")?,
                tokens: f.get("tokens")?,
            };
            if let Some(place) = places.get(&f.get("extent_id")?) {
                pack.extents[*place].caches.push(cache);
            }
        }
        Ok(())
    }
}

impl ExtentRow {
    fn decode(row: &sqlx::sqlite::SqliteRow, origin: Arc<Origin>) -> Result<Self, StoreError> {
        let f = Fields::of("extents", row);
        let key: Option<&[u8]> = f.get("forward_key")?;
        Ok(Self {
            id: f.get("id")?,
            span: ItemSpan {
                n_tokens: f.uint("n_tokens")?,
                n_rows: f.uint("n_rows")?,
                row_start: f.uint("row_start")?,
                map_start: f.uint("map_start")?,
            },
            positions: f.json("positions")?,
            origin,
            forward_key: key.map(hex),
            content_hash: f.read("content_hash", |h: &[u8]| blake3::Hash::from_slice(h).ok())?,
            stats: f.opt_json("stats")?,
            caches: Vec::new(),
        })
    }
}

impl PackRow {
    /// What is wrong with the pack. Damage is a finding; only failures to read are errors.
    pub(super) fn check(&self, blobs: &LocalBlobs) -> Result<PackFaults, StoreError> {
        let mut faults = PackFaults::default();
        let file = match blobs.file(self.id) {
            Ok(file) => file,
            Err(StoreError::Damaged { what }) => {
                faults.add(what);
                faults.lost = self.extents.iter().map(|e| e.id).collect();
                return Ok(faults);
            }
            // whoever asks looks into the index again
            Err(StoreError::Gone) => {
                faults.add(format!("pack {} was deleted", self.id));
                return Ok(faults);
            }
            Err(other) => return Err(other),
        };
        self.check_size(&file, &mut faults)?;
        match header::read(&file, self.id) {
            Ok(header) => self.check_header(&header, &mut faults),
            Err(StoreError::Damaged { what }) => faults.add(what),
            Err(other) => return Err(other),
        }
        self.check_extents(&file, &mut faults)?;
        Ok(faults)
    }

    fn check_size(&self, file: &File, faults: &mut PackFaults) -> Result<(), StoreError> {
        let size = file.metadata().map_err(StoreError::io("asking for the size of a blob"))?.len();
        if size != self.n_bytes {
            faults.add(format!("the file has {size} bytes, the index says {}", self.n_bytes));
        }
        Ok(())
    }

    fn check_header(&self, header: &BlobHeader, faults: &mut PackFaults) {
        if header.front.pack != self.id {
            faults.add(format!("the header names pack {}", header.front.pack));
        }
        if header.front.tenant != self.tenant {
            faults.add(format!("the header names tenant {}", header.front.tenant.0));
        }
        if header.data_start != self.data_start {
            faults.add(format!("tensors begin at {}, the index says {}", header.data_start, self.data_start));
        }
        let expected = header::tensors(&self.dims.whole(&self.layout, self.dtype));
        if header.tensors != expected {
            faults.add("the header lists other tensors than the index");
        }
        let mut entries: HashMap<usize, Vec<_>> = HashMap::new();
        header.caches.iter().for_each(|c| entries.entry(c.row_start).or_default().push(c));
        for extent in &self.extents {
            let entries = entries.get(&extent.span.row_start).map_or([].as_slice(), Vec::as_slice);
            let row = extent.span.row_start;
            if !same_origin(header, &extent.origin) {
                faults.add(format!("the header and the index differ about the provenance of row {row}"));
            }
            if entries.is_empty() || !entries.iter().all(|entry| extent.fits(header, entry)) {
                faults.add(format!("the header and the index differ about row {row}"));
            }
        }
    }

    fn check_extents(&self, file: &File, faults: &mut PackFaults) -> Result<(), StoreError> {
        for extent in &self.extents {
            let tensors = self.dims.tensors(&self.layout, self.dtype, &extent.span);
            let tensors: Vec<(u64, usize)> = tensors.into_iter().map(|(at, n)| (self.data_start + at, n)).collect();
            let mut stats = vec![TensorStats::default(); self.layout.hooks.len()];
            let hashed = hash(file, self.id, self.dtype, &tensors, |hook, bytes| {
                count_special(self.dtype, self.layout.hooks[hook].site(), bytes, &mut stats[hook]);
                Ok(())
            });
            match hashed {
                Ok(found) if found == extent.content_hash => {
                    let finite = stats.iter().all(|s| *s == TensorStats::default());
                    if extent.stats.as_ref().map_or(!finite, |said| *said != stats) {
                        let row = extent.span.row_start;
                        faults.add(format!("the index counts other NaN and infinities than row {row} has"));
                    }
                    continue;
                }
                Ok(_) => faults.add(format!("the bytes of row {} have changed", extent.span.row_start)),
                Err(StoreError::Damaged { what }) if faults.issues.contains(&what) => {}
                Err(StoreError::Damaged { what }) => faults.add(what),
                Err(other) => return Err(other),
            }
            faults.lost.push(extent.id);
        }
        Ok(())
    }
}

fn same_origin(header: &BlobHeader, origin: &Origin) -> bool {
    let provenance: &Provenance = &header.front.provenance;
    (provenance, header.front.n_layers, header.front.d_model) == (&origin.provenance, origin.n_layers, origin.d_model)
}

impl ExtentRow {
    /// Whether what the header says of one of the caches of these rows is what the index says. The cache may have been deleted
    /// since, and others may have been answered by the same rows.
    fn fits(&self, header: &BlobHeader, entry: &header::CacheEntry<'_>) -> bool {
        let rows = |positions: &Positions| positions.resolve(self.span.n_tokens).ok();
        let same_rows = entry.map_start == self.span.map_start
            && entry.item.token_ids.len() == self.span.n_tokens
            && rows(&entry.item.positions).is_some_and(|r| Some(r) == rows(&self.positions))
            && self.forward_key.as_ref().is_none_or(|key| Some(key) == entry.forward_key.as_ref())
            && entry.content_hash.as_ref().is_none_or(|hash| *hash == self.content_hash.to_hex().as_str());
        let Some(cache) = self.caches.iter().find(|c| c.id == entry.id) else { return same_rows };
        let token_ids: Vec<u8> = entry.item.token_ids.iter().flat_map(|t| t.to_le_bytes()).collect();
        let hooks = entry.hooks.as_deref().unwrap_or(&header.front.capture.hooks);
        same_rows
            && (cache.run, cache.item_index) == (entry.run, entry.item_index)
            && cache.token_ids == token_ids
            && entry.item.reads(cache.text.as_deref(), &cache.tokens)
            && *cache.hooks == *hooks
    }
}
