//! Exports: the activations of many caches as matrices, with what is known of each row, ready to train on.
//!
//! Everything that can be wrong is found before the first byte ([`residuum_engine::questions::export`]). Then pages of caches are
//! gathered to shards ([`shard`]), each a file of its own ([`shard_file`], [`zip`], [`tar`]), or to record batches ([`arrow`]), and
//! written as fast as the client reads ([`sink`]). What is held in memory is bounded by a shard's tables, never by its
//! activations.

mod arrow;
mod export_query;
mod manifest;
mod shard;
mod shard_file;
mod sink;
mod tar;
mod zip;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use self::{
    export_query::{ExportFormat, ExportQuery, ExportSpec, FilteredExportQuery},
    shard::Shard,
    shard_file::{Container, File},
};
use super::{
    error::ApiResult,
    extract::{PathId, Query, QueryWithMetadata, Tenant, not_found},
    problems::{ExportProblems, RunExportProblems},
    state::ApiState,
    tensor::{CONVERTED_FROM, DTYPE, Format, binary},
};
use residuum_domain::{Code, Dtype, Problem, RunId, TenantId};
use residuum_engine::questions::{
    deleted_caches::again,
    export::{ExportPlan, ExportScope},
};

/// Export a run
///
/// One hook of every cache of a run as matrices: `X` `[n_rows, …]`, or `X.0`, `X.1`, … one for each layer, the rows of the caches one
/// after the other in input order. Beside them `row_cache` (the place of the row's cache in the manifest), `row_position` and
/// `row_token_id` (-1 where there is none, as for a mean); the manifest has id, label, tags, metadata and text of each cache. As
/// safetensors (manifest in `__metadata__`), npz (also `cache_id`, `cache_label`; bfloat16 becomes float32), each a tar of shards with
/// `manifest.json` at its end where one file would have more than `shard_bytes`, ten thousand caches or four million rows; or as an
/// Arrow stream with all of it as columns. Exports stream; only a single safetensors file has an entity tag and takes ranges. NaN and
/// infinities are sent as they are. The run must have ended.
#[utoipa::path(
    get, path = "/v1/runs/{id}/export", operation_id = "exportRun", tag = "export",
    params(("id" = String, Path, description = "Id of the run"), ExportQuery),
    responses((status = 200, description = "The export", content((Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/zip"),
        (Vec<u8> = "application/vnd.apache.arrow.stream"), (Vec<u8> = "application/x-tar"))),
        (status = 206, description = "A byte range of a single safetensors file"), (status = 304, description = "Not modified"), RunExportProblems)
)]
pub async fn export_run(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<RunId>,
    Query(query): Query<ExportQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let spec = query.spec()?;
    let run = state.engine.store().run(tenant, id).await?.ok_or_else(|| not_found::<RunId>(id))?;
    if !run.status.is_final() {
        let detail = format!("the run is {}; it can be exported once it has ended", run.status);
        return Err(Problem::new(Code::Conflict, detail).into());
    }
    let name = format!("run-{id}");
    Ok(again(Code::Conflict, || export(&state, tenant, ExportScope::Run(id), spec.clone(), &name, &headers)).await?)
}

/// Export caches
///
/// As `/v1/runs/{id}/export`, of every cache that the conditions find, newest first. Caches that captured none of the hook are left
/// out; the manifest counts them as `n_left_out`.
#[utoipa::path(
    get, path = "/v1/export", operation_id = "exportCaches", tag = "export", params(FilteredExportQuery),
    responses((status = 200, description = "The export", content((Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/zip"),
        (Vec<u8> = "application/vnd.apache.arrow.stream"), (Vec<u8> = "application/x-tar"))),
        (status = 206, description = "A byte range of a single safetensors file"), (status = 304, description = "Not modified"), ExportProblems)
)]
pub async fn export_caches(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    QueryWithMetadata(query, metadata): QueryWithMetadata<FilteredExportQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (filter, spec) = query.parse(metadata)?;
    let scope = || ExportScope::Filter(Box::new(filter.clone()));
    Ok(again(Code::Conflict, || export(&state, tenant, scope(), spec.clone(), "export", &headers)).await?)
}

async fn export(
    state: &ApiState,
    tenant: TenantId,
    scope: ExportScope,
    spec: ExportSpec,
    name: &str,
    request: &HeaderMap,
) -> Result<Response, Problem> {
    let store = state.engine.store().clone();
    let ExportSpec { format, question, shard_bytes } = spec;
    let (plan, mut pages) = state.questions.export(tenant, scope, question).await?;
    let container = match format {
        ExportFormat::Safetensors => Container::Safetensors,
        ExportFormat::Npz => Container::Npz,
        ExportFormat::Arrow => {
            let headers =
                headers(&plan, arrow::sent(plan.dtype), "application/vnd.apache.arrow.stream", name, "arrows")?;
            let body = sink::body(move |sink| async move { arrow::write(pages, plan, &sink, &store).await });
            return Ok((headers, body).into_response());
        }
    };
    let sent = container.sent(plan.dtype);
    let gone = || Problem::new(Code::Conflict, "the caches were deleted while they were looked up");
    let first = Shard::next(&mut pages, &plan, sent, shard_bytes).await?.ok_or_else(gone)?;
    if pages.has_more(&plan).await? {
        let headers = headers(&plan, sent, "application/x-tar", name, "tar")?;
        let rest = (pages, plan);
        let body =
            sink::body(move |sink| async move { tar::write(container, first, rest, shard_bytes, &sink, &store).await });
        return Ok((headers, body).into_response());
    }
    match shard_file::make(container, &first, &plan, sent) {
        File::Plain(assembly) => {
            let headers = dtype_headers(&plan, sent);
            let name = format!("{name}.{}", container.extension());
            binary(assembly, Format::Safetensors.media_type(), &name, headers, request, &store).await
        }
        File::Zip(entries) => {
            let mut headers = headers(&plan, sent, "application/zip", name, container.extension())?;
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(zip::len(&entries)));
            let body = sink::body(move |sink| async move { zip::write(entries, &sink, &store).await });
            Ok((headers, body).into_response())
        }
    }
}

fn dtype_headers(plan: &ExportPlan, sent: Dtype) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(DTYPE, HeaderValue::from_static(sent.name()));
    if sent != plan.dtype {
        headers.insert(CONVERTED_FROM, HeaderValue::from_static(plan.dtype.name()));
    }
    headers
}

/// Headers of what streams.
fn headers(
    plan: &ExportPlan,
    sent: Dtype,
    media_type: &'static str,
    name: &str,
    extension: &str,
) -> Result<HeaderMap, Problem> {
    let mut headers = dtype_headers(plan, sent);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    let disposition = format!("attachment; filename=\"{name}.{extension}\"");
    let disposition = HeaderValue::from_str(&disposition);
    let disposition = disposition.map_err(|_| Problem::new(Code::Internal, "a header could not be written"))?;
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    Ok(headers)
}
