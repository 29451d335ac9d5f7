//! `POST /v1/search`: finds stored rows similar to a query.

mod search_answer;
mod search_body;

use axum::{Json, extract::State};

use super::{
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::SearchProblems,
    runs::create_run::wait_of,
    state::ApiState,
};
pub use search_answer::Hit;
use search_answer::SearchDto;
use search_body::{DEFAULT_WAIT, Search, SearchQuery};

/// Search stored activations
///
/// Finds the caches, or token positions, that are most similar to a cache, a text, a direction, or one or several
/// vectors. The search is exact: every stored row that matches the filter is scored, in float32. A text is captured
/// first, by a run that waits in the queue and is deleted once its vector has been read. Rows that cannot be read are
/// only counted. Rows with NaN or infinities are never hits, nor are rows of zeros for the cosine. Ties are ordered by
/// the id of the cache, then by position.
#[utoipa::path(
    post, path = "/v1/search", operation_id = "search", tag = "search", params(SearchQuery), request_body = Search,
    responses((status = 200, description = "The hits, best first", body = SearchDto), SearchProblems)
)]
pub async fn search(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<SearchQuery>,
    body: JsonBody<Search>,
) -> ApiResult<Json<SearchDto>> {
    let wait = wait_of(Some(query.wait.unwrap_or(DEFAULT_WAIT)))?;
    let request = body.value;
    let (metric, over, k) = (request.metric, request.over, request.k);
    let answer = state.questions.search(tenant, &request.question(wait)?).await?;
    Ok(Json(SearchDto::new(answer, metric, over, k)))
}
