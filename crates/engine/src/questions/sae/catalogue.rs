//! Lists the sparse autoencoders and what is known about each.

pub use residuum_model::sae::{Kind, Normalization, Settings};

use crate::{SaeState, questions::Questions};
use residuum_domain::{Code, Problem, Warning};

/// A sparse autoencoder of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct SaeDescription {
    /// The name that clients use.
    pub id: String,
    /// The name of its model.
    pub model: String,
    /// The content of its `cfg.json`.
    pub settings: Settings,
    /// What is known once its weights are loaded.
    pub loaded: Option<LoadedSae>,
    /// Warnings: what `cfg.json` leaves open, and keys that were ignored.
    pub warnings: Vec<Warning>,
}

/// What is known about an autoencoder whose weights are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedSae {
    /// blake3 of weights and settings, in hexadecimal.
    pub fingerprint: String,
    /// Whether the mean of each row is subtracted before encoding, as if the model's writing weights were centred.
    pub centred: bool,
}

impl SaeDescription {
    fn of(id: String, state: &SaeState) -> Self {
        match state {
            SaeState::Loading { model, settings } => Self {
                id,
                model: model.clone(),
                settings: Settings::clone(settings),
                loaded: None,
                warnings: settings.warnings.clone(),
            },
            SaeState::Ready(sae) => Self {
                id: sae.id().to_owned(),
                model: sae.model().to_owned(),
                settings: sae.settings().clone(),
                loaded: Some(LoadedSae { fingerprint: sae.fingerprint().to_owned(), centred: sae.centres() }),
                warnings: sae.warnings().to_vec(),
            },
        }
    }
}

impl Questions {
    /// Every autoencoder, by name.
    #[must_use]
    pub fn sae_descriptions(&self) -> Vec<SaeDescription> {
        self.saes().all().into_iter().map(|(id, state)| SaeDescription::of(id, &state)).collect()
    }

    /// The autoencoder of this name, whether or not its weights are loaded.
    ///
    /// # Errors
    /// [`Code::SaeNotFound`], listing the autoencoders there are.
    pub fn sae_description(&self, name: &str) -> Result<SaeDescription, Problem> {
        let all = self.saes().all();
        match all.iter().find(|(id, _)| id == name) {
            Some((id, state)) => Ok(SaeDescription::of(id.clone(), state)),
            None => {
                let names = all.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
                let detail = format!("there is no such autoencoder here; there is: {names}");
                Err(Problem::new(Code::SaeNotFound, detail))
            }
        }
    }
}
