//! Lists the sparse autoencoders and what is known about each.

pub use residuum_model::sae::{Kind, Normalization, Settings};

use crate::{
    SaeState, ServedSae,
    questions::{Questions, served_models::ServingState},
    registry::there_is,
};
use residuum_domain::{Code, Problem, Warning};

/// A sparse autoencoder of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct SaeDescription {
    /// The name that clients use.
    pub id: String,
    /// The name of its model.
    pub model: String,
    /// The content of its `cfg.json`; `None` if it was not read yet, or could not be.
    pub settings: Option<Settings>,
    /// What is known once its weights are loaded.
    pub loaded: Option<LoadedSae>,
    /// Warnings: what `cfg.json` leaves open, and keys that were ignored.
    pub warnings: Vec<Warning>,
    /// How it is served.
    pub serving: ServingState,
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
    fn of(id: String, one: &ServedSae) -> Self {
        let held = match &one.state {
            SaeState::Ready(sae) => Some(sae),
            SaeState::Unloading(held) => held.as_ref(),
            _ => None,
        };
        let settings = held.map(|sae| sae.settings()).or(one.about.settings.as_deref());
        let warnings = held.map(|sae| sae.warnings()).or(settings.map(|settings| &settings.warnings[..]));
        Self {
            id,
            model: one.about.model.clone(),
            settings: settings.cloned(),
            loaded: held.map(|sae| LoadedSae { fingerprint: sae.fingerprint().to_owned(), centred: sae.centres() }),
            warnings: warnings.unwrap_or_default().to_vec(),
            serving: ServingState::of(one),
        }
    }
}

impl Questions {
    /// Every autoencoder, by name.
    #[must_use]
    pub fn sae_descriptions(&self) -> Vec<SaeDescription> {
        self.saes().served().into_iter().map(|(id, one)| SaeDescription::of(id, &one)).collect()
    }

    /// The autoencoder of this name, whether or not its weights are loaded.
    ///
    /// # Errors
    /// [`Code::SaeNotFound`], listing the autoencoders there are.
    pub fn sae_description(&self, name: &str) -> Result<SaeDescription, Problem> {
        let all = self.saes().served();
        match all.iter().find(|(id, _)| id == name) {
            Some((id, one)) => Ok(SaeDescription::of(id.clone(), one)),
            None => {
                let there_is = there_is(all.iter().map(|(id, _)| id.as_str()));
                Err(Problem::new(Code::SaeNotFound, format!("there is no such autoencoder here; {there_is}")))
            }
        }
    }
}
