//! Finds the served model that made a cache, and which of the cache's tokens are special.

use std::sync::Arc;

use crate::{ModelState, Registry};
use residuum_domain::{Cache, Code, ModelInfo, Problem};
use residuum_model::Model;

/// The model whose weights made this cache, whatever its name is now.
///
/// # Errors
/// [`Code::Conflict`] if these weights are not served, saying what is; [`Code::Unavailable`] while they may be loading.
pub fn model_of(models: &Registry, cache: &Cache) -> Result<Arc<Model>, Problem> {
    let wanted = &cache.provenance.model_fingerprint;
    let all = models.all();
    let ready = |(_, state): &(String, ModelState)| match state {
        ModelState::Ready(model) => Some(Arc::clone(model)),
        _ => None,
    };
    if let Some(model) = all.iter().filter_map(ready).find(|m| m.info().fingerprint == *wanted) {
        check_shapes(model.info(), cache)?;
        return Ok(model);
    }
    if all.iter().any(|(_, state)| matches!(state, ModelState::Loading(_))) {
        return Err(Problem::new(Code::Unavailable, "a model is still being loaded").retry_after(2));
    }
    let short = |fingerprint: &str| fingerprint.chars().take(12).collect::<String>();
    let same_name = all.iter().filter_map(ready).find(|m| m.info().id == cache.model);
    let reason = match same_name {
        Some(other) => format!("`{}` is now {}…", cache.model, short(&other.info().fingerprint)),
        None => format!("`{}` is not served", cache.model),
    };
    if wanted.is_empty() {
        let detail = format!(
            "this needs the weights that made the cache; it was imported without `model_fingerprint`, and {reason}"
        );
        return Err(Problem::new(Code::Conflict, detail));
    }
    let detail = format!(
        "this needs the weights that made the cache, fingerprint {}…, and no model served here has them: {reason}",
        short(wanted)
    );
    Err(Problem::new(Code::Conflict, detail))
}

/// Tells which tokens of caches are special, if the models that made them are served.
pub struct SpecialTokens(Vec<Arc<Model>>);

impl SpecialTokens {
    /// With the models that are loaded now.
    pub fn of(models: &Registry) -> Self {
        let ready = |(_, state)| match state {
            ModelState::Ready(model) => Some(model),
            _ => None,
        };
        Self(models.all().into_iter().filter_map(ready).collect())
    }

    /// Whether the token at a position of the cache is special; `None` if its id is not known or its model is not
    /// served.
    pub fn at(&self, cache: &Cache, position: usize) -> Option<bool> {
        let id = cache.token_ids.get(position).filter(|_| cache.knows_token_ids())?;
        let made_by = &cache.provenance.model_fingerprint;
        let model = self.0.iter().find(|model| model.info().fingerprint == *made_by)?;
        Some(model.tokenizer().is_special(*id))
    }
}

/// Checks that a model can have made the tensors of a cache: an import may name the wrong weights.
///
/// # Errors
/// [`Code::Conflict`] at the first hook that the model lacks or has in another shape.
fn check_shapes(model: &ModelInfo, cache: &Cache) -> Result<(), Problem> {
    if cache.origin.is_none() {
        return Ok(());
    }
    for (hook, shape) in cache.capture.hooks.iter().zip(&cache.row_shapes) {
        if !model.has(*hook) || model.row_shape(hook.site()) != *shape {
            let detail = format!(
                "the cache was imported with the fingerprint of `{}`, which has no {hook} with rows of shape {shape:?}",
                model.id
            );
            return Err(Problem::new(Code::Conflict, detail));
        }
    }
    Ok(())
}
