//! From a row of the index to the description of a cache: the columns that are selected, and decoding them.

use std::sync::Arc;

use sqlx::sqlite::SqliteRow;

use crate::{
    blobs::epoch::Session,
    error::StoreError,
    index::{
        intern::{Layout, Origin},
        rows::Fields,
    },
    packs::{location::Location, stored_cache::StoredCache},
};
use residuum_domain::{Cache, CacheId, Capture, Hook, RunId, TenantId, TensorStats};

/// The columns of a cache `c`, its extent `e` and their pack `p`, with those given for text, token ids, tokens and
/// completion.
macro_rules! columns {
    ($texts:literal) => {
        concat!(
            $texts,
            ", c.id, c.tenant_id, c.run_id, c.item_index, c.model, c.bos, c.n_truncated, c.interventions, c.origin, c.reused, \
            c.metadata, c.label, c.created_at, c.expires_at, c.pinned, c.hook_set_id, c.positions, c.tags, \
            e.provenance_id, e.pack_id, e.n_tokens, e.n_rows, e.row_start, e.map_start, e.content_hash, e.stats, \
            p.layout_id, p.dtype, p.data_start, p.n_rows AS pack_rows, p.n_map AS pack_map"
        )
    };
}

/// The columns of a cache, as [`decode`] reads them.
pub(crate) const COLUMNS: &str = columns!("c.text, c.token_ids, c.tokens, c.completion");

/// [`COLUMNS`] without texts, tokens and completions, which are the largest.
pub(crate) const BRIEF_COLUMNS: &str = columns!("NULL AS text, x'' AS token_ids, '[]' AS tokens, NULL AS completion");

/// The joins for [`COLUMNS`], to be put after a table that gives `c`.
pub(crate) const JOINED: &str = " CROSS JOIN extents e ON e.id = c.extent_id CROSS JOIN packs p ON p.id = e.pack_id";

/// A row of [`COLUMNS`], with what it refers to.
pub(crate) fn decode(
    row: &SqliteRow,
    origin: &Origin,
    layout: &Layout,
    hooks: Arc<[Hook]>,
    session: &Arc<Session>,
) -> Result<StoredCache, StoreError> {
    let f = Fields::of("caches", row);
    let extent = Fields::of("extents", row);
    let pack = Fields::of("packs", row);
    let dtype = pack.read("dtype", |d: &str| d.parse().ok())?;
    let (location, indices) = Location::new(&extent, &pack, layout, dtype, &hooks)?;
    let token_ids: &[u8] = f.get("token_ids")?;
    let stats: Option<Vec<TensorStats>> = extent.opt_json("stats")?;
    let hash = extent.read("content_hash", |h: &[u8]| blake3::Hash::from_slice(h).ok())?;
    let cache = Cache {
        id: f.read("id", CacheId::from_slice)?,
        tenant: TenantId(f.get("tenant_id")?),
        run: f.read("run_id", RunId::from_slice)?,
        item_index: f.uint("item_index")?,
        model: f.get("model")?,
        n_layers: origin.n_layers,
        d_model: origin.d_model,
        text: f.get("text")?,
        token_ids: token_ids.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
        tokens: f.json("tokens")?,
        capture: Capture { hooks, positions: f.json("positions")?, dtype },
        row_shapes: indices.iter().map(|i| layout.row_shapes[*i].clone()).collect(),
        bos: f.json("bos")?,
        n_truncated: f.uint("n_truncated")?,
        completion: f.opt_json("completion")?,
        origin: f.opt_json("origin")?,
        interventions: f.opt_json("interventions")?.unwrap_or_default(),
        stats: sum_stats(stats.as_deref(), &indices),
        provenance: origin.provenance.clone(),
        reused: f.get("reused")?,
        content_hash: hash.to_hex().to_string(),
        n_bytes: location.n_bytes(),
        tags: f.json("tags")?,
        metadata: f.json("metadata")?,
        label: f.get("label")?,
        created_at: f.time("created_at")?,
        expires_at: f.opt_time("expires_at")?,
        pinned: f.get("pinned")?,
    };
    Ok(StoredCache::new(cache, location, session))
}

/// The sums over those of an extent's hooks that a cache has.
fn sum_stats(stats: Option<&[TensorStats]>, indices: &[usize]) -> TensorStats {
    let of = |i: &usize| stats.and_then(|s| s.get(*i)).copied().unwrap_or_default();
    indices.iter().map(of).fold(TensorStats::default(), |sum, one| TensorStats {
        n_nan: sum.n_nan + one.n_nan,
        n_inf: sum.n_inf + one.n_inf,
    })
}
