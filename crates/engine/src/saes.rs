//! The sparse autoencoders that belong to the models, and their loading states.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use super::{registry::Registry, warnings};
use residuum_domain::{Code, Problem};
use residuum_model::{
    LoadError,
    sae::{Sae, Settings},
};

/// A sparse autoencoder to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaeSource {
    /// The name clients use.
    pub id: String,
    /// Name of the served model whose activations it encodes.
    pub model: String,
    /// A folder in the format of SAELens.
    pub path: PathBuf,
}

/// Loading state of an autoencoder.
#[derive(Clone)]
pub enum SaeState {
    /// Its settings are read and understood; its weights are not read yet.
    Loading {
        /// Name of its model.
        model: String,
        /// The content of its `cfg.json`.
        settings: Arc<Settings>,
    },
    /// Serving.
    Ready(Arc<Sae>),
}

/// Autoencoders by the name that clients use. All names are known from the start; the weights are loaded after the
/// models.
#[derive(Default)]
pub struct Saes {
    states: RwLock<BTreeMap<String, SaeState>>,
    sources: Vec<SaeSource>,
}

impl Saes {
    /// Reads the settings of every source.
    ///
    /// # Errors
    /// [`LoadError`] of the first setting that is not understood, naming file and setting.
    pub fn open(sources: Vec<SaeSource>) -> Result<Self, LoadError> {
        let mut states = BTreeMap::new();
        for source in &sources {
            let settings = Arc::new(Settings::read(&source.path)?);
            states.insert(source.id.clone(), SaeState::Loading { model: source.model.clone(), settings });
        }
        Ok(Self { states: RwLock::new(states), sources })
    }

    /// Compares every autoencoder with its model, which must be loaded, and reads its weights.
    ///
    /// # Errors
    /// [`LoadError`] of the first that does not match its model or cannot be read, naming file and setting or tensor.
    pub async fn load(&self, models: &Registry) -> Result<(), LoadError> {
        for source in self.sources.clone() {
            let model = models
                .get(&source.model)
                .map_err(|_| LoadError::new(format!("sparse autoencoder {}", source.id), "its model is not served"))?;
            let started = Instant::now();
            let read = tokio::task::spawn_blocking(move || {
                let settings = Settings::read(&source.path)?;
                Sae::load(&source.id, settings, &source.path, &model).map(Arc::new)
            });
            let sae = read.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            tracing::info!(
                sae = sae.id(),
                model = sae.model(),
                hook = %sae.hook(),
                features = sae.d_sae(),
                fingerprint = sae.fingerprint(),
                seconds = started.elapsed().as_secs_f64(),
                "sparse autoencoder loaded"
            );
            warnings::report("sae", sae.id(), sae.warnings());
            let mut states = self.states.write().unwrap_or_else(PoisonError::into_inner);
            states.insert(sae.id().to_owned(), SaeState::Ready(sae));
        }
        Ok(())
    }

    /// Every name with its state, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, SaeState)> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// Whether every autoencoder is loaded.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.all().iter().all(|(_, state)| matches!(state, SaeState::Ready(_)))
    }

    /// The autoencoder of this name. `code` is that of the problem if the name is unknown.
    ///
    /// # Errors
    /// `code`, listing the autoencoders there are, or [`Code::Unavailable`] while it loads.
    pub fn get(&self, name: &str, code: Code) -> Result<Arc<Sae>, Problem> {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        match states.get(name) {
            Some(SaeState::Ready(sae)) => Ok(Arc::clone(sae)),
            Some(SaeState::Loading { .. }) => {
                let detail = format!("the sparse autoencoder {name} is still being loaded");
                Err(Problem::new(Code::Unavailable, detail).retry_after(2))
            }
            None => {
                let names: Vec<&str> = states.keys().map(String::as_str).collect();
                let have = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let name: String = name.chars().take(100).collect();
                Err(Problem::new(code, format!("there is no sparse autoencoder `{name}` here; there is {have}")))
            }
        }
    }
}
