//! A run with everything that a client can have included in its description.

use std::{collections::HashMap, sync::Arc};

use crate::api::{
    caches::cache_tensors,
    dto::{
        cache::CacheDto,
        generate::CompletionDto,
        next_tokens::NextTokensDto,
        run::{CacheValues, RunCompletion, RunDto},
        run_body::Included,
    },
    error::ApiError,
    state::ApiState,
    tensor::{Encoding, TensorDto},
};
use residuum_domain::{Cache, CacheId, Code, Problem, Run, Selection, TenantId};
use residuum_engine::questions::deleted_caches::again;

/// The description of a run, with what was generated and, once it has ended, with what is to be included.
///
/// # Errors
/// [`Code::ResultTooLarge`] for values that exceed the limits of a JSON response, [`Code::Conflict`] if caches are
/// deleted again and again meanwhile, and those of the store.
pub async fn described(state: &ApiState, tenant: TenantId, run: Run, included: Included) -> Result<RunDto, ApiError> {
    let Included { values: wants_values, top_tokens } = included;
    let (mut values, mut next) = (None, None);
    if wants_values && run.status.is_final() {
        values = Some(again(Code::Conflict, || self::values(state, tenant, &run)).await?);
    }
    if let Some(k) = top_tokens.filter(|_| run.status.is_final()) {
        let found = again(Code::Conflict, || state.questions.next_tokens(tenant, &run.caches, k)).await?;
        next = Some(found.into_iter().map(NextTokensDto::from).collect());
    }
    let completions = completions(state, tenant, &run).await?;
    let position = state.engine.pace(run.id).queue_position;
    Ok(RunDto { values, top_tokens: next, completions, ..RunDto::new(run, position) })
}

/// Descriptions of caches with their `k` most probable next tokens. A cache that was deleted meanwhile has none.
///
/// # Errors
/// [`Code::Conflict`] if caches are deleted again and again meanwhile, and those of the store.
pub async fn with_next_tokens(
    state: &ApiState,
    tenant: TenantId,
    caches: Vec<Cache>,
    k: usize,
) -> Result<Vec<CacheDto>, Problem> {
    let ids: Vec<CacheId> = caches.iter().map(|c| c.id).collect();
    let found = again(Code::Conflict, || state.questions.next_tokens(tenant, &ids, k)).await?;
    let mut by_cache: HashMap<CacheId, NextTokensDto> =
        found.into_iter().map(|next| (next.cache, next.into())).collect();
    let describe = |cache: Cache| {
        let top_tokens = by_cache.remove(&cache.id);
        Ok(CacheDto { top_tokens, ..CacheDto::new(cache)? })
    };
    caches.into_iter().map(describe).collect()
}

/// What was generated for the caches that the run lists; `None` unless the run generates and has ended.
async fn completions(state: &ApiState, tenant: TenantId, run: &Run) -> Result<Option<Vec<RunCompletion>>, ApiError> {
    if !run.generates || !run.status.is_final() {
        return Ok(None);
    }
    let caches = state.engine.store().stored(tenant, &run.caches).await?;
    let completion = |cache: Cache| {
        let completion = CompletionDto::new(cache.completion?, &cache.token_ids);
        Some(RunCompletion { cache: cache.id.to_string(), completion })
    };
    Ok(Some(caches.into_iter().flatten().filter_map(|stored| completion(stored.cache)).collect()))
}

/// All tensors of the caches that the run lists, within the limits of a JSON response.
async fn values(state: &ApiState, tenant: TenantId, run: &Run) -> Result<Vec<CacheValues>, Problem> {
    let store = state.engine.store();
    let caches = store.stored(tenant, &run.caches).await?;
    let mut room = state.config.max_json_elements;
    let mut all = Vec::new();
    for stored in caches.into_iter().flatten().map(Arc::new) {
        let mut tensors: Vec<TensorDto> = Vec::new();
        for hook in 0..stored.cache.capture.hooks.len() {
            let selection = Selection::of(&stored.cache, hook, None)?;
            let n = selection.n_served();
            let answer = cache_tensors::answer(&stored, selection, None)?;
            tensors.push(answer.json(store.clone(), Encoding::Nested, room).await?);
            room -= n;
        }
        all.push(CacheValues { cache: stored.cache.id.to_string(), tensors });
    }
    Ok(all)
}
