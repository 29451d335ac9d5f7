//! Copying what is alive in some packs into a new one.
//!
//! The header of the new pack describes what the index holds now, so that it can rebuild the index as it is now. The
//! copy is hashed as it is made: damage is found, and never copied. The new blob is durable before one transaction
//! points the index at it; the old ones are retired after that. A crash in between leaves either state, and files that
//! the next start removes.

use std::{collections::HashMap, fs::File, sync::Arc};

use sqlx::{AssertSqlSafe, Row};

use crate::{
    blobs::{LocalBlobs, TempBlob, epoch::Session, read_at},
    blocking::blocking,
    error::StoreError,
    fault::Purpose,
    find::described::COLUMNS,
    index::{
        SqliteIndex,
        intern::{Layout, Origin},
        rows::{Fields, hex, hex_list, pack_id},
    },
    packs::{
        header::{self, CacheEntry, Front},
        item::ItemRecord,
        location::PackDims,
    },
    upkeep::compaction::{
        Compactor,
        switch::{Copying, Move, Moved, NewPack},
        throttle::Throttle,
    },
};
use residuum_domain::{Applied, Cache, Capture, Dtype, ItemSpan, NewItem, PackId, PackLayout, Positions, TenantId};

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 20;

/// Packs of one tenant, layout, dtype and provenance, and what is alive in them.
pub(crate) struct Rewrite {
    /// That of the new pack.
    id: PackId,
    tenant: TenantId,
    layout_id: i64,
    layout: Arc<Layout>,
    dtype: Dtype,
    origin: Arc<Origin>,
    old: Vec<PackId>,
    /// In the order of the new pack.
    extents: Vec<Extent>,
    /// Keeps the files there while they are copied.
    _session: Arc<Session>,
}

/// Rows that move.
struct Extent {
    id: i64,
    pack: PackId,
    span: ItemSpan,
    /// For each hook, its byte in the old file and its elements.
    tensors: Vec<(u64, usize)>,
    positions: Positions,
    forward_key: Option<Vec<u8>>,
    content_hash: blake3::Hash,
    /// Oldest first.
    caches: Vec<Cache>,
}

/// What became of a rewrite.
pub(crate) enum Rewritten {
    /// A new pack, at which the index is to be pointed.
    Pack(Box<Move>),
    /// Nothing is alive in the old ones, which the index is to forget.
    Nothing(Box<Move>),
    /// This pack is damaged, as the text says; nothing was changed.
    Damaged(PackId, String),
    /// One of the packs was deleted meanwhile; nothing was changed.
    Deleted,
}

impl SqliteIndex {
    /// What is alive in `packs`, which share tenant, layout, dtype and provenance; extents in `without` are left out. `None`:
    /// none of the packs is there any more. `session` was entered before, so that their files are kept.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub(crate) async fn rewrite(
        &self,
        session: Arc<Session>,
        packs: &[PackId],
        without: &[i64],
    ) -> Result<Option<Rewrite>, StoreError> {
        let wanted = hex_list(packs.iter().map(|p| p.as_bytes().as_slice()));
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let rows = sqlx::query(
            "SELECT e.id, e.pack_id, e.provenance_id, e.positions, e.n_tokens, e.n_rows, e.row_start, e.map_start, \
                 e.forward_key, e.content_hash, p.tenant_id, p.layout_id, p.dtype, p.data_start, p.n_rows AS pack_rows, \
                 p.n_map AS pack_map FROM json_each(?) j CROSS JOIN packs p ON p.id = unhex(j.value) \
             CROSS JOIN extents e ON e.pack_id = p.id ORDER BY p.id, e.row_start, e.map_start",
        )
        .bind(&wanted)
        .fetch_all(&mut *snapshot)
        .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let f = Fields::of("packs", first);
        let (tenant, layout_id) = (TenantId(f.get("tenant_id")?), f.get("layout_id")?);
        let layout = self.memo().layout(&mut snapshot, layout_id).await?;
        let dtype: Dtype = f.read("dtype", |d: &str| d.parse().ok())?;
        let origin = self.memo().origin(&mut snapshot, f.get("provenance_id")?).await?;
        let mut extents = Vec::with_capacity(rows.len());
        for row in &rows {
            extents.push(Extent::decode(row, &layout, dtype)?);
        }
        let sql = format!(
            "SELECT e.id AS extent_id, {COLUMNS} FROM json_each(?) j CROSS JOIN extents e ON e.pack_id = unhex(j.value) \
             CROSS JOIN packs p ON p.id = e.pack_id CROSS JOIN caches c ON c.extent_id = e.id ORDER BY c.id"
        );
        // only names of columns are put in
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(&wanted).fetch_all(&mut *snapshot).await?;
        let mut caches: HashMap<i64, Vec<Cache>> = HashMap::new();
        for row in &rows {
            let cache = self.decode(&mut snapshot, row, &session).await?.cache;
            caches.entry(row.try_get("extent_id")?).or_default().push(cache);
        }
        for extent in &mut extents {
            extent.caches = caches.remove(&extent.id).unwrap_or_default();
        }
        extents.retain(|e| !e.caches.is_empty() && !without.contains(&e.id));
        let (id, old) = (PackId::generate(), packs.to_vec());
        Ok(Some(Rewrite { id, tenant, layout_id, layout, dtype, origin, old, extents, _session: session }))
    }
}

impl Compactor<'_> {
    /// Writes the new pack of a rewrite. The index is told first: if the process ends, the next start knows that the file is a
    /// copy, and that what the index lacks of it was deleted.
    ///
    /// # Errors
    /// As [`Rewrite::write`]; [`StoreError::Database`].
    pub(crate) async fn write_anew(&self, rewrite: Rewrite, mut throttle: Throttle) -> Result<Rewritten, StoreError> {
        if !rewrite.extents.is_empty() {
            self.index.write(Copying(rewrite.id)).await?;
        }
        let blobs = Arc::clone(self.blobs);
        blocking(move || rewrite.write(&blobs, &mut throttle)).await
    }

    /// Commits what a rewrite came to.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Full`], [`StoreError::Database`].
    pub(crate) async fn switch_to(&self, change: Move) -> Result<Moved, StoreError> {
        let moved = self.index.write(change).await?;
        self.index.tell_freed();
        Ok(moved)
    }
}

impl Extent {
    fn decode(row: &sqlx::sqlite::SqliteRow, layout: &Layout, dtype: Dtype) -> Result<Self, StoreError> {
        let (f, p) = (Fields::of("extents", row), Fields::of("packs", row));
        let span = ItemSpan {
            n_tokens: f.uint("n_tokens")?,
            n_rows: f.uint("n_rows")?,
            row_start: f.uint("row_start")?,
            map_start: f.uint("map_start")?,
        };
        let dims = PackDims { n_rows: p.uint("pack_rows")?, n_map: p.uint("pack_map")? };
        let data_start: u64 = p.uint("data_start")?;
        let tensors = dims.tensors(layout, dtype, &span);
        Ok(Self {
            id: f.get("id")?,
            pack: pack_id(&f, "pack_id")?,
            span,
            tensors: tensors.into_iter().map(|(begin, elements)| (data_start + begin, elements)).collect(),
            positions: f.json("positions")?,
            forward_key: f.get("forward_key")?,
            content_hash: f.read("content_hash", |h: &[u8]| blake3::Hash::from_slice(h).ok())?,
            caches: Vec::new(),
        })
    }

    /// What a header says of one of its caches, in a pack of this model.
    fn entry<'a>(
        &self,
        span: &ItemSpan,
        cache: &Cache,
        item: &'a NewItem,
        layout: &Layout,
        model: &str,
    ) -> Result<CacheEntry<'a>, StoreError> {
        let index = u32::try_from(cache.item_index);
        Ok(CacheEntry {
            id: cache.id,
            run: cache.run,
            item_index: index.map_err(|_| StoreError::damaged("table caches, column item_index: too large"))?,
            model: (cache.model != model).then(|| cache.model.clone()),
            created_at: Some(cache.created_at.as_microsecond()),
            reused: cache.reused,
            forward_key: self.forward_key.as_deref().map(hex),
            content_hash: Some(self.content_hash.to_hex().to_string()),
            row_start: span.row_start,
            map_start: span.map_start,
            hooks: (cache.capture.hooks != layout.hooks).then(|| cache.capture.hooks.to_vec()),
            item: ItemRecord::from(item),
        })
    }
}

/// The input that would make such a cache, as far as a header keeps it.
fn item_of(cache: &Cache) -> NewItem {
    NewItem {
        token_ids: cache.token_ids.clone(),
        tokens: cache.tokens.clone(),
        text: cache.text.clone(),
        capture: cache.capture.clone(),
        bos: cache.bos.clone(),
        n_truncated: cache.n_truncated,
        tags: cache.tags.clone(),
        metadata: cache.metadata.clone(),
        label: cache.label.clone(),
        // how it came to be is said by the completion
        generation: None,
        unsettled: None,
        completion: cache.completion.clone(),
        origin: cache.origin.clone(),
        interventions: cache.interventions.iter().cloned().map(Applied::told).collect(),
    }
}

impl Rewrite {
    /// Writes the new pack, at the rate that the throttle allows. It blocks.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`], [`StoreError::Closed`] when the throttle was told to stop.
    fn write(self, blobs: &Arc<LocalBlobs>, throttle: &mut Throttle) -> Result<Rewritten, StoreError> {
        if self.extents.is_empty() {
            return Ok(Rewritten::Nothing(Box::new(Move { new: None, old: self.old, moves: Vec::new() })));
        }
        let layout = self.new_layout();
        let id = self.id;
        let front = self.front(id, &layout)?;
        let blob = blobs.create(id, Purpose::Merge)?;
        blob.write_at(&front, 0)?;
        let data_start = front.len() as u64;
        let n_bytes = match self.copy(blobs, &blob, data_start, throttle) {
            Ok(Ok(n_bytes)) => n_bytes,
            Ok(Err((pack, what))) => return Ok(Rewritten::Damaged(pack, what)),
            Err(StoreError::Gone) => return Ok(Rewritten::Deleted),
            Err(other) => return Err(other),
        };
        let moves = self.extents.iter().zip(&layout.items);
        let moves = moves.map(|(e, span)| (e.id, e.pack, span.row_start, span.map_start)).collect();
        let new = NewPack {
            in_flight: blob.publish()?,
            tenant: self.tenant,
            layout_id: self.layout_id,
            dtype: self.dtype,
            data_start,
            dims: PackDims { n_rows: layout.n_rows(), n_map: layout.n_map() },
            n_bytes,
        };
        Ok(Rewritten::Pack(Box::new(Move { new: Some(new), old: self.old, moves })))
    }

    fn new_layout(&self) -> PackLayout {
        let (mut row_start, mut map_start) = (0, 0);
        let place = |e: &Extent| {
            let span = ItemSpan { row_start, map_start, ..e.span.clone() };
            row_start += span.n_rows;
            map_start += span.n_map();
            span
        };
        PackLayout {
            hooks: Arc::clone(&self.layout.hooks),
            row_shapes: self.layout.row_shapes.clone(),
            dtype: self.dtype,
            items: self.extents.iter().map(place).collect(),
        }
    }

    /// The bytes before the first tensor.
    fn front(&self, pack: PackId, layout: &PackLayout) -> Result<Vec<u8>, StoreError> {
        let first = &self.extents[0];
        let model = first.caches[0].model.clone();
        let items: Vec<NewItem> = self.extents.iter().flat_map(|e| e.caches.iter().map(item_of)).collect();
        let spans = self.extents.iter().zip(&layout.items);
        let caches = spans.flat_map(|(e, span)| e.caches.iter().map(move |cache| (e, span, cache)));
        let entries =
            caches.zip(&items).map(|((e, span, cache), item)| e.entry(span, cache, item, &self.layout, &model));
        let entries: Vec<CacheEntry<'_>> = entries.collect::<Result<_, _>>()?;
        let front = Front {
            pack,
            tenant: self.tenant,
            model: model.clone(),
            n_layers: self.origin.n_layers,
            d_model: self.origin.d_model,
            provenance: self.origin.provenance.clone(),
            capture: Capture {
                hooks: Arc::clone(&self.layout.hooks),
                positions: first.positions.clone(),
                dtype: self.dtype,
            },
            row_shapes: self.layout.row_shapes.clone(),
        };
        header::assemble(&front, layout, &entries)
    }

    /// Copies the tensors behind the header, and gives the length of the file; or the pack that is damaged, and how.
    fn copy(
        &self,
        blobs: &LocalBlobs,
        blob: &TempBlob,
        data_start: u64,
        throttle: &mut Throttle,
    ) -> Result<Result<u64, (PackId, String)>, StoreError> {
        let mut files: HashMap<PackId, File> = HashMap::new();
        let mut hashers = vec![blake3::Hasher::new(); self.extents.len()];
        let mut out = Output { blob, at: data_start, buffer: Vec::with_capacity(2 * CHUNK) };
        for hook in 0..self.layout.hooks.len() {
            for (extent, hasher) in self.extents.iter().zip(&mut hashers) {
                let file = match files.entry(extent.pack) {
                    std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::hash_map::Entry::Vacant(free) => match blobs.file(extent.pack) {
                        Ok(file) => free.insert(file),
                        Err(StoreError::Damaged { what }) => return Ok(Err((extent.pack, what))),
                        Err(other) => return Err(other),
                    },
                };
                let (mut at, elements) = extent.tensors[hook];
                let end = at + (elements * self.dtype.size()) as u64;
                while at < end {
                    let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                    let bytes = match read_at(file, extent.pack, at, len) {
                        Ok(bytes) => bytes,
                        Err(StoreError::Damaged { what }) => return Ok(Err((extent.pack, what))),
                        Err(other) => return Err(other),
                    };
                    hasher.update(&bytes);
                    out.write(&bytes)?;
                    throttle.spend(bytes.len())?;
                    at += len as u64;
                }
            }
        }
        out.flush()?;
        for (extent, hasher) in self.extents.iter().zip(&hashers) {
            if hasher.finalize() != extent.content_hash {
                let what = format!("the bytes of row {} have changed", extent.span.row_start);
                return Ok(Err((extent.pack, what)));
            }
        }
        Ok(Ok(out.at))
    }
}

struct Output<'a> {
    blob: &'a TempBlob,
    /// Where the buffer goes.
    at: u64,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.blob.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
