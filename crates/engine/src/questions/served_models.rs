//! Lists the served models and what is known about each.

use super::Questions;
use crate::ModelState;
use residuum_domain::{Code, ModelInfo, Problem, Warning};
use residuum_model::Model;

/// A model of this server.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// The name to use in requests.
    pub id: String,
    /// What is known once it is loaded.
    pub loaded: Option<LoadedModel>,
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
        let describe = |(id, state)| {
            let loaded = match state {
                ModelState::Loading => None,
                ModelState::Ready(model) => Some(LoadedModel::of(&model)),
            };
            ServedModel { id, loaded }
        };
        self.models().all().into_iter().map(describe).collect()
    }

    /// The model of this name.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`], listing the models that are served.
    pub fn served_model(&self, name: &str) -> Result<ServedModel, Problem> {
        let mut all = self.served_models();
        match all.iter().position(|model| model.id == name) {
            Some(i) => Ok(all.swap_remove(i)),
            None => {
                let names: Vec<&str> = all.iter().map(|model| model.id.as_str()).collect();
                let detail = format!("there is no such model here; there is {}", names.join(", "));
                Err(Problem::new(Code::ModelNotFound, detail))
            }
        }
    }
}
