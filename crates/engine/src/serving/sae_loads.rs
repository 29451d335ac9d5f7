//! Loading an autoencoder while the server runs.

use std::{path::PathBuf, sync::Arc, time::Instant};

use super::{
    Sae, Serving, blocking, check_id, detached, failed, in_use, keep, mistake, read,
    shelf::{Load, Origin, Served, ServedState},
};
use crate::saes::{SaeAbout, ServedSae, log_loaded};
use residuum_domain::{Code, Problem};
use residuum_model::{LoadError, Model, sae::Settings};
use residuum_store::{SaeUpload, ServedRecord};

/// An autoencoder to be loaded.
#[derive(Debug)]
pub struct NewSae {
    /// The name for clients.
    pub id: String,
    /// Name of its model.
    pub model: String,
    /// Where it is.
    pub place: SaePlace,
    /// Load it even if there does not seem to be enough memory.
    pub force: bool,
}

/// Where a new autoencoder is.
#[derive(Debug)]
pub enum SaePlace {
    /// A path in the models folder.
    Source(String),
    /// It was uploaded.
    Upload(SaeUpload),
}

/// An autoencoder that passed all checks that need no weights.
pub(super) struct Checked {
    pub folder: PathBuf,
    /// `None`: it was uploaded.
    pub source: Option<String>,
    pub settings: Arc<Settings>,
    pub needed: u64,
}

impl Serving {
    /// Checks the settings of an autoencoder and begins to load it. It is listed at once.
    ///
    /// # Errors
    /// `InvalidValue` for an id that is none, `Conflict` for one in use, `UnknownModel` for a model that is not loaded,
    /// `LoadingOff`, `UnknownSource`, `LoadFailed` for settings or files that cannot be served, `NotEnoughMemory`,
    /// `Unavailable`, and those of the store. Nothing is changed then.
    pub async fn load_sae(&self, new: NewSae) -> Result<(), Problem> {
        let serving = self.clone();
        detached(async move { serving.begin_load_of_sae(new).await }).await
    }

    async fn begin_load_of_sae(&self, new: NewSae) -> Result<(), Problem> {
        self.accepts()?;
        let NewSae { id, model: model_name, place, force } = new;
        self.check_new_sae(&id, &model_name)?;
        let model = self.model_of_sae(&model_name)?;
        let (place, checked) = {
            let (serving, model) = (self.clone(), Arc::clone(&model));
            blocking(move || serving.check_sae(place, &model)).await?
        };
        if !force {
            self.check_memory(&id, checked.needed)?;
        }
        drop(model);
        let load = Load::default();
        self.begin_sae(&id, &model_name, &checked, &load)?;
        let checked = self.settle(&id, place, checked, &load).await?;
        let serving = self.clone();
        self.inner.tasks.spawn(async move { serving.carry_out_sae(id, model_name, checked, load, true).await });
        Ok(())
    }

    /// Checks id and model, before an upload is received.
    ///
    /// # Errors
    /// As [`Self::load_sae`].
    pub fn check_new_sae(&self, id: &str, model: &str) -> Result<(), Problem> {
        self.accepts()?;
        check_id(id)?;
        if !self.inner.saes.shelf.is_free(id) {
            return Err(in_use(id));
        }
        self.model_of_sae(model).map(drop)
    }

    pub(super) fn model_of_sae(&self, name: &str) -> Result<Arc<Model>, Problem> {
        let unknown = |problem: Problem| Problem::at(Code::UnknownModel, "/model", problem.detail);
        self.engine().models().get(name).map_err(unknown)
    }

    fn check_sae(&self, place: SaePlace, model: &Model) -> Result<(SaePlace, Checked), Problem> {
        let (folder, source) = match &place {
            SaePlace::Source(source) => {
                let (folder, shown) = self.inner.options.sources.sae(source)?;
                (folder, Some(shown))
            }
            SaePlace::Upload(upload) => (upload.folder().to_owned(), None),
        };
        let checked = check_folder(folder, source, model)?;
        Ok((place, checked))
    }

    /// Lists an autoencoder as loading, unless its id is in use or its model has gone meanwhile.
    fn begin_sae(&self, id: &str, model: &str, checked: &Checked, load: &Load) -> Result<(), Problem> {
        let about = SaeAbout { model: model.to_owned(), settings: Some(Arc::clone(&checked.settings)) };
        let entry =
            Served { source: checked.source.clone(), memory_bytes: Some(checked.needed), ..loading(load, about) };
        // models cannot change meanwhile, so that none goes whose autoencoder comes
        self.engine().models().shelf.read(|models| {
            if models.get(model).is_none_or(|one| one.state.ready().is_none()) {
                return Err(Problem::at(
                    Code::UnknownModel,
                    "/model",
                    format!("the model `{model}` is not loaded now"),
                ));
            }
            if self.inner.saes.shelf.begin(id, entry) { Ok(()) } else { Err(in_use(id)) }
        })
    }

    /// Gives an upload its place in the data folder.
    async fn settle(&self, id: &str, place: SaePlace, checked: Checked, load: &Load) -> Result<Checked, Problem> {
        let SaePlace::Upload(upload) = place else { return Ok(checked) };
        let name = id.to_owned();
        match blocking(move || upload.publish(&name).map_err(Problem::from)).await {
            Ok(folder) => Ok(Checked { folder, ..checked }),
            Err(problem) => {
                let saes = &self.inner.saes.shelf;
                saes.end_load(id, load, ServedState::Failed(problem.clone()));
                saes.remove(id);
                Err(problem)
            }
        }
    }

    /// Loads an autoencoder that is listed as loading, when it is its turn. If that fails, the files of an upload that
    /// is `new` are removed. A panic fails the load.
    pub(super) async fn carry_out_sae(&self, id: String, model: String, checked: Checked, load: Load, new: bool) {
        let (serving, name, own) = (self.clone(), id.clone(), load.clone());
        if tokio::spawn(async move { serving.load_sae_in_turn(name, model, checked, own, new).await }).await.is_err() {
            tracing::error!(sae = id, "loading an autoencoder panicked");
            self.inner.saes.shelf.end_load(&id, &load, ServedState::Failed(mistake()));
        }
    }

    async fn load_sae_in_turn(&self, id: String, model: String, checked: Checked, load: Load, new: bool) {
        let saes = &self.inner.saes.shelf;
        let started = Instant::now();
        let Some(turn) = self.turn(&load).await else {
            saes.end_load(&id, &load, ServedState::Unloading(None));
            return;
        };
        let Checked { folder, source, settings, .. } = checked;
        let served = self.model_of_sae(&model);
        let (name, progress, shown) = (id.clone(), load.progress.clone(), shown(source.as_deref()));
        let sae = read(&load, turn, move || {
            let settings = Settings::clone(&settings);
            Sae::load(&name, settings, &folder, &*served?, &progress).map_err(|e| {
                tracing::error!(sae = name, error = %e, "an autoencoder cannot be served");
                failed(&e, Some(&folder), &shown)
            })
        })
        .await;
        let store = self.engine().store();
        match sae {
            Ok(sae) => {
                let sae = Arc::new(sae);
                keep(store.keep_served(ServedRecord::Sae { id: id.clone(), model, source }), &id).await;
                if saes.end_load(&id, &load, ServedState::Ready(Arc::clone(&sae))) {
                    return log_loaded(&sae, started);
                }
                keep(store.forget_served_sae(&id), &id).await;
                tracing::info!(sae = id, "loading an autoencoder was cancelled");
            }
            Err(problem) => {
                // before the name is free again
                if new && source.is_none() {
                    keep(store.forget_served_sae(&id), &id).await;
                }
                let ended = saes.end_load(&id, &load, ServedState::Failed(problem.clone()));
                if ended && !load.progress.is_cancelled() {
                    tracing::error!(sae = id, %problem, "an autoencoder could not be loaded");
                }
            }
        }
    }
}

/// What clients are shown in place of the folder of an autoencoder.
fn shown(source: Option<&str>) -> String {
    source.unwrap_or("the upload").to_owned()
}

/// Checks what can be known of an autoencoder without its weights. Blocks.
pub(super) fn check_folder(folder: PathBuf, source: Option<String>, model: &Model) -> Result<Checked, Problem> {
    let pointer = if source.is_some() { "/source" } else { "/cfg" };
    let refused = |e: &LoadError| {
        let failed = failed(e, Some(&folder), &shown(source.as_deref()));
        Problem::at(failed.code, pointer, failed.detail)
    };
    let settings = Settings::read(&folder).map_err(|e| refused(&e))?;
    Sae::check(&settings, model).map_err(|why| refused(&LoadError::new("cfg.json", why)))?;
    let needed = Sae::memory_needed(&folder).map_err(|e| refused(&e))?;
    Ok(Checked { settings: Arc::new(settings), needed, folder, source })
}

/// An autoencoder that begins to be loaded.
pub(super) fn loading(load: &Load, about: SaeAbout) -> ServedSae {
    Served {
        state: ServedState::Loading(load.clone()),
        origin: Origin::Request,
        source: None,
        memory_bytes: None,
        about,
    }
}
