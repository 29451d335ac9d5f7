//! Loads the models of the start, and queues runs again that a server or a model left unfinished.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Engine, ModelSource,
    queue::{Reuse, UNLIMITED, Unit},
    submit::batch_key,
    unit, warnings,
};
use residuum_domain::Problem;
use residuum_model::{LoadError, LoadOptions, LoadProgress, Location, Model, memory_needed};
use residuum_store::PendingRun;

impl Engine {
    /// Loads the models, one after another, and then queues the unfinished runs of the server's last life.
    ///
    /// # Errors
    /// [`LoadError`] of the first checkpoint that cannot be served, naming file and reason.
    pub async fn load(&self, sources: Vec<ModelSource>, options: LoadOptions) -> Result<(), LoadError> {
        for source in sources {
            let progress = self.inner.models.progress(&source.id);
            let options = LoadOptions { progress, ..options.clone() };
            let started = Instant::now();
            let loaded = tokio::task::spawn_blocking(move || {
                let needed = Location::at(&source.path).ok().flatten().and_then(|place| memory_needed(&place).ok());
                Model::load(&source.id, &source.path.to_string_lossy(), &options).map(|model| (Arc::new(model), needed))
            });
            let (model, needed) = loaded.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            log_loaded(&model, needed, started);
            if let Some(needed) = needed {
                self.inner.models.shelf.estimate(&model.info().id, needed);
            }
            self.inner.models.ready(model);
        }
        self.recover().await;
        Ok(())
    }

    /// Queues the unfinished runs of the server's last life. Items that were in flight when it ended run alone from now
    /// on.
    async fn recover(&self) {
        let pending = match self.inner.store.pending().await {
            Ok(pending) => pending,
            Err(e) => {
                return tracing::error!(error = %e, "unfinished runs could not be read; they wait for the next start");
            }
        };
        for run in pending {
            let units = match self.inner.models.get(&run.model) {
                Ok(model) => self.units_of(&run, &model).await,
                Err(_) => {
                    tracing::warn!(run = %run.id, model = run.model, "a run waits for a model that is not served now");
                    continue;
                }
            };
            match units {
                Ok(units) => self.inner.enqueue(units),
                Err(e) => {
                    tracing::error!(run = %run.id, error = %e, "an unfinished run could not be queued; it waits for the next start");
                }
            }
        }
    }

    /// The items of the runs that wait for this model. Only before the model takes new runs: those are queued already.
    pub(crate) async fn waiting_for(&self, model: &Model) -> Vec<Unit> {
        let name = &model.info().id;
        let pending = match self.inner.store.pending_of(name).await {
            Ok(pending) => pending,
            Err(e) => {
                tracing::error!(error = %e, model = name, "unfinished runs could not be read; they wait for the next start");
                return Vec::new();
            }
        };
        let mut units = Vec::new();
        for run in pending {
            match self.units_of(&run, model).await {
                Ok(items) => units.extend(items),
                Err(e) => {
                    tracing::error!(run = %run.id, error = %e, "an unfinished run could not be queued; it waits for the next start");
                }
            }
        }
        units
    }

    async fn units_of(&self, run: &PendingRun, model: &Model) -> Result<Vec<Unit>, Problem> {
        let edits = self.inner.store.edits(run.id).await?;
        let mut units = Vec::with_capacity(run.items.len());
        for chunk in run.items.chunks(1000) {
            let items = self.inner.store.items(run.id, chunk).await?;
            units.extend(items.iter().map(|(index, item)| {
                let key = batch_key(run.tenant, &run.model, item);
                let max_batch_items = if run.attempted.contains(index) { 1 } else { UNLIMITED };
                Unit {
                    edits: edits.clone(),
                    priority: run.priority,
                    reuse: Reuse::of(run.reuse),
                    max_batch_items,
                    ..unit(run.id, *index, item, key, model)
                }
            }));
        }
        tracing::info!(run = %run.id, items = run.items.len(), "an unfinished run continues");
        Ok(units)
    }
}

/// Logs that a model is loaded, with its warnings.
pub(crate) fn log_loaded(model: &Model, bytes: Option<u64>, started: Instant) {
    let info = model.info();
    tracing::info!(
        model = info.id,
        architecture = info.architecture,
        layers = info.n_layers,
        parameters = info.n_params,
        fingerprint = info.fingerprint,
        bytes,
        seconds = started.elapsed().as_secs_f64(),
        "model loaded"
    );
    warnings::report("model", &info.id, model.warnings());
}

impl super::Registry {
    /// The progress of a model that is being loaded at the start.
    fn progress(&self, name: &str) -> LoadProgress {
        self.shelf.read(|models| match models.get(name).map(|one| &one.state) {
            Some(super::ModelState::Loading(load)) => load.progress.clone(),
            _ => LoadProgress::default(),
        })
    }
}
