//! Reads a data folder from Rust, without a server or while one is running. Never writes.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tokio::runtime::Runtime;

use crate::activation::{ActivationCache, ActivationError, AttentionCache, PositionCache};
use residuum_domain::{Cache, CacheFilter, CacheId, Dtype, Hook, Problem, Selection, Site, TenantId};
use residuum_store::{Store, StoreError, StoredCache};

/// Why reading from an archive failed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The data folder cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cache lacks the hook or the positions.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The tensors have wrong shapes or types.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// There is no such cache.
    #[error("there is no cache {0}")]
    NotFound(CacheId),
    /// There is no such tenant.
    #[error("there is no tenant {0}")]
    NoTenant(String),
    /// The async runtime could not be started.
    #[error("the runtime could not be started: {0}")]
    Runtime(#[from] std::io::Error),
}

/// A data folder opened for reading. Its methods block; do not call them on an async thread.
///
/// ```no_run
/// let archive = residuum::Archive::open("./data")?;
/// for cache in archive.caches(10)? {
///     let activations = archive.activation_cache(cache.id)?;
///     println!("{:?}: {} layers", cache.text, activations.n_layers());
/// }
/// # Ok::<(), residuum::ArchiveError>(())
/// ```
pub struct Archive {
    runtime: Runtime,
    store: Store,
    tenant: TenantId,
}

impl Archive {
    /// Opens the data folder of a server, running or not, to read what the tenant `default` has. Whatever was made
    /// without API keys belongs to that tenant. Nothing in the folder is changed.
    ///
    /// # Errors
    /// [`ArchiveError::Store`] if there is no index, or a newer version wrote it.
    pub fn open(data_dir: impl AsRef<Path>) -> Result<Self, ArchiveError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let store = runtime.block_on(Store::open_read_only(data_dir.as_ref()))?;
        Ok(Self { runtime, store, tenant: TenantId::DEFAULT })
    }

    /// The same folder, to read what another tenant has.
    ///
    /// # Errors
    /// [`ArchiveError::NoTenant`], [`ArchiveError::Store`].
    pub fn of_tenant(self, name: &str) -> Result<Self, ArchiveError> {
        let tenant = self.runtime.block_on(self.store.tenant(name))?;
        let tenant = tenant.ok_or_else(|| ArchiveError::NoTenant(name.to_owned()))?;
        Ok(Self { tenant, ..self })
    }

    /// The newest caches, at most `limit`.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub fn caches(&self, limit: u32) -> Result<Vec<Cache>, ArchiveError> {
        Ok(self.runtime.block_on(self.store.caches(self.tenant, &CacheFilter::default(), None, limit))?)
    }

    /// The description of a cache.
    ///
    /// # Errors
    /// [`ArchiveError::NotFound`], [`ArchiveError::Store`].
    pub fn cache(&self, id: CacheId) -> Result<Cache, ArchiveError> {
        self.runtime.block_on(self.store.cache(self.tenant, id))?.ok_or(ArchiveError::NotFound(id))
    }

    /// One captured hook as a tensor in its stored shape and type.
    ///
    /// # Errors
    /// [`ArchiveError::NotFound`], [`ArchiveError::Problem`] if the cache lacks the hook, [`ArchiveError::Store`].
    pub fn tensor(&self, id: CacheId, hook: Hook) -> Result<Tensor, ArchiveError> {
        self.read(&self.stored(id)?, hook, None)
    }

    /// The residual stream after every captured block at the final position, `[d_model]` each.
    ///
    /// # Errors
    /// As [`Self::tensor`]; also if the final position was not captured.
    pub fn activation_cache(&self, id: CacheId) -> Result<ActivationCache, ArchiveError> {
        let last = residuum_domain::Positions::Last;
        Ok(ActivationCache::new(self.layers(id, Site::ResidPost, Some(&last))?)?)
    }

    /// The residual stream after every captured block at all captured positions, `[seq, d_model]` each.
    ///
    /// # Errors
    /// As [`Self::tensor`]; also if the cache has a single position: its tensors have no position axis.
    pub fn position_cache(&self, id: CacheId) -> Result<PositionCache, ArchiveError> {
        Ok(PositionCache::new(self.layers(id, Site::ResidPost, None)?)?)
    }

    /// The attention pattern of every captured block, `[heads, q, k]` each.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn attention_cache(&self, id: CacheId) -> Result<AttentionCache, ArchiveError> {
        Ok(AttentionCache::new(self.layers(id, Site::Pattern, None)?)?)
    }

    fn stored(&self, id: CacheId) -> Result<StoredCache, ArchiveError> {
        let found = self.runtime.block_on(self.store.stored(self.tenant, &[id]))?;
        found.into_iter().flatten().next().ok_or(ArchiveError::NotFound(id))
    }

    fn layers(
        &self,
        id: CacheId,
        site: Site,
        positions: Option<&residuum_domain::Positions>,
    ) -> Result<Vec<Tensor>, ArchiveError> {
        let stored = self.stored(id)?;
        let hooks: Vec<Hook> = stored.cache.capture.hooks.iter().filter(|h| h.site() == site).copied().collect();
        hooks.into_iter().map(|hook| self.read(&stored, hook, positions)).collect()
    }

    fn read(
        &self,
        stored: &StoredCache,
        hook: Hook,
        positions: Option<&residuum_domain::Positions>,
    ) -> Result<Tensor, ArchiveError> {
        let selection = Selection::of(&stored.cache, stored.cache.hook_index(hook)?, positions)?;
        // not the blocking variant: a server may move the rows to another pack meanwhile
        let bytes = self.runtime.block_on(stored.read_many(&self.store, &selection.reads()))?.concat();
        let dtype = match stored.cache.capture.dtype {
            Dtype::Float32 => DType::F32,
            Dtype::Float16 => DType::F16,
            Dtype::BFloat16 => DType::BF16,
        };
        let tensor = Tensor::from_raw_buffer(&bytes, dtype, &selection.shape, &Device::Cpu);
        Ok(tensor.map_err(ActivationError::from)?)
    }
}
