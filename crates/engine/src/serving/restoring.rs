//! Loads again what was loaded before a restart.

use std::sync::Arc;

use super::{
    Serving, blocking, model_loads, sae_loads,
    shelf::{Load, Served, ServedState},
};
use crate::saes::SaeAbout;
use residuum_domain::{Code, Problem};
use residuum_store::ServedRecord;

impl Serving {
    /// Lists everything that was loaded before a restart, and loads it in the same order, in the background. What
    /// cannot be loaded stays listed with its reason.
    pub(super) async fn restore(&self) {
        let records = match self.engine().store().served().await {
            Ok(records) => records,
            Err(error) => {
                return tracing::error!(%error, "it could not be read what was loaded before; nothing of it is loaded again");
            }
        };
        let mut begun = Vec::new();
        for record in records {
            let load = Load::default();
            let is_free = match &record {
                ServedRecord::Model { id, source } => {
                    self.engine().models().shelf.begin(id, model_loads::loading(&load, source))
                }
                ServedRecord::Sae { id, model, source } => {
                    let about = SaeAbout { model: model.clone(), settings: None };
                    let entry = Served { source: source.clone(), ..sae_loads::loading(&load, about) };
                    self.inner.saes.shelf.begin(id, entry)
                }
            };
            if is_free {
                begun.push((record, load));
            } else {
                let (ServedRecord::Model { id, .. } | ServedRecord::Sae { id, .. }) = &record;
                tracing::warn!(id, "this was loaded before the restart, and its id is now used by something else");
            }
        }
        let serving = self.clone();
        self.inner.tasks.spawn(async move {
            for (record, load) in begun {
                match record {
                    ServedRecord::Model { id, source } => serving.restore_model(id, source, load).await,
                    ServedRecord::Sae { id, model, source } => serving.restore_sae(id, model, source, load).await,
                }
            }
        });
    }

    async fn restore_model(&self, id: String, source: String, load: Load) {
        let sources = self.inner.options.sources.clone();
        match blocking(move || sources.model(&source)).await {
            Ok(found) => self.carry_out_model(id, found, false, load).await,
            Err(problem) => {
                tracing::error!(model = id, %problem, "a model that was loaded before the restart is not loaded");
                self.engine().models().shelf.end_load(&id, &load, ServedState::Failed(problem));
            }
        }
    }

    async fn restore_sae(&self, id: String, model: String, source: Option<String>, load: Load) {
        let checked = async {
            let served = self.model_of_sae(&model)?;
            let (sources, uploaded) = (self.inner.options.sources.clone(), self.engine().store().sae_folder(&id));
            blocking(move || {
                let (folder, source) = match source {
                    Some(source) => sources.sae(&source).map(|(folder, shown)| (folder, Some(shown)))?,
                    None if uploaded.is_dir() => (uploaded, None),
                    None => return Err(Problem::new(Code::LoadFailed, "the uploaded files are no longer there")),
                };
                sae_loads::check_folder(folder, source, &served)
            })
            .await
        };
        let checked = checked.await.and_then(|checked| {
            self.check_memory(&id, checked.needed)?;
            Ok(checked)
        });
        let saes = &self.inner.saes.shelf;
        match checked {
            Ok(checked) => {
                saes.change(|saes| {
                    if let Some(one) = saes.get_mut(&id) {
                        one.memory_bytes = Some(checked.needed);
                        one.about.settings = Some(Arc::clone(&checked.settings));
                    }
                });
                self.carry_out_sae(id, model, checked, load, false).await;
            }
            Err(problem) => {
                tracing::error!(sae = id, %problem, "an autoencoder that was loaded before the restart is not loaded");
                saes.end_load(&id, &load, ServedState::Failed(problem));
            }
        }
    }
}
