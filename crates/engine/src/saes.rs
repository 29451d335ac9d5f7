//! The sparse autoencoders that belong to the models, and their states.

use std::{path::PathBuf, sync::Arc, time::Instant};

use tokio::sync::watch;

use super::{
    registry::{Registry, there_is},
    serving::shelf::{Served, ServedState, Shelf},
    warnings,
};
use residuum_domain::{Code, Problem};
use residuum_model::{
    LoadError, LoadProgress,
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

/// State of an autoencoder.
pub type SaeState = ServedState<Sae>;

/// What is known about an autoencoder before its weights are read.
#[derive(Debug, Clone)]
pub struct SaeAbout {
    /// Name of its model.
    pub model: String,
    /// The content of its `cfg.json`; `None` if that was not read yet, or could not be.
    pub settings: Option<Arc<Settings>>,
}

/// An autoencoder of the list.
pub type ServedSae = Served<Sae, SaeAbout>;

/// Autoencoders by the name that clients use. Those that the server's flags name are known from the start, and loaded
/// after the models; others come and go.
#[derive(Default)]
pub struct Saes {
    pub(crate) shelf: Shelf<Sae, SaeAbout>,
    sources: Vec<SaeSource>,
}

impl Saes {
    /// Reads the settings of every source.
    ///
    /// # Errors
    /// [`LoadError`] of the first setting that is not understood, naming file and setting.
    pub fn open(sources: Vec<SaeSource>) -> Result<Self, LoadError> {
        let mut served = Vec::new();
        for source in &sources {
            let settings = Some(Arc::new(Settings::read(&source.path)?));
            served.push((source.id.clone(), Served::at_start(SaeAbout { model: source.model.clone(), settings })));
        }
        Ok(Self { shelf: Shelf::of(served), sources })
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
                Sae::load(&source.id, settings, &source.path, &model, &LoadProgress::default()).map(Arc::new)
            });
            let sae = read.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            log_loaded(&sae, started);
            self.shelf.change(|saes| {
                if let Some(one) = saes.get_mut(sae.id()) {
                    one.state = SaeState::Ready(Arc::clone(&sae));
                }
            });
        }
        Ok(())
    }

    /// Everything that is known about the autoencoders, sorted by name.
    #[must_use]
    pub fn served(&self) -> Vec<(String, ServedSae)> {
        self.shelf.all()
    }

    /// Notified of every change of a state; not of progress.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shelf.changes()
    }

    /// Whether every autoencoder that the server's flags name is loaded.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.shelf.start_is_over()
    }

    /// Names of the autoencoders of a model that are loaded, or being loaded.
    pub(crate) fn of_model(&self, model: &str) -> Vec<String> {
        let belongs = |(name, one): (&String, &ServedSae)| {
            let used = matches!(one.state, SaeState::Ready(_) | SaeState::Loading(_));
            (used && one.about.model == model).then(|| name.clone())
        };
        self.shelf.read(|saes| saes.iter().filter_map(belongs).collect())
    }

    /// The autoencoder of this name. `code` is that of the problem if the name is unknown.
    ///
    /// # Errors
    /// `code`, listing the autoencoders there are, or [`Code::Unavailable`] while it loads.
    pub fn get(&self, name: &str, code: Code) -> Result<Arc<Sae>, Problem> {
        self.shelf.read(|saes| match saes.get(name).map(|one| &one.state) {
            Some(SaeState::Ready(sae)) => Ok(Arc::clone(sae)),
            Some(SaeState::Loading(_)) => {
                let detail = format!("the sparse autoencoder {name} is still being loaded");
                Err(Problem::new(Code::Unavailable, detail).retry_after(2))
            }
            Some(SaeState::Unloading(_)) => {
                Err(Problem::new(code, format!("the sparse autoencoder `{name}` is being unloaded")))
            }
            Some(SaeState::Failed(_)) => {
                let detail =
                    format!("the sparse autoencoder `{name}` could not be loaded; GET /v1/saes/{name} says why");
                Err(Problem::new(code, detail))
            }
            None => {
                let there_is = there_is(saes.keys().map(String::as_str));
                let name: String = name.chars().take(100).collect();
                Err(Problem::new(code, format!("there is no sparse autoencoder `{name}` here; {there_is}")))
            }
        })
    }
}

/// Logs that an autoencoder is loaded, with its warnings.
pub(crate) fn log_loaded(sae: &Sae, started: Instant) {
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
}
