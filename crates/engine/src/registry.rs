//! The models of this server and their loading states.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use residuum_domain::{Code, Problem};
use residuum_model::Model;

/// Loading state of a model.
#[derive(Clone)]
pub enum ModelState {
    /// Being loaded.
    Loading,
    /// Serving.
    Ready(Arc<Model>),
}

/// Models by the name that clients use. All names are known from the start; the models are added as they are loaded.
pub struct Registry {
    models: RwLock<BTreeMap<String, ModelState>>,
}

impl Registry {
    /// A registry in which every model is still being loaded.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { models: RwLock::new(names.into_iter().map(|n| (n, ModelState::Loading)).collect()) }
    }

    /// Adds a loaded model under its name.
    pub fn ready(&self, model: Arc<Model>) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.insert(model.info().id.clone(), ModelState::Ready(model));
    }

    /// Every name with its state, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<(String, ModelState)> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().map(|(n, s)| (n.clone(), s.clone())).collect()
    }

    /// Whether every model is serving.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.all().iter().all(|(_, s)| matches!(s, ModelState::Ready(_)))
    }

    /// The model of this name, which comes from a request body.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], listing the models that are served, or [`Code::Unavailable`] while the model loads.
    pub fn get(&self, name: &str) -> Result<Arc<Model>, Problem> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        match models.get(name) {
            Some(ModelState::Ready(model)) => Ok(Arc::clone(model)),
            Some(ModelState::Loading) => {
                Err(Problem::new(Code::Unavailable, format!("the model {name} is still being loaded")).retry_after(2))
            }
            None => {
                let names: Vec<&str> = models.keys().map(String::as_str).collect();
                let name: String = name.chars().take(100).collect();
                let detail = format!("there is no model `{name}` here; there is {}", names.join(", "));
                Err(Problem::at(Code::UnknownModel, "/model", detail))
            }
        }
    }
}
