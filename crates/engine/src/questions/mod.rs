//! Questions about stored activations and served models: requests that are answered without queueing a run.
//!
//! A question is a typed value that was read from a request, and so is its answer. Nothing here may know HTTP, bodies
//! or status codes. A [`Problem`] points at the faulty part of a question with the JSON pointer of that part in the
//! request.

pub mod answer_limit;
pub mod attribution;
pub mod chosen;
pub mod comparisons;
pub mod deleted_caches;
pub mod direction;
pub mod directions;
pub mod embeddings;
pub mod export;
pub mod hits;
pub mod interventions;
pub mod lens;
pub mod mean;
pub mod next_tokens;
pub mod patching;
pub mod projections;
pub mod readout_rows;
pub mod row_reader;
pub mod sae;
pub mod search;
pub mod served;
pub mod served_models;
pub mod statistics;
pub mod token;
pub mod tokenize;

use std::sync::Arc;

use rayon::ThreadPool;
use tokio::sync::Semaphore;

pub use chosen::{Chosen, Selector, read_id};
pub use token::{Token, TokenRef};

use crate::{Engine, Registry, Saes};
use residuum_domain::{CacheId, Code, Problem, TenantId};
use residuum_store::{Store, StoreError, StoredCache};

/// Answers questions; clones share everything.
#[derive(Clone)]
pub struct Questions {
    engine: Engine,
    saes: Arc<Saes>,
    /// Threads for analysis. They are separate from the workers', so that a comparison does not slow down a forward
    /// pass.
    threads: Arc<ThreadPool>,
    /// Permits for requests for embeddings.
    embedding_places: Arc<Semaphore>,
}

impl Questions {
    /// Answers questions about what the engine stores and serves, and about the autoencoders of its models.
    #[must_use]
    pub fn new(engine: Engine, saes: Arc<Saes>, threads: ThreadPool) -> Self {
        let embedding_places = Arc::new(Semaphore::new(embeddings::MAX_REQUESTS));
        Self { engine, saes, threads: Arc::new(threads), embedding_places }
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.engine.store()
    }

    /// The models that are served.
    #[must_use]
    pub fn models(&self) -> &Registry {
        self.engine.models()
    }

    /// The autoencoders.
    #[must_use]
    pub fn saes(&self) -> &Saes {
        &self.saes
    }

    /// The cache with this id. Its blob is checked for damage.
    ///
    /// # Errors
    /// [`Code::CacheNotFound`], [`Code::BlobDamaged`], and the other ones of the store.
    pub async fn stored(&self, tenant: TenantId, id: CacheId) -> Result<Arc<StoredCache>, Problem> {
        let found = self.store().stored(tenant, &[id]).await?.into_iter().flatten().next();
        let cache = found.ok_or_else(|| {
            Problem::new(
                Code::CacheNotFound,
                format!("`{id}` is not the id of anything here; it may have been deleted"),
            )
        })?;
        cache.check(self.store()).await?;
        Ok(Arc::new(cache))
    }

    /// Runs heavy work on the threads for analysis. The work may read the store.
    ///
    /// # Errors
    /// Those of the work, and [`Code::Internal`] if it panicked.
    pub async fn analyse<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let threads = Arc::clone(&self.threads);
        let done = tokio::task::spawn_blocking(move || threads.install(work)).await;
        done.unwrap_or_else(|e| {
            tracing::error!(error = %e, "an analysis panicked");
            Err(Problem::new(Code::Internal, "the analysis could not be carried out"))
        })
    }
}

/// Reads the store on a blocking thread.
///
/// # Errors
/// Those of `read`, and [`Code::Internal`] if it panicked.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result.map_err(Problem::from),
        Err(e) => {
            tracing::error!(error = %e, "reading a blob panicked");
            Err(Problem::new(Code::Internal, "stored activations could not be read"))
        }
    }
}

/// The number if it is finite. JSON has no NaN and no infinities; answers have `None` instead.
#[must_use]
pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
