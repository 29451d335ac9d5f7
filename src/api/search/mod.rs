//! `POST /v1/search`.

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
/// The nearest caches, or token positions, to a cache, a text, a vector or several. Every stored row that the filter leaves
/// is scored, in float32; nothing is approximate. A text is captured first, by a run that waits its turn in the queue and
/// is deleted once its vector has been read. Rows that could not be read are counted and cost nothing else; rows with NaN
/// or infinities, and for the cosine rows of zeros, never rank. Ties go by the cache's id, then by position.
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
