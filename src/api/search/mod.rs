//! `POST /v1/search`.

mod dto;
mod query;
mod rank;

use axum::{Json, extract::State};

use super::{
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::SearchProblems,
    runs::create_run::wait_of,
    state::ApiState,
};
pub use dto::Hit;
use dto::{Over, Search, SearchDto, SearchQuery};
use query::Source;
use rank::Ranked;
pub use rank::{caches_of, describe};
use residuum_domain::{CacheId, Code, Hook, HookName, Positions, Problem, TenantId};
use residuum_store::Take;

/// Hits for one query.
pub const MAX_K: usize = 1000;
/// Queries of one request.
const MAX_QUERIES: usize = 64;
/// Hits of one answer.
pub const MAX_HITS: usize = 10_000;
/// Tokens on either side of a hit.
pub const MAX_CONTEXT: usize = 64;

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
    let wait = wait_of(Some(query.wait.unwrap_or(dto::DEFAULT_WAIT)))?;
    let request = body.value;
    let source = Source::of(&request)?;
    check_sizes(&request, &source)?;
    let filter = request.filter.filter("/filter")?;
    let take = take(&request)?;
    let hook = hook(&state, tenant, &request, &source).await?;
    let vectors = source.vectors(&state, tenant, hook, wait).await?;
    query::check_vectors(&vectors, request.metric, &source)?;
    let plan = state.engine.store().scan_plan(tenant, &filter, hook, &take).await?;
    let width = vectors[0].len();
    if let Some(other) = plan.widths().into_iter().find(|w| *w != width) {
        let detail = format!(
            "the query has {width} values and {hook} has {other} in some of the caches; a filter by model leaves those of one width"
        );
        return Err(Problem::at(Code::ShapeMismatch, source.pointer(), detail).into());
    }
    let excluded = source.cache().filter(|_| request.exclude_self == Some(true));
    let ranked = Ranked::of(&state, plan, vectors, &request, excluded).await?;
    Ok(Json(ranked.answer(&state, tenant, hook, &request).await?))
}

fn check_sizes(request: &Search, source: &Source) -> Result<(), Problem> {
    let refuse = |pointer: &str, detail: String| Err(Problem::at(Code::InvalidValue, pointer, detail));
    if !(1..=MAX_K).contains(&request.k) {
        return refuse("/k", format!("k is {}; it must lie between 1 and {MAX_K}", request.k));
    }
    if request.context > MAX_CONTEXT {
        return refuse("/context", format!("context is {}; it may be {MAX_CONTEXT} at most", request.context));
    }
    let n = source.n_queries();
    if n > MAX_QUERIES {
        return refuse("/query/vectors", format!("there are {n} vectors; at most {MAX_QUERIES} are taken at once"));
    }
    if n * request.k > MAX_HITS {
        let detail =
            format!("{n} queries with {} hits each are more than the {MAX_HITS} that one answer holds", request.k);
        return Err(Problem::at(Code::ResultTooLarge, "/k", detail));
    }
    Ok(())
}

/// Which rows take part.
fn take(request: &Search) -> Result<Take, Problem> {
    match (request.over, &request.position) {
        (Over::Caches, Some(position)) if position.keeps_axis() => Err(Problem::at(
            Code::InvalidValue,
            "/position",
            "a cache is represented by one position: an integer, \"last\" or \"mean\"",
        )),
        (Over::Caches, position) => Ok(Take::One(position.clone())),
        (Over::Positions, None) => Ok(Take::Positions),
        (Over::Positions, Some(_)) => {
            let detail = "position chooses the row of each cache; a search over positions goes through all of them";
            Err(Problem::at(Code::InvalidBody, "/position", detail))
        }
    }
}

/// The hook whose rows are searched.
async fn hook(state: &ApiState, tenant: TenantId, request: &Search, source: &Source) -> Result<Hook, Problem> {
    let name: HookName = request
        .hook
        .parse()
        .map_err(|e: residuum_domain::hook::UnknownHook| Problem::at(Code::UnknownHook, "/hook", e.to_string()))?;
    let hook = match (name, request.layer) {
        (HookName::Full(hook), None) => hook,
        (HookName::Full(hook), Some(_)) => {
            let detail = format!("{hook} is a full name, which leaves no layer to choose");
            return Err(Problem::at(Code::InvalidBody, "/layer", detail));
        }
        (HookName::Short(_), None) => {
            let detail = format!("name the layer of {}, or give the hook's full name", request.hook);
            return Err(Problem::at(Code::InvalidBody, "/layer", detail));
        }
        (HookName::Short(site), Some(layer)) => {
            let n_layers = source.n_layers(state, tenant, request.filter.model.as_deref()).await?;
            Hook::block(site, resolve_layer(layer, n_layers)?)
        }
    };
    if hook.site().is_attention_map() || hook.site().is_index() {
        let detail = format!("{hook} does not hold vectors of one width for each position, which a search compares");
        return Err(Problem::at(Code::InvalidValue, "/hook", detail));
    }
    Ok(hook)
}

fn resolve_layer(layer: i64, n_layers: Option<usize>) -> Result<usize, Problem> {
    let found = match (usize::try_from(layer), n_layers) {
        // without a model any layer may be meant that a model can have
        (Ok(layer), None) => u32::try_from(layer).is_ok().then_some(layer),
        (Err(_), None) => {
            let detail = "a negative layer counts from the last of a model: name one in filter.model";
            return Err(Problem::at(Code::InvalidValue, "/layer", detail));
        }
        (Ok(layer), Some(n)) => (layer < n).then_some(layer),
        (Err(_), Some(n)) => usize::try_from(layer.unsigned_abs()).ok().and_then(|back| n.checked_sub(back)),
    };
    found.ok_or_else(|| {
        let of_model = n_layers.map_or_else(|| "no model has it".to_owned(), |n| format!("the model has {n} layers"));
        let detail = format!("layer {layer} does not exist: {of_model}");
        Problem::at(Code::LayerOutOfRange, "/layer", detail)
    })
}

/// A position of a query, where it is given: it must be one.
fn one_position(position: Option<&Positions>) -> Result<(), Problem> {
    match position {
        Some(position) if position.keeps_axis() => Err(Problem::at(
            Code::InvalidValue,
            "/query/position",
            "a query has one position: an integer, \"last\" or \"mean\"",
        )),
        _ => Ok(()),
    }
}

/// The cache that a query names.
type QueryCache = (CacheId, String);
