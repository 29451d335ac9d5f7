//! Starts the parts of the server, connects them and stops them in order. The only module that knows all parts.

use std::{future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    api::{self, ApiConfig, ApiState, KeyRing},
    connections::{self, ConnectionLimits},
    telemetry,
};
use residuum_engine::{
    Engine, Limits, ModelSource, SaeSource, Saes,
    questions::Questions,
    serving::{AllowedSources, Serving, ServingOptions},
};
use residuum_model::{LoadError, LoadOptions};
use residuum_store::{Maintainer, Maintenance, Store, StoreError, StoreOptions};

/// All settings of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Folder of blobs and index.
    pub data_dir: PathBuf,
    /// Models to serve.
    pub models: Vec<ModelSource>,
    /// Sparse autoencoders of these models.
    pub saes: Vec<SaeSource>,
    /// How to load checkpoints.
    pub load: LoadOptions,
    /// Folder below which models and autoencoders may be loaded while the server runs.
    pub models_dir: Option<PathBuf>,
    /// Models may be loaded from the hub while the server runs.
    pub allow_hub: bool,
    /// Do not load again what was loaded before a restart.
    pub no_restore: bool,
    /// Bounds of runs, of the queue and of the store.
    pub limits: Limits,
    /// Settings of the HTTP API.
    pub api: ApiConfig,
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// Listen on other addresses than loopback even if the store has no API keys.
    pub allow_unauthenticated: bool,
    /// Background upkeep of the store.
    pub maintenance: Maintenance,
    /// Threads for forward passes, and as many again for analysis.
    pub threads: usize,
}

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data folder is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A checkpoint cannot be served.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no folder to load models from.
    #[error("--models-dir {}: {source}", folder.display())]
    ModelsDir {
        /// The folder.
        folder: PathBuf,
        /// Why it cannot be used.
        source: std::io::Error,
    },
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Other machines could use the server without a key.
    #[error(
        "refusing to listen on {address}, which other machines can reach, while the store has no API keys: anyone could \
         read and delete everything. Make a key first (residuum keys create --data-dir {} --name NAME --scope write), or \
         listen on 127.0.0.1, or pass --allow-unauthenticated if something else guards this port",
        data_dir.display()
    )]
    Open {
        /// The address.
        address: SocketAddr,
        /// The data folder, which has no keys.
        data_dir: PathBuf,
    },
    /// The system refused a thread or a socket.
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
    /// The analysis threads could not be started.
    #[error("the analysis threads could not be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Time that connections have to finish once the server stops.
const CONNECTION_GRACE: Duration = Duration::from_secs(10);

/// The parts of a running server.
pub struct App {
    engine: Engine,
    keys: Arc<KeyRing>,
    serving: Serving,
    router: Router,
    maintainer: Option<Maintainer>,
}

impl App {
    /// Reads the settings of the autoencoders, opens the store and starts the engine. Does not listen yet, and does not
    /// load weights.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn start(config: &Config) -> Result<Self, AppError> {
        let models_dir = config.models_dir.as_deref();
        let sources = AllowedSources::new(models_dir, config.allow_hub)
            .map_err(|source| AppError::ModelsDir { folder: config.models_dir.clone().unwrap_or_default(), source })?;
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
        let options = ServingOptions { load: config.load.clone(), sources, no_restore: config.no_restore };
        let serving = Serving::new(engine.clone(), saes, options);
        let state = ApiState::new(questions, serving.clone(), config.api.clone(), telemetry::metrics());
        let keys = Arc::clone(&state.keys);
        Ok(Self { engine, keys, serving, router: api::router(state), maintainer })
    }

    /// Loads the models, then the autoencoders. What was loaded before a restart is then loaded in the background.
    ///
    /// # Errors
    /// [`LoadError`] of the first that cannot be served.
    pub fn load(
        &self,
        models: Vec<ModelSource>,
        options: LoadOptions,
    ) -> impl Future<Output = Result<(), LoadError>> + Send + 'static {
        let serving = self.serving.clone();
        async move { serving.start(models, options).await }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The HTTP service without a socket, for tests.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Refuses an address that other machines can reach while requests need no key, unless the settings allow it.
    ///
    /// # Errors
    /// [`AppError::Open`], or an error of the store.
    async fn check_exposure(&self, address: SocketAddr, config: &Config) -> Result<(), AppError> {
        if self.keys.requires_keys().await? {
            return Ok(());
        }
        if address.ip().is_loopback() {
            tracing::info!("the store has no API keys: anyone who can reach this port can do everything");
        } else if config.allow_unauthenticated {
            tracing::warn!(%address, "the store has no API keys: anyone who can reach this address can do everything");
        } else {
            return Err(AppError::Open { address, data_dir: config.data_dir.clone() });
        }
        Ok(())
    }

    /// Finishes the work in progress and closes the store.
    pub async fn stop(self) {
        let Self { engine, keys, serving, router, maintainer } = self;
        engine.draining().cancel();
        serving.stop().await;
        engine.drain().await;
        if let Some(maintainer) = maintainer {
            maintainer.stop().await;
        }
        let store = engine.store().clone();
        drop((engine, keys, serving, router));
        store.close().await;
    }
}

/// Serves until `stop` resolves, then finishes the work in progress.
///
/// The server listens before it loads checkpoints, and answers 503 meanwhile, so that probes see it start.
///
/// # Errors
/// [`AppError`]: a store, address or checkpoint is unusable.
pub async fn serve(config: Config, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), AppError> {
    let listen = |source| AppError::Listen { address: config.listen, source };
    // First the socket: if another server has the port, this one fails before it touches the store.
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
        // its handle of the engine is dropped with it, so that the folder is unlocked when this returns
        load.abort();
        drop(load.await);
    }
    if let Some(Ok(())) = loaded {
        tracing::info!(%address, "ready");
        stop.await;
    }
    tracing::info!("stopping: finishing the work in progress");
    draining.cancel();
    if tokio::time::timeout(CONNECTION_GRACE, server).await.is_err() {
        tracing::warn!("some connections did not finish in time and are closed");
    }
    drop(engine);
    app.stop().await;
    tracing::info!("stopped");
    Ok(loaded.unwrap_or(Ok(()))?)
}
