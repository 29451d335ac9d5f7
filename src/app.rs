//! Puts the parts together and runs them: the only module that knows everyone.

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    api::{self, ApiConfig, ApiState, KeyRing},
    connections::{self, ConnectionLimits},
    telemetry,
};
use residuum_engine::{Engine, Limits, ModelSource, SaeSource, Saes, questions::Questions};
use residuum_model::{LoadError, LoadOptions};
use residuum_store::{Maintainer, Maintenance, Store, StoreError, StoreOptions};

/// Everything a server needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where blobs and index lie.
    pub data_dir: PathBuf,
    /// What to serve.
    pub models: Vec<ModelSource>,
    /// Sparse autoencoders beside them.
    pub saes: Vec<SaeSource>,
    /// How to read checkpoints.
    pub load: LoadOptions,
    /// What the engine accepts.
    pub limits: Limits,
    /// The HTTP side.
    pub api: ApiConfig,
    /// How connections are held to their pace.
    pub connections: ConnectionLimits,
    /// Listen beyond loopback also while the store has no API keys.
    pub allow_unauthenticated: bool,
    /// What is done to the store beside serving.
    pub maintenance: Maintenance,
    /// Threads for forward passes, and as many again for analysis.
    pub threads: usize,
}

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A checkpoint cannot be served.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The server would be open to everyone.
    #[error(
        "refusing to listen on {address}, beyond this machine, while the store has no API keys: whoever reaches it could read \
         and delete everything. Make a key first (residuum keys create --data-dir {} --name NAME --scope write), or listen on \
         127.0.0.1, or pass --allow-unauthenticated if something else guards this port",
        data_dir.display()
    )]
    Open {
        /// Where it was to listen.
        address: SocketAddr,
        /// Where the keys would be.
        data_dir: PathBuf,
    },
    /// The system refused a thread or a socket.
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
    /// The analysis threads could not be started.
    #[error("the analysis threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// How long connections may finish once the server stops.
const CONNECTION_GRACE: Duration = Duration::from_secs(10);

/// The parts of a running server.
pub struct App {
    engine: Engine,
    keys: Arc<KeyRing>,
    saes: Arc<Saes>,
    router: Router,
    maintainer: Option<Maintainer>,
}

impl App {
    /// Reads the settings of the autoencoders, opens the store and starts the engine; nothing listens yet and no weights
    /// are loaded.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let saes = Arc::new(Saes::open(config.saes.clone())?);
        let options = StoreOptions {
            quota: config.limits.quota,
            keep_deleted: config.limits.keep_deleted,
            ..StoreOptions::default()
        };
        let store = Store::open_with(&config.data_dir, options).await?;
        let maintainer = Maintainer::start(store.clone(), config.maintenance.clone());
        let names = config.models.iter().map(|m| m.id.clone()).collect();
        let engine = Engine::start(store, names, config.limits.clone(), config.load.placements.all().len())?;
        let analysis = rayon::ThreadPoolBuilder::new()
            .num_threads(config.threads)
            .thread_name(|i| format!("analysis-{i}"))
            .build()?;
        let questions = Questions::new(engine.clone(), Arc::clone(&saes), analysis);
        let state = ApiState::new(questions, config.api.clone(), telemetry::metrics());
        let keys = Arc::clone(&state.keys);
        Ok(Self { engine, keys, saes, router: api::router(state), maintainer })
    }

    /// Reads the models, and then the autoencoders beside them.
    ///
    /// # Errors
    /// [`LoadError`] of the first that cannot be served.
    pub fn load(
        &self,
        models: Vec<ModelSource>,
        options: LoadOptions,
    ) -> impl Future<Output = Result<(), LoadError>> + Send + 'static {
        let (engine, saes) = (self.engine.clone(), Arc::clone(&self.saes));
        async move {
            engine.load(models, options).await?;
            saes.load(engine.models()).await
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The service, for tests that need no socket.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Refuses to listen beyond this machine while requests need no key, unless that is allowed.
    ///
    /// # Errors
    /// [`AppError::Open`], or the store's own.
    async fn check_exposure(&self, address: SocketAddr, config: &Config) -> Result<(), AppError> {
        if self.keys.is_closed().await? {
            return Ok(());
        }
        if address.ip().is_loopback() {
            tracing::info!("the store has no API keys: whoever reaches this port may do everything");
        } else if config.allow_unauthenticated {
            tracing::warn!(%address, "the store has no API keys: whoever reaches this port, from anywhere, may do everything");
        } else {
            return Err(AppError::Open { address, data_dir: config.data_dir.clone() });
        }
        Ok(())
    }

    /// Finishes what is under way and closes the store.
    pub async fn stop(self) {
        let Self { engine, keys, saes: _, router, maintainer } = self;
        engine.drain().await;
        if let Some(maintainer) = maintainer {
            maintainer.stop().await;
        }
        let store = engine.store().clone();
        drop((engine, keys, router));
        store.close().await;
    }
}

/// Serves until `stop` resolves, then finishes what is under way.
///
/// # Errors
/// [`AppError`]: a store, address or checkpoint that cannot be used. Checkpoints are read while the server listens
/// already, answering 503, so that probes see it coming up.
pub async fn serve(config: Config, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), AppError> {
    let listen = |source| AppError::Listen { address: config.listen, source };
    // The socket first: a second server on one port should fail before it touches anything.
    let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr()?;
    let app = App::start(&config).await?;
    if let Err(open) = app.check_exposure(address, &config).await {
        app.stop().await;
        return Err(open);
    }
    tracing::info!(%address, data_dir = %config.data_dir.display(), "listening");
    let engine = app.engine().clone();
    let draining = engine.draining();
    let server: JoinHandle<()> =
        tokio::spawn(connections::serve(listener, app.router(), config.connections, draining.clone()));
    let mut load = tokio::spawn(app.load(config.models, config.load));
    tokio::pin!(stop);
    let loaded = tokio::select! {
        loaded = &mut load => Some(loaded.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))),
        () = &mut stop => None,
    };
    if loaded.is_none() {
        // what it has of the engine goes with it, so that the folder is free when this returns
        load.abort();
        drop(load.await);
    }
    if let Some(Ok(())) = loaded {
        tracing::info!(%address, "ready");
        stop.await;
    }
    tracing::info!("stopping: finishing what is under way");
    draining.cancel();
    if tokio::time::timeout(CONNECTION_GRACE, server).await.is_err() {
        tracing::warn!("connections were still open and are cut");
    }
    drop(engine);
    app.stop().await;
    tracing::info!("stopped");
    Ok(loaded.unwrap_or(Ok(()))?)
}
