//! The models of this server and their states.

use std::sync::Arc;

use tokio::sync::watch;

use crate::serving::shelf::{Served, ServedState, Shelf};
use residuum_domain::{Code, Problem};
use residuum_model::Model;

/// State of a model.
pub type ModelState = ServedState<Model>;

/// Models by the name that clients use. Those that the server's flags name are known from the start; others come and
/// go.
pub struct Registry {
    pub(crate) shelf: Shelf<Model>,
}

impl Registry {
    /// A registry in which every model is still being loaded.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { shelf: Shelf::of(names.into_iter().map(|name| (name, Served::at_start(())))) }
    }

    /// Adds a loaded model under its name.
    pub fn ready(&self, model: Arc<Model>) {
        self.shelf.change(|models| {
            let one = models.entry(model.info().id.clone()).or_insert_with(|| Served::at_start(()));
            one.state = ModelState::Ready(model);
        });
    }

    /// Every name with its state, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, ModelState)> {
        self.shelf.read(|models| models.iter().map(|(name, one)| (name.clone(), one.state.clone())).collect())
    }

    /// Everything that is known about the models, sorted by name.
    #[must_use]
    pub fn served(&self) -> Vec<(String, Served<Model>)> {
        self.shelf.all()
    }

    /// Notified of every change of a state; not of progress.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shelf.changes()
    }

    /// Whether every model that the server's flags name is loaded.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.shelf.start_is_over()
    }

    /// The model of this name, for a new request; the name comes from a request body.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], saying what is served, or [`Code::Unavailable`] while the model loads.
    pub fn get(&self, name: &str) -> Result<Arc<Model>, Problem> {
        self.shelf.read(|models| {
            let unknown = |detail| Err(Problem::at(Code::UnknownModel, "/model", detail));
            match models.get(name).map(|one| &one.state) {
                Some(ModelState::Ready(model)) => Ok(Arc::clone(model)),
                Some(ModelState::Loading(_)) => {
                    let detail = format!("the model {name} is still being loaded");
                    Err(Problem::new(Code::Unavailable, detail).retry_after(2))
                }
                Some(ModelState::Unloading(_)) => {
                    unknown(format!("the model `{name}` is being unloaded and takes no new requests"))
                }
                Some(ModelState::Failed(_)) => {
                    unknown(format!("the model `{name}` could not be loaded; GET /v1/models/{name} says why"))
                }
                None => {
                    let there_is = there_is(models.keys().map(String::as_str));
                    let name: String = name.chars().take(100).collect();
                    unknown(format!("there is no model `{name}` here; {there_is}"))
                }
            }
        })
    }

    /// The model of this name, for work that was accepted before: also while the model is being unloaded.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn accepted(&self, name: &str) -> Result<Arc<Model>, Problem> {
        let unloading = self.shelf.read(|models| match models.get(name).map(|one| &one.state) {
            Some(ModelState::Unloading(held)) => held.clone(),
            _ => None,
        });
        unloading.map_or_else(|| self.get(name), Ok)
    }
}

/// Says what there is, for someone who asked for something else.
pub(crate) fn there_is<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none is loaded".to_owned() } else { format!("there is {}", names.join(", ")) }
}
