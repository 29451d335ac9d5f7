//! Loading a model while the server runs.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Serving,
    allowed_source::Found,
    blocking, check_id, failed, in_use, keep, mistake, read,
    shelf::{Load, Origin, Served, ServedState},
};
use crate::recovery::log_loaded;
use residuum_domain::Problem;
use residuum_model::{LoadOptions, Model, from_hub, memory_needed};
use residuum_store::ServedRecord;

/// A model to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewModel {
    /// The name for clients.
    pub id: String,
    /// Where it is: a path in the models folder, or a hub name.
    pub source: String,
    /// Load it even if there does not seem to be enough memory.
    pub force: bool,
}

impl Serving {
    /// Begins to load a model. It is listed at once; a load that fails later keeps its reason there.
    ///
    /// # Errors
    /// [`residuum_domain::Code::InvalidValue`] for an id that is none, `Conflict` for one in use, `LoadingOff`,
    /// `UnknownSource`, `NotEnoughMemory`, `Unavailable`. Nothing is changed then.
    pub async fn load_model(&self, new: NewModel) -> Result<(), Problem> {
        self.accepts()?;
        check_id(&new.id)?;
        let models = &self.engine().models().shelf;
        if !models.is_free(&new.id) {
            return Err(in_use(&new.id));
        }
        let (sources, source) = (self.inner.options.sources.clone(), new.source.clone());
        let (found, needed) = blocking(move || {
            let found = sources.model(&source)?;
            // files whose headers cannot be read fail when they are loaded, with a reason
            let needed = match &found {
                Found::Local { location, .. } => memory_needed(location).ok(),
                Found::Hub(_) => None,
            };
            Ok((found, needed))
        })
        .await?;
        if let Some(needed) = needed.filter(|_| !new.force) {
            self.check_memory(&new.id, needed)?;
        }
        let load = Load::default();
        let entry = Served { memory_bytes: needed, ..loading(&load, found.shown()) };
        if !models.begin(&new.id, entry) {
            return Err(in_use(&new.id));
        }
        let serving = self.clone();
        self.inner.tasks.spawn(async move { serving.carry_out_model(new.id, found, new.force, load).await });
        Ok(())
    }

    /// Loads a model that is listed as loading, when it is its turn. A panic fails the load.
    pub(super) async fn carry_out_model(&self, id: String, found: Found, force: bool, load: Load) {
        let (serving, name, own) = (self.clone(), id.clone(), load.clone());
        if tokio::spawn(async move { serving.load_in_turn(name, found, force, own).await }).await.is_err() {
            tracing::error!(model = id, "loading a model panicked");
            self.engine().models().shelf.end_load(&id, &load, ServedState::Failed(mistake()));
        }
    }

    async fn load_in_turn(&self, id: String, found: Found, force: bool, load: Load) {
        let models = &self.engine().models().shelf;
        let Some(turn) = self.turn(&load).await else {
            models.end_load(&id, &load, ServedState::Unloading(None));
            return;
        };
        let started = Instant::now();
        let options = LoadOptions { progress: load.progress.clone(), ..self.inner.options.load.clone() };
        let (serving, name, shown) = (self.clone(), id.clone(), found.shown().to_owned());
        let model = read(&load, turn, move || serving.read_model(&name, &found, force, &options)).await;
        match model {
            Ok(model) => self.model_loaded(&id, Arc::new(model), shown, started, &load).await,
            Err(problem) => {
                let ended = models.end_load(&id, &load, ServedState::Failed(problem.clone()));
                if ended && !load.progress.is_cancelled() {
                    tracing::error!(model = id, source = shown, %problem, "a model could not be loaded");
                } else {
                    tracing::info!(model = id, "loading a model was cancelled");
                }
            }
        }
    }

    fn read_model(&self, id: &str, found: &Found, force: bool, options: &LoadOptions) -> Result<Model, Problem> {
        let location = match found {
            Found::Local { location, .. } => location.clone(),
            Found::Hub(name) => from_hub(name, options).map_err(|e| {
                tracing::error!(model = id, error = %e, "a model could not be fetched from the hub");
                failed(&e, None, name)
            })?,
        };
        let why = |e| {
            tracing::error!(model = id, error = %e, "a checkpoint cannot be served");
            failed(&e, Some(location.path()), found.shown())
        };
        // again: loads that were ahead of this one have taken memory since it was asked for
        let needed = memory_needed(&location).map_err(why)?;
        self.engine().models().shelf.estimate(id, needed);
        if !force {
            self.check_memory(id, needed)?;
        }
        Model::load_from(id, &location, options).map_err(why)
    }

    async fn model_loaded(&self, id: &str, model: Arc<Model>, source: String, started: Instant, load: &Load) {
        let (engine, store) = (self.engine(), self.engine().store());
        let record = ServedRecord::Model { id: id.to_owned(), source };
        keep(store.keep_served(record), id).await;
        let waiting = engine.waiting_for(&model).await;
        if engine.models().shelf.end_load(id, load, ServedState::Ready(Arc::clone(&model))) {
            let bytes = engine.models().shelf.one(id).and_then(|one| one.memory_bytes);
            log_loaded(&model, bytes, started);
            engine.inner.enqueue(waiting);
        } else {
            keep(store.forget_served_model(id), id).await;
            tracing::info!(model = id, "loading a model was cancelled");
        }
    }
}

/// A model that begins to be loaded.
pub(super) fn loading(load: &Load, source: &str) -> Served<Model> {
    Served {
        state: ServedState::Loading(load.clone()),
        origin: Origin::Request,
        source: Some(source.to_owned()),
        memory_bytes: None,
        about: (),
    }
}
