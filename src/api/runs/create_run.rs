//! `POST /v1/runs`: queues a run and, if the client asks for it, waits for its end.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::run_answer::described;
use crate::api::{
    dto::{
        run::{CreatedRun, DryRun, DryRunHook, DryRunItem, RunDto},
        run_body::{CreateRun, CreateRunQuery, Included},
    },
    error::ApiResult,
    extract::{JsonBody, Query, Tenant, idempotency_key},
    interventions::PostedInterventions,
    limits::MAX_WAIT,
    problems::CreateRunProblems,
    state::ApiState,
};
use residuum_domain::{Code, NewItem, Problem};
use residuum_engine::{Prepared, RunRequest, Submitted, item_shapes};

/// Maximum number of inputs that a dry run describes.
const DRY_RUN_ITEMS: usize = 100;

/// Queue a run
///
/// Checks and tokenises every input, stores the run and answers 202 with its `Location`. With `?wait=SECONDS` the
/// server answers 201 once the run has ended, with whatever status. If one input is bad, the whole request is refused,
/// and the problem points to that input. `include` adds the tensors or the most probable next tokens to the answer.
#[utoipa::path(
    post, path = "/v1/runs", operation_id = "createRun", tag = "runs", params(CreateRunQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "A key that the client chooses. The same key with the same body gives the run that was made first; with another body 422", example = "capture-2026-11-23-a")),
    request_body = CreateRun,
    responses(
        (status = 200, description = "With `dry_run`: what the run would store", body = CreatedRun),
        (status = 201, description = "The run has ended", body = RunDto, headers(("Location" = String, description = "Path of the run"))),
        (status = 202, description = "The run is queued, or already complete if all its activations were stored", body = RunDto, headers(("Location" = String, description = "Path of the run"))),
        CreateRunProblems
    )
)]
pub async fn create_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<CreateRunQuery>,
    headers: HeaderMap,
    body: JsonBody<CreateRun>,
) -> ApiResult<Response> {
    let wait = wait_of(query.wait)?;
    let included = Included::read(&query.include, query.top_k)?;
    let JsonBody { value: mut create, hash, memory } = body;
    let interventions = PostedInterventions::take(&mut create);
    let mut request = create.into_request(tenant, state.engine.limits().max_run_items)?;
    if let Some(asked) = interventions.questions()? {
        request = state.questions.with_interventions(request, &asked).await?;
    }
    if query.dry_run == Some(true) {
        return Ok(Json(dry_run(&state, request).await?).into_response());
    }
    request.idempotency = idempotency_key(&headers)?.map(|key| (key, *hash.as_bytes()));
    let submitted = state.engine.submit(request).await?;
    // the rest may wait long and no longer needs the body
    drop(memory);
    let id = submitted.id();
    let gone = || Problem::new(Code::Conflict, "the run was deleted before it could be answered");
    let run = match submitted {
        Submitted::Answered(run) => *run,
        _ => state.engine.wait(tenant, id, wait).await?.ok_or_else(gone)?,
    };
    let status = if run.status.is_final() && query.wait.is_some() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let dto = described(&state, tenant, run, included).await?;
    let location = HeaderValue::from_str(&format!("/v1/runs/{id}"))
        .map_err(|_| Problem::new(Code::Internal, "a header could not be written"))?;
    Ok((status, [(header::LOCATION, location)], Json(dto)).into_response())
}

/// Checks and converts `?wait=`; 0 if it is left out.
///
/// # Errors
/// [`Code::InvalidQuery`] outside 0 to 600 seconds.
pub fn wait_of(seconds: Option<f64>) -> Result<Duration, Problem> {
    match seconds {
        None => Ok(Duration::ZERO),
        Some(seconds) if (0.0..=MAX_WAIT).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => {
            Err(Problem::at(Code::InvalidQuery, "wait", format!("wait must lie between 0 and {MAX_WAIT} seconds")))
        }
    }
}

async fn dry_run(state: &ApiState, request: RunRequest) -> Result<DryRun, Problem> {
    let Prepared { run, item_bytes, model } = state.engine.prepare(request).await?;
    let item = |(item, n_bytes): (&NewItem, &u64)| DryRunItem {
        token_ids: item.token_ids.clone(),
        tokens: item.tokens.clone(),
        bos: item.bos.clone().into(),
        n_truncated: item.n_truncated,
        n_bytes: *n_bytes,
        interventions: item.interventions.iter().map(|i| i.described.clone()).collect(),
        positions: item.capture.positions.clone(),
        hooks: item_shapes(item, &model).into_iter().map(|(hook, shape)| DryRunHook { hook, shape }).collect(),
    };
    Ok(DryRun {
        object: "dry_run",
        n_items: run.items.len(),
        n_tokens: run.items.iter().map(|i| i.token_ids.len()).sum(),
        n_bytes: item_bytes.iter().sum(),
        items: run.items.iter().zip(&item_bytes).take(DRY_RUN_ITEMS).map(item).collect(),
    })
}
