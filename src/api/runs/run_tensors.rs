//! `GET /v1/runs/{id}/tensors/{hook}`: one hook of all caches of a run as one tensor.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};

use crate::api::{
    caches::cache_tensors::{no_hook_parameter, part},
    error::{ApiError, ApiResult},
    extract::{PathHook, PathId, Query, Tenant, not_found},
    problems::RunTensorProblems,
    state::ApiState,
    tensor::{TensorAnswer, TensorDto, TensorQuery, TensorSpec, respond},
};
use residuum_domain::{Axis, CacheId, Code, Dtype, Hook, Problem, RunId, Selection, TenantId};
use residuum_engine::questions::{deleted_caches::again, mean::read_means};
use residuum_store::{Store, StoredCache};

/// Number of caches read from the index at a time.
const PAGE: u32 = 1000;

/// Fetch one hook of a whole run
///
/// `[n, …]` in the order of the inputs if all caches have the same shape. Otherwise their rows are concatenated along
/// the first axis, and `offsets` gives the first row of each cache. The run must have ended.
#[utoipa::path(
    get, path = "/v1/runs/{id}/tensors/{hook}", operation_id = "getRunTensor", tag = "runs",
    params(("id" = String, Path, description = "Id of the run"),
        ("hook" = String, Path, description = "Full hook name", example = "blocks.12.hook_resid_post"), TensorQuery),
    responses((status = 200, description = "The tensor", content((TensorDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))),
        (status = 206, description = "A byte range of a binary format"), (status = 304, description = "Not modified"), RunTensorProblems)
)]
pub async fn get_run_tensor(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    PathHook(hook): PathHook,
    Query(query): Query<TensorQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let spec = query.spec()?;
    no_hook_parameter(&query)?;
    let hook: Hook = hook.parse().map_err(|e: residuum_domain::hook::UnknownHook| {
        Problem::new(Code::HookNotInCache, format!("{e}; give a full name such as blocks.5.hook_resid_post"))
    })?;
    Ok(again(Code::Conflict, || run_tensor(&state, tenant, id, hook, &spec, &headers)).await?)
}

async fn run_tensor(
    state: &ApiState,
    tenant: TenantId,
    id: RunId,
    hook: Hook,
    spec: &TensorSpec,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let store = state.engine.store();
    let run = store.run(tenant, id).await?.ok_or_else(|| not_found::<RunId>(id))?;
    if !run.status.is_final() {
        return Err(Problem::new(
            Code::Conflict,
            format!("the run is {}; its tensor can be fetched once it has ended", run.status),
        ));
    }
    let caches = stored_caches(store, tenant, id).await?;
    let selected = select(&caches, hook, spec)?;
    let means = read_means(store, &caches, &selected).await?;
    let answer = |dtype| stack(hook, &caches, &selected, means, dtype);
    respond(answer, spec, headers, store, state.config.max_json_elements).await.map_err(|ApiError(problem)| problem)
}

async fn stored_caches(store: &Store, tenant: TenantId, run: RunId) -> Result<Vec<Arc<StoredCache>>, Problem> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let page = store.run_caches(tenant, run, from, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        from = u32::try_from(last.item_index).unwrap_or(u32::MAX).saturating_add(1);
        let ids: Vec<CacheId> = page.iter().map(|c| c.id).collect();
        all.extend(store.stored(tenant, &ids).await?.into_iter().flatten().map(Arc::new));
    }
}

fn select(caches: &[Arc<StoredCache>], hook: Hook, spec: &TensorSpec) -> Result<Vec<Selection>, Problem> {
    if caches.is_empty() {
        return Err(Problem::new(Code::Conflict, "the run has no caches"));
    }
    let select = |stored: &Arc<StoredCache>| {
        let cache = &stored.cache;
        Selection::of(cache, cache.hook_index(hook)?, spec.positions(cache)?.as_ref())
    };
    caches.iter().map(select).collect()
}

fn stack(
    hook: Hook,
    caches: &[Arc<StoredCache>],
    selected: &[Selection],
    means: Vec<Option<Vec<f32>>>,
    wanted: Option<Dtype>,
) -> Result<TensorAnswer, Problem> {
    let dtype = wanted.unwrap_or(caches[0].cache.capture.dtype);
    let first = &selected[0];
    let same = selected.iter().all(|s| s.shape == first.shape && s.axes == first.axes);
    let (shape, axes, offsets) = if same {
        ([vec![selected.len()], first.shape.clone()].concat(), [vec![Axis::Item], first.axes.clone()].concat(), None)
    } else {
        concatenated(selected)?
    };
    let parts = caches
        .iter()
        .zip(selected)
        .zip(means)
        .flat_map(|((cache, selection), mean)| part(cache, selection, mean, dtype))
        .collect();
    let mut answer = TensorAnswer::of_hook(hook, shape, axes, dtype, parts);
    answer.caches = Some(caches.iter().map(|c| c.cache.id.to_string()).collect());
    answer.offsets = offsets;
    Ok(answer)
}

type Concatenated = (Vec<usize>, Vec<Axis>, Option<Vec<usize>>);

fn concatenated(selected: &[Selection]) -> Result<Concatenated, Problem> {
    let first = &selected[0];
    let ragged = selected.iter().any(|s| s.axes.first() != Some(&Axis::Pos) || s.shape[1..] != first.shape[1..]);
    if ragged {
        let detail =
            "the caches differ in more than the number of rows, so they do not fit one tensor; fetch each by itself";
        return Err(Problem::new(Code::ShapeMismatch, detail));
    }
    let mut offsets = vec![0];
    for s in selected {
        offsets.push(offsets[offsets.len() - 1] + s.shape[0]);
    }
    let total = offsets[offsets.len() - 1];
    let mut axes = first.axes.clone();
    axes[0] = Axis::Row;
    Ok(([vec![total], first.shape[1..].to_vec()].concat(), axes, Some(offsets)))
}
