//! Routes that list, read, cancel and delete runs.

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    create_run::wait_of,
    run_answer::{described, with_next_tokens},
};
use crate::api::{
    dto::{
        Page,
        cache::CacheDto,
        cursor, page_limit, query_time,
        run::RunDto,
        run_body::{Include, IncludeTopTokens, Included},
    },
    error::ApiResult,
    extract::{NoQuery, PathId, Query, Tenant, not_found},
    problems::{ListProblems, RunChangeProblems, RunListProblems, RunProblems},
    state::ApiState,
};
use residuum_domain::{Code, Problem, RunId, RunStatus};
use residuum_store::RunFilter;

/// Filters of a listing of runs. A run must match all of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Has this status.
    pub status: Option<String>,
    /// Name of the model.
    pub model: Option<String>,
    /// Has this tag; may be repeated: has all of them.
    #[serde(default)]
    pub tag: Vec<String>,
    /// Accepted at or after this time (RFC 3339).
    pub created_from: Option<String>,
    /// Accepted before this time (RFC 3339).
    pub created_to: Option<String>,
    /// Items on a page, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

/// List runs
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/runs", operation_id = "listRuns", tag = "runs", params(RunsQuery),
    responses((status = 200, description = "A page of runs", body = Page<RunDto>), ListProblems)
)]
pub async fn list_runs(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<RunsQuery>,
) -> ApiResult<Json<Page<RunDto>>> {
    let limit = page_limit(query.limit)?;
    let before: Option<RunId> = cursor(query.cursor.as_deref())?;
    let status = query
        .status
        .map(|s| {
            let names: Vec<&str> = RunStatus::ALL.iter().map(|s| s.name()).collect();
            let detail = format!("status is one of {}", names.join(", "));
            RunStatus::by_name(&s).ok_or_else(|| Problem::at(Code::InvalidQuery, "status", detail))
        })
        .transpose()?;
    let filter = RunFilter {
        status,
        model: query.model,
        tags: query.tag,
        created_from: query_time("created_from", query.created_from.as_deref())?,
        created_to: query_time("created_to", query.created_to.as_deref())?,
    };
    let runs = state.engine.store().runs(tenant, filter, before, limit + 1).await?;
    let dto = |run: residuum_domain::Run| {
        let position = state.engine.pace(run.id).queue_position;
        RunDto::new(run, position)
    };
    Ok(Json(Page::cut(runs, limit, |r| r.id, dto)))
}

/// How long to wait for a run, and what to include in its description.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// Seconds to wait for the run to end, at most 600. The response shows the run after that wait.
    #[param(minimum = 0, maximum = 600, example = 30)]
    pub wait: Option<f64>,
    /// What the response includes besides the run, if the run has ended: `values`, `top_tokens`, or both (repeated, or
    /// with a comma between them).
    #[serde(default)]
    #[param(value_type = Option<Vec<Include>>, example = json!(["top_tokens"]))]
    pub include: Vec<String>,
    /// With `include=top_tokens`: how many tokens of each cache.
    #[param(minimum = 1, maximum = 100, default = 10)]
    pub top_k: Option<usize>,
}

/// Read a run
///
/// Its status, its counts and its first hundred caches. With `?wait=SECONDS` the server answers once the run has ended,
/// or when the time is over. `include` adds the tensors, or the most probable next tokens.
#[utoipa::path(
    get, path = "/v1/runs/{id}", operation_id = "getRun", tag = "runs",
    params(RunQuery, ("id" = String, Path, description = "Id of the run")),
    responses((status = 200, description = "The run", body = RunDto), RunProblems)
)]
pub async fn get_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(query): Query<RunQuery>,
) -> ApiResult<Json<RunDto>> {
    let included = Included::read(&query.include, query.top_k)?;
    let run = state.engine.wait(tenant, id, wait_of(query.wait)?).await?;
    let run = run.ok_or_else(|| not_found::<RunId>(id))?;
    Ok(Json(described(&state, tenant, run, included).await?))
}

/// Cancel a run
///
/// No more of its inputs are started, and batches that compute only this run stop. Existing caches are kept. A run that
/// has ended is not changed.
#[utoipa::path(
    post, path = "/v1/runs/{id}/cancel", operation_id = "cancelRun", tag = "runs", params(("id" = String, Path, description = "Id of the run")),
    responses((status = 200, description = "The run after the request", body = RunDto), RunChangeProblems)
)]
pub async fn cancel_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Json<RunDto>> {
    let run = state.engine.cancel(tenant, id).await?.ok_or_else(|| not_found::<RunId>(id))?;
    Ok(Json(RunDto::new(run, None)))
}

/// Delete a run
///
/// Deletes the run and all its caches. A run that has not ended is cancelled first.
#[utoipa::path(
    delete, path = "/v1/runs/{id}", operation_id = "deleteRun", tag = "runs", params(("id" = String, Path, description = "Id of the run")),
    responses((status = 204, description = "Deleted"), RunChangeProblems)
)]
pub async fn delete_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<StatusCode> {
    if state.engine.delete(tenant, id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(not_found::<RunId>(id).into()) }
}

/// A page of a run's caches, and what to include in their descriptions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunCachesQuery {
    /// `top_tokens`: each cache has its most probable next tokens, if it captured `logits`.
    #[serde(default)]
    #[param(value_type = Option<Vec<IncludeTopTokens>>, example = json!(["top_tokens"]))]
    pub include: Vec<String>,
    /// With `include=top_tokens`: how many tokens of each cache.
    #[param(minimum = 1, maximum = 100, default = 10)]
    pub top_k: Option<usize>,
    /// Items on a page, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

/// List a run's caches
///
/// In the order of the inputs. With `include=top_tokens` each has its most probable next tokens.
#[utoipa::path(
    get, path = "/v1/runs/{id}/caches", operation_id = "listRunCaches", tag = "runs",
    params(("id" = String, Path, description = "Id of the run"), RunCachesQuery),
    responses((status = 200, description = "A page of caches", body = Page<CacheDto>), RunListProblems)
)]
pub async fn list_run_caches(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(query): Query<RunCachesQuery>,
) -> ApiResult<Json<Page<CacheDto>>> {
    let top_tokens = Included::read_top_tokens(&query.include, query.top_k)?;
    let limit = page_limit(query.limit)?;
    let after: Option<u32> = cursor(query.cursor.as_deref())?;
    let from = after.map_or(0, |item| item.saturating_add(1));
    if state.engine.store().run(tenant, id).await?.is_none() {
        return Err(not_found::<RunId>(id).into());
    }
    let caches = state.engine.store().run_caches(tenant, id, from, limit + 1).await?;
    let page = Page::cut(caches, limit, |c| c.item_index, |cache| cache);
    let items = match top_tokens {
        Some(k) => with_next_tokens(&state, tenant, page.items, k).await?,
        None => page.items.into_iter().map(CacheDto::new).collect::<Result<_, _>>()?,
    };
    Ok(Json(Page::new(items, page.next_cursor)))
}
