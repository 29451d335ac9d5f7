//! What a pack will hold, known before the forward pass runs.

use crate::error::StoreError;
use residuum_domain::{CacheId, Capture, NewItem, PackId, PackLayout, Provenance, RunId, TenantId};

/// What a pack will hold.
#[derive(Debug, Clone)]
pub struct PackHeader {
    /// Its id.
    pub id: PackId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Number of blocks of the model.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// What computes the numbers.
    pub provenance: Provenance,
    /// What the items have in common: hooks and dtype are those of `layout`; positions are each item's own.
    pub capture: Capture,
    /// Where the numbers go.
    pub layout: PackLayout,
    /// One for each item of `layout`, in order. An item may ask for fewer hooks than the pack holds.
    pub caches: Vec<PackedCache>,
}

/// One item of a pack, and the cache it becomes.
#[derive(Debug, Clone)]
pub struct PackedCache {
    /// Id of the cache.
    pub cache: CacheId,
    /// The run that asked for it.
    pub run: RunId,
    /// Its place among the run's inputs.
    pub item_index: u32,
    /// The input.
    pub item: NewItem,
    /// Identifies the forward pass: equal keys mean equal numbers. `None` for numbers made elsewhere, which answer nothing else.
    pub forward_key: Option<[u8; 32]>,
}

impl PackHeader {
    /// Whether items and layout fit each other.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let layout = &self.layout;
        if layout.items.len() != self.caches.len() || layout.items.is_empty() {
            return Err(StoreError::misuse("a pack needs as many caches as items, and one at least"));
        }
        if layout.hooks.len() != layout.row_shapes.len() || !layout.hooks.is_sorted() {
            return Err(StoreError::misuse("a pack needs its hooks in execution order, with a row shape each"));
        }
        if self.capture.hooks != layout.hooks || self.capture.dtype != layout.dtype {
            return Err(StoreError::misuse("the capture of a pack names other hooks or another dtype than its layout"));
        }
        for (cache, span) in self.caches.iter().zip(&layout.items) {
            let capture = &cache.item.capture;
            let rows =
                capture.positions.resolve(cache.item.token_ids.len()).map_err(|p| StoreError::misuse(&p.detail))?;
            let held = capture.hooks.iter().all(|h| layout.hooks.binary_search(h).is_ok());
            let same = capture.dtype == layout.dtype
                && cache.item.token_ids.len() == span.n_tokens
                && rows.len() == span.n_rows;
            if !held || !same {
                return Err(StoreError::misuse("an item of a pack asks for something else than its layout holds"));
            }
        }
        Ok(())
    }
}
