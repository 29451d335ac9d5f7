//! Imports: activations made elsewhere, received into an unnamed file and written as a pack like any other.

use std::{collections::HashMap, fs::File, ops::Range, os::unix::fs::FileExt, sync::Arc};

use crate::{
    blobs::{LocalBlobs, quota::Quota},
    blocking::blocking,
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, now, to_json},
        tx::Tx,
        write::Write,
    },
    packs::{
        contents::{PackHeader, PackedCache},
        insert::{Ends, Unit, add_pack, insert_caches},
        pack_writer::{FinishedPack, PackWriter},
    },
};
use residuum_domain::{CacheId, Dtype, NewItem, PackId, PackLayout, Provenance, RunId, TenantId, import::TensorSource};

/// Elements read, converted and written at a time.
const CHUNK: usize = 1 << 18;

/// Bytes that are being received. Nothing of them is left when it is dropped.
#[derive(Debug)]
pub struct Spool {
    file: File,
    len: u64,
}

impl Spool {
    /// Appends bytes; blocks.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all_at(bytes, self.len).map_err(StoreError::io("receiving an import"))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads bytes back; blocks.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for what has not arrived, [`StoreError::Io`].
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).ok().filter(|_| range.end <= self.len);
        let mut bytes = vec![0; len.ok_or_else(|| StoreError::Misuse("a read beyond what has arrived".to_owned()))?];
        self.file.read_exact_at(&mut bytes, range.start).map_err(StoreError::io("reading an import"))?;
        Ok(bytes)
    }
}

/// A cache to be made of what was received.
#[derive(Debug)]
pub struct NewImport {
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Number of blocks of the model.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// What computed the numbers, as far as it is known.
    pub provenance: Provenance,
    /// The input.
    pub item: NewItem,
    /// One for each hook of the item: where its values lie in the spool.
    pub sources: Vec<TensorSource>,
    /// Idempotency key with the blake3 of the request it came with.
    pub idempotency: Option<(String, [u8; 32])>,
}

/// What became of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// This cache, durably.
    Created(CacheId),
    /// The same request came before with this idempotency key, and made this cache.
    Replayed(CacheId),
    /// The same request came before with this idempotency key; its cache is gone.
    Gone,
    /// Another request came before with this idempotency key.
    KeyConflict,
}

/// Receives activations made elsewhere, and makes caches of them.
#[derive(Clone, Copy)]
pub(crate) struct Importer<'a> {
    pub(crate) index: &'a SqliteIndex,
    pub(crate) blobs: &'a Arc<LocalBlobs>,
    pub(crate) quota: Option<Quota>,
}

impl Importer<'_> {
    /// A place to receive an import into.
    pub(crate) async fn spool(&self) -> Result<Spool, StoreError> {
        let blobs = Arc::clone(self.blobs);
        blocking(move || Ok(Spool { file: blobs.nameless()?, len: 0 })).await
    }

    /// Makes a cache, in a completed run of its own, of what was received; durable on return. It never answers another
    /// input: it has no forward key. The same idempotency key with the same request gives the cache it made before.
    pub(crate) async fn import(&self, import: NewImport, spool: Spool) -> Result<Imported, StoreError> {
        if let Some((key, hash)) = &import.idempotency
            && let Some(earlier) = self.index.earlier_import(import.tenant, key, hash).await?
        {
            return Ok(earlier);
        }
        let (blobs, quota) = (Arc::clone(self.blobs), self.quota);
        let idempotency = import.idempotency.clone();
        let pack = blocking(move || write_pack(&blobs, quota, import, &spool)).await?;
        let id = pack.id();
        let outcome = self.index.write(InsertImport { pack, idempotency }).await;
        if outcome.is_err() {
            self.discard(id).await;
        }
        outcome
    }

    /// Removes the file of a pack that could not be made known, unless the index has it after all.
    async fn discard(&self, pack: PackId) {
        let Ok(false) = self.index.has_pack(pack).await else { return };
        let blobs = Arc::clone(self.blobs);
        if let Err(error) = blocking(move || blobs.delete(pack)).await {
            // the next sweep removes it
            tracing::warn!(%pack, %error, "a blob nobody uses could not be removed");
        }
    }
}

impl SqliteIndex {
    /// What an idempotency key made before.
    async fn earlier_import(
        &self,
        tenant: TenantId,
        key: &str,
        hash: &[u8; 32],
    ) -> Result<Option<Imported>, StoreError> {
        let row = self.row(sqlx::query(EARLIER).bind(tenant.0).bind(key)).await?;
        row.map(|row| read_earlier(&Fields::of("runs", &row), hash)).transpose()
    }
}

/// The run that has an idempotency key, and its cache.
pub(crate) const EARLIER: &str = "SELECT r.request_hash, c.id AS cache FROM runs r \
    LEFT JOIN caches c ON c.run_id = r.id AND c.item_index = 0 WHERE r.tenant_id = ? AND r.idempotency_key = ?";

fn read_earlier(fields: &Fields<'_>, hash: &[u8; 32]) -> Result<Imported, StoreError> {
    if fields.get::<&[u8]>("request_hash")? != hash.as_slice() {
        return Ok(Imported::KeyConflict);
    }
    let cache: Option<&[u8]> = fields.get("cache")?;
    Ok(cache.and_then(CacheId::from_slice).map_or(Imported::Gone, Imported::Replayed))
}

fn write_pack(
    blobs: &Arc<LocalBlobs>,
    quota: Option<Quota>,
    import: NewImport,
    spool: &Spool,
) -> Result<FinishedPack, StoreError> {
    let NewImport { tenant, model, n_layers, d_model, provenance, item, sources, .. } = import;
    let capture = item.capture.clone();
    let n_tokens = item.token_ids.len();
    let rows = capture.positions.resolve(n_tokens).map_err(|p| StoreError::misuse(&p.detail))?;
    if sources.len() != capture.hooks.len() {
        return Err(StoreError::misuse("an import needs a source for each hook"));
    }
    let row_shapes = sources.iter().map(|s| s.row_shape.clone()).collect();
    let layout = PackLayout::new(Arc::clone(&capture.hooks), row_shapes, capture.dtype, &[(n_tokens, &rows)]);
    let cache =
        PackedCache { cache: CacheId::generate(), run: RunId::generate(), item_index: 0, item, forward_key: None };
    let (id, caches) = (PackId::generate(), vec![cache]);
    let header = PackHeader { id, tenant, model, n_layers, d_model, provenance, capture, layout, caches };
    let dtype = header.layout.dtype;
    let mut writer = PackWriter::begin(blobs, quota, header)?;
    for (hook, source) in sources.iter().enumerate() {
        writer.write_encoded(hook, chunks(spool, source, dtype))?;
    }
    writer.finish()
}

/// The values of a source in another type, chunk by chunk.
fn chunks<'a>(
    spool: &'a Spool,
    source: &'a TensorSource,
    to: Dtype,
) -> impl Iterator<Item = Result<Vec<u8>, StoreError>> + 'a {
    let step = (CHUNK * source.dtype.size()) as u64;
    let mut begin = source.data.start;
    std::iter::from_fn(move || {
        let end = source.data.end.min(begin + step);
        let range = (begin < end).then_some(begin..end)?;
        begin = end;
        Some(spool.read(range).map(|bytes| source.dtype.convert(bytes, to)))
    })
}

struct InsertImport {
    pack: FinishedPack,
    idempotency: Option<(String, [u8; 32])>,
}

impl Write for InsertImport {
    type Output = Imported;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Imported, StoreError> {
        let header = &self.pack.header;
        let [PackedCache { cache, run, .. }] = header.caches.as_slice() else {
            return Err(StoreError::Misuse("an import is one cache".to_owned()));
        };
        if let Some(earlier) = self.earlier(tx).await? {
            // the same key came in between
            tx.unlink.push(header.id);
            return Ok(earlier);
        }
        self.insert_run(tx, *run)?;
        let unit = Unit { row: 0, tenant: header.tenant, model: header.model.as_str().into(), ttl: None };
        let mut pending = HashMap::from([((*run, 0), unit)]);
        let (mut ends, mut caches) = (Ends::find(tx).await?, Vec::new());
        add_pack(tx, &mut ends, &self.pack, false, &mut pending, &mut caches).await?;
        insert_caches(tx, ends, &caches).await?;
        Ok(Imported::Created(*cache))
    }
}

impl InsertImport {
    /// Inserts a run that has ended with its one item.
    fn insert_run(&self, tx: &mut Tx<'_>, id: RunId) -> Result<(), StoreError> {
        let (key, hash) = self.idempotency.as_ref().map(|(k, h)| (k.as_str(), h.as_slice())).unzip();
        let (header, now) = (&self.pack.header, now());
        tx.later(
            "INSERT INTO runs (id, tenant_id, status, model, reuse, n_items, n_done, metadata, idempotency_key, \
                 request_hash, created_at, started_at, finished_at, imported) \
             VALUES (?, ?, 'completed', ?, 0, 1, 1, ?, ?, ?, ?, ?, ?, 1)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(header.tenant.0)
        .bind(&header.model)
        .bind(to_json(&serde_json::Map::new())?)
        .bind(key)
        .bind(hash)
        .bind(now)
        .bind(now)
        .bind(now);
        tx.later("INSERT INTO run_items (run_id, item_index, status) VALUES (?, 0, 'done')")
            .bind(id.as_bytes().as_slice());
        Ok(())
    }

    /// What the idempotency key made before.
    async fn earlier(&self, tx: &mut Tx<'_>) -> Result<Option<Imported>, StoreError> {
        let Some((key, hash)) = &self.idempotency else { return Ok(None) };
        tx.later(EARLIER).bind(self.pack.header.tenant.0).bind(key);
        let rows = tx.rows().await?;
        rows.first().map(|row| read_earlier(&Fields::of("runs", row), hash)).transpose()
    }
}
