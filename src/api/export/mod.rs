//! Exports: activations of many caches as matrices for training, with a description of each row.
//!
//! All checks happen before the first byte is sent ([`residuum_engine::questions::export`]). Then pages of caches are
//! gathered into shards ([`shard`]), each written as one file ([`shard_file`], [`zip`], [`tar`]), or into record
//! batches ([`arrow`]), and sent as fast as the client reads ([`sink`]). Memory holds the tables of one shard, but
//! never all its activations.

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
use residuum_domain::{CacheFilter, Code, Dtype, Problem, RunId, TenantId};
use residuum_engine::questions::{deleted_caches::again, export::ExportPlan};

/// Export a run
///
/// One hook of every cache of a run as matrices: `X` `[n_rows, …]`, or `X.0`, `X.1`, … for several layers. The rows of
/// the caches are concatenated in the order of the inputs, or shuffled with a seed. Further arrays are `row_cache` (index of the row's cache in
/// the manifest), `row_position` and `row_token_id` (-1 if there is none, as for a mean). The manifest has id, label,
/// tags, metadata and text of each cache. The format is safetensors (manifest in `__metadata__`), npz (with `cache_id`
/// and `cache_label`; bfloat16 becomes float32), or an Arrow stream with everything as columns. If one safetensors or
/// npz file would have more than `shard_bytes`, ten thousand caches or four million rows, the export is a tar of
/// several, with `manifest.json` at its end. Exports are streamed; only a single safetensors file has an entity tag and
/// supports ranges. NaN and infinities are not changed. The run must have ended.
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
    let filter = CacheFilter { run: Some(id), ..CacheFilter::default() };
    Ok(again(Code::Conflict, || export(&state, tenant, &filter, spec.clone(), &name, &headers)).await?)
}

/// Export caches
///
/// As `/v1/runs/{id}/export`, for all caches that meet the conditions: by run, the oldest first, and within a run in the
/// order of its inputs. Caches that did not capture the hook are left out; `n_left_out` of the manifest counts them.
#[utoipa::path(
    get, path = "/v1/export", operation_id = "exportCaches", tag = "export",
    params(FilteredExportQuery, ("metadata" = Option<HashMap<String, String>>, Query, style = DeepObject, explode, description = "Has these values at these keys of its metadata, as in the listing of caches", example = json!({"split": "train"}))),
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
    Ok(again(Code::Conflict, || export(&state, tenant, &filter, spec.clone(), "export", &headers)).await?)
}

async fn export(
    state: &ApiState,
    tenant: TenantId,
    filter: &CacheFilter,
    spec: ExportSpec,
    name: &str,
    request: &HeaderMap,
) -> Result<Response, Problem> {
    let store = state.engine.store().clone();
    let ExportSpec { format, question, shard_bytes } = spec;
    let (plan, mut pages) = state.questions.export(tenant, filter, question).await?;
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

/// Headers of a streamed response.
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
