//! Unloading models and autoencoders: they take no new work at once, and go when accepted work has ended.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{
    Serving, detached,
    shelf::{Origin, Served, ServedState},
};
use crate::registry::there_is;
use residuum_domain::{Code, Problem};
use residuum_model::{Model, sae::Sae};

/// Time between two looks at whether anyone still computes with what is to go.
const LOOK: Duration = Duration::from_millis(20);
/// Pause after the store could not be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a run is waited for before the list of unfinished runs is read again.
const RUN_WAIT: Duration = Duration::from_secs(60);

/// What is to be done after something was marked as going.
enum Going<T> {
    /// Nothing: it is gone, or goes already.
    Nothing,
    /// Its load was cancelled.
    Cancelled,
    /// It goes when nobody holds it.
    Held(Weak<T>),
}

impl Serving {
    /// Unloads a model. From now on it takes no new requests; runs that were accepted are computed first, or cancelled
    /// with `cancel_runs`. A load under way is cancelled, and what could not be loaded is forgotten. Stored activations
    /// stay.
    ///
    /// # Errors
    /// `ModelNotFound`; `Conflict` while it has autoencoders, or while the start loads it; and those of the store.
    pub async fn unload_model(&self, id: &str, cancel_runs: bool) -> Result<(), Problem> {
        let (serving, id) = (self.clone(), id.to_owned());
        detached(async move { serving.begin_unloading_model(&id, cancel_runs).await }).await
    }

    async fn begin_unloading_model(&self, id: &str, cancel_runs: bool) -> Result<(), Problem> {
        self.check_can_go(id)?;
        self.engine().store().forget_served_model(id).await?;
        let models = &self.engine().models().shelf;
        let going = models.change(|models| {
            let Some(one) = models.get(id) else { return Ok::<_, Problem>(Going::Nothing) };
            self.refuse_used(id, one)?;
            Ok(begin(models, id))
        })?;
        match going {
            Going::Nothing => {}
            Going::Cancelled => tracing::info!(model = id, "the load of a model is being cancelled"),
            Going::Held(model) => {
                tracing::info!(model = id, "a model is being unloaded");
                let (serving, id) = (self.clone(), id.to_owned());
                self.inner.tasks.spawn(async move { serving.free_model(id, model).await });
            }
        }
        if cancel_runs {
            self.engine().end_unrecorded(id);
            for (tenant, run) in self.engine().store().unfinished_of(id).await? {
                self.engine().cancel(tenant, run).await?;
            }
        }
        // sequences that were generated with it may be the last to hold it
        self.engine().inner.wake_generator.notify_one();
        Ok(())
    }

    /// Unloads an autoencoder, and removes its files if it was uploaded. Questions under way end first.
    ///
    /// # Errors
    /// `SaeNotFound`; `Conflict` while the start loads it; and those of the store.
    pub async fn unload_sae(&self, id: &str) -> Result<(), Problem> {
        let (serving, id) = (self.clone(), id.to_owned());
        detached(async move { serving.begin_unloading_sae(&id).await }).await
    }

    async fn begin_unloading_sae(&self, id: &str) -> Result<(), Problem> {
        let saes = &self.inner.saes.shelf;
        saes.read(|saes| match saes.get(id) {
            Some(one) => refuse_starting(id, one),
            None => {
                let there_is = there_is(saes.keys().map(String::as_str));
                Err(Problem::new(Code::SaeNotFound, format!("there is no such autoencoder here; {there_is}")))
            }
        })?;
        self.engine().store().forget_served_sae(id).await?;
        if let Going::Held(sae) = saes.change(|saes| begin(saes, id)) {
            tracing::info!(sae = id, "an autoencoder is being unloaded");
            let (serving, id) = (self.clone(), id.to_owned());
            self.inner.tasks.spawn(async move { serving.free_sae(id, sae).await });
        }
        Ok(())
    }

    fn check_can_go(&self, id: &str) -> Result<(), Problem> {
        self.engine().models().shelf.read(|models| match models.get(id) {
            Some(one) => self.refuse_used(id, one),
            None => {
                let there_is = there_is(models.keys().map(String::as_str));
                Err(Problem::new(Code::ModelNotFound, format!("there is no such model here; {there_is}")))
            }
        })
    }

    fn refuse_used(&self, id: &str, model: &Served<Model>) -> Result<(), Problem> {
        refuse_starting(id, model)?;
        let saes = if model.state.ready().is_some() { self.inner.saes.of_model(id) } else { Vec::new() };
        if saes.is_empty() {
            return Ok(());
        }
        let detail = format!("the model has autoencoders: {}; unload them first", saes.join(", "));
        Err(Problem::new(Code::Conflict, detail))
    }

    /// Frees a model once its accepted runs have ended and nobody computes with it.
    async fn free_model(&self, id: String, model: Weak<Model>) {
        let (started, draining) = (Instant::now(), self.engine().draining());
        // Whoever accepts a run holds the model until the run is in the store. So if only the list holds it, and the
        // store then knows no unfinished run, nothing more will come.
        loop {
            if draining.is_cancelled() {
                return;
            }
            let unheld = model.strong_count() <= 1;
            match self.engine().store().unfinished_of(&id).await {
                Ok(runs) => match runs.first() {
                    Some((tenant, run)) => drop(self.engine().wait(*tenant, *run, RUN_WAIT).await),
                    None if unheld && model.strong_count() <= 1 => break,
                    None => sleep(LOOK).await,
                },
                Err(error) => {
                    tracing::error!(model = id, %error, "it is not known whether runs of a model have ended");
                    sleep(STORE_PAUSE).await;
                }
            }
        }
        drop(model);
        let (serving, name) = (self.clone(), id.clone());
        let bytes = self.engine().models().shelf.one(&id).and_then(|one| one.memory_bytes);
        let freed = tokio::task::spawn_blocking(move || serving.engine().models().shelf.free(&name)).await;
        if freed.is_err() {
            tracing::error!(model = id, "freeing a model panicked");
        }
        tracing::info!(model = id, bytes, seconds = started.elapsed().as_secs_f64(), "model unloaded");
    }

    async fn free_sae(&self, id: String, sae: Weak<Sae>) {
        let draining = self.engine().draining();
        while sae.strong_count() > 1 {
            if draining.is_cancelled() {
                return;
            }
            sleep(LOOK).await;
        }
        let saes = Arc::clone(&self.inner.saes);
        let name = id.clone();
        let freed = tokio::task::spawn_blocking(move || saes.shelf.free(&name)).await;
        if freed.is_err() {
            tracing::error!(sae = id, "freeing an autoencoder panicked");
        }
        tracing::info!(sae = id, "sparse autoencoder unloaded");
    }
}

fn refuse_starting<T, A>(id: &str, one: &Served<T, A>) -> Result<(), Problem> {
    if one.origin == Origin::Start && matches!(one.state, ServedState::Loading(_)) {
        let detail = format!("the server is starting with `{id}`; wait until it is ready");
        return Err(Problem::new(Code::Conflict, detail).retry_after(2));
    }
    Ok(())
}

/// Marks an entry as going.
fn begin<T, A>(entries: &mut std::collections::BTreeMap<String, Served<T, A>>, id: &str) -> Going<T> {
    let Some(one) = entries.get_mut(id) else { return Going::Nothing };
    match &one.state {
        ServedState::Failed(_) => {
            entries.remove(id);
            Going::Nothing
        }
        ServedState::Unloading(_) => Going::Nothing,
        ServedState::Loading(load) => {
            load.cancel();
            one.state = ServedState::Unloading(None);
            Going::Cancelled
        }
        ServedState::Ready(held) => {
            let (held, weak) = (Arc::clone(held), Arc::downgrade(held));
            one.state = ServedState::Unloading(Some(held));
            Going::Held(weak)
        }
    }
}
