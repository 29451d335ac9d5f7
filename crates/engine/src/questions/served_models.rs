//! Lists the served models and what is known about each.

use super::Questions;
use crate::{
    registry::there_is,
    serving::shelf::{Origin, Served, ServedState},
};
use residuum_domain::{Code, ModelInfo, Problem, Warning};
use residuum_model::Model;
pub use residuum_model::{LoadSnapshot, LoadStage};

/// A model of this server.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// The name to use in requests.
    pub id: String,
    /// What is known while it is ready.
    pub loaded: Option<LoadedModel>,
    /// How it is served.
    pub serving: ServingState,
}

/// How a model or autoencoder is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingState {
    /// `loading`, `ready`, `unloading` or `failed`.
    pub status: &'static str,
    /// Whether that stays as it is until someone asks for a change.
    pub is_final: bool,
    /// How far its load has come, while it loads.
    pub progress: Option<LoadSnapshot>,
    /// Why it could not be loaded.
    pub error: Option<Problem>,
    /// Where a request loaded it from.
    pub source: Option<String>,
    /// Whether a request loaded it, and not the flags of the server.
    pub at_run_time: bool,
    /// Estimated bytes of memory that it takes.
    pub memory_bytes: Option<u64>,
}

impl ServingState {
    /// That of an entry.
    pub(crate) fn of<T, A>(one: &Served<T, A>) -> Self {
        Self {
            status: one.state.name(),
            is_final: one.state.is_final(),
            progress: match &one.state {
                ServedState::Loading(load) => Some(load.progress.now()),
                _ => None,
            },
            error: match &one.state {
                ServedState::Failed(problem) => Some(problem.clone()),
                _ => None,
            },
            source: one.source.clone(),
            at_run_time: one.origin == Origin::Request,
            memory_bytes: one.memory_bytes,
        }
    }
}

/// A model that is loaded.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// Its sizes and hooks.
    pub info: ModelInfo,
    /// Whether the tokenizer adds a BOS token to texts by default.
    pub adds_bos: bool,
    /// The BOS token: its id and its text.
    pub bos: Option<(u32, String)>,
    /// Whether chats can be rendered.
    pub has_chat_template: bool,
    /// What is unusual about the checkpoint, but did not stop it from loading.
    pub warnings: Vec<Warning>,
}

impl LoadedModel {
    fn of(model: &Model) -> Self {
        let tokenizer = model.tokenizer();
        Self {
            info: model.info().clone(),
            adds_bos: tokenizer.adds_bos(),
            bos: tokenizer.bos_token().map(|(id, token)| (id, token.to_owned())),
            has_chat_template: tokenizer.has_chat_template(),
            warnings: model.warnings().to_vec(),
        }
    }
}

impl Questions {
    /// Every model, sorted by name.
    #[must_use]
    pub fn served_models(&self) -> Vec<ServedModel> {
        self.models().served().into_iter().map(|(id, one)| describe(id, &one)).collect()
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`], listing the models that are served.
    pub fn served_model(&self, name: &str) -> Result<ServedModel, Problem> {
        let mut all = self.models().served();
        match all.iter().position(|(id, _)| id == name) {
            Some(i) => {
                let (id, one) = all.swap_remove(i);
                Ok(describe(id, &one))
            }
            None => {
                let there_is = there_is(all.iter().map(|(id, _)| id.as_str()));
                Err(Problem::new(Code::ModelNotFound, format!("there is no such model here; {there_is}")))
            }
        }
    }
}

fn describe(id: String, one: &Served<Model>) -> ServedModel {
    let loaded = match &one.state {
        ServedState::Ready(model) => Some(LoadedModel::of(model)),
        _ => None,
    };
    ServedModel { id, loaded, serving: ServingState::of(one) }
}
