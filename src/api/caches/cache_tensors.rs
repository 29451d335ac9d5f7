//! Routes for the tensors of one cache: all layers stacked, one layer, and any hook.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};

use crate::api::{
    error::ApiResult,
    extract::{PathHook, PathId, PathLayer, Query, Tenant},
    problems::CacheTensorProblems,
    state::ApiState,
    tensor::{Part, TensorAnswer, TensorDto, TensorQuery, respond},
};
use residuum_domain::{Axis, CacheId, Code, Dtype, Hook, Problem, Selection, Site};
use residuum_engine::questions::mean::read_means;
use residuum_store::StoredCache;

/// The parts of a selection. If `mean` was computed from them, it replaces them.
pub fn part(cache: &Arc<StoredCache>, selection: &Selection, mean: Option<Vec<f32>>, dtype: Dtype) -> Vec<Part> {
    if let Some(mean) = mean {
        let mut bytes = Vec::new();
        dtype.encode(&mean, &mut bytes);
        return vec![Part::Made(bytes.into())];
    }
    let stored = |elements: &std::ops::Range<usize>| Part::Stored {
        cache: Arc::clone(cache),
        hook: selection.hook,
        elements: elements.clone(),
        dtype,
        sent: dtype,
    };
    selection.parts.iter().map(stored).collect()
}

/// The answer with one hook of one cache, without averaging.
///
/// # Errors
/// Never; the signature is that of the similar functions.
pub fn answer(cache: &Arc<StoredCache>, selection: Selection, wanted: Option<Dtype>) -> Result<TensorAnswer, Problem> {
    answer_with(cache, selection, None, wanted)
}

fn answer_with(
    cache: &Arc<StoredCache>,
    selection: Selection,
    mean: Option<Vec<f32>>,
    wanted: Option<Dtype>,
) -> Result<TensorAnswer, Problem> {
    let dtype = wanted.unwrap_or(cache.cache.capture.dtype);
    let hook = cache.cache.capture.hooks[selection.hook];
    let parts = part(cache, &selection, mean, dtype);
    Ok(TensorAnswer::of_hook(hook, selection.shape, selection.axes, dtype, parts))
}

/// Refuses `?hook=`, which only the layer routes take.
///
/// # Errors
/// [`Code::InvalidQuery`] if it is given.
pub fn no_hook_parameter(query: &TensorQuery) -> Result<(), Problem> {
    match query.hook {
        Some(_) => Err(Problem::at(Code::InvalidQuery, "hook", "the path already names the hook")),
        None => Ok(()),
    }
}

async fn one_hook(
    state: &ApiState,
    cache: Arc<StoredCache>,
    hook: Hook,
    query: &TensorQuery,
    headers: &HeaderMap,
) -> ApiResult<Response> {
    let spec = query.spec()?;
    let positions = spec.positions(&cache.cache)?;
    let selection = Selection::of(&cache.cache, cache.cache.hook_index(hook)?, positions.as_ref())?;
    let store = state.engine.store();
    let mean = read_means(store, std::slice::from_ref(&cache), std::slice::from_ref(&selection)).await?.pop().flatten();
    respond(|dtype| answer_with(&cache, selection, mean, dtype), &spec, headers, store, state.config.max_json_elements)
        .await
}

/// Fetch any captured hook
///
/// By its full name, in the format of `?format=` or `Accept`.
#[utoipa::path(
    get, path = "/v1/caches/{id}/tensors/{hook}", operation_id = "getCacheTensor", tag = "caches",
    params(("id" = String, Path, description = "Id of the cache"),
        ("hook" = String, Path, description = "Full hook name", example = "blocks.12.hook_resid_post"), TensorQuery),
    responses((status = 200, description = "The tensor", content((TensorDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))),
        (status = 206, description = "A byte range of a binary format"), (status = 304, description = "Not modified"), CacheTensorProblems)
)]
pub async fn get_tensor(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    PathHook(hook): PathHook,
    Query(query): Query<TensorQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    no_hook_parameter(&query)?;
    let cache = state.questions.stored(tenant, id).await?;
    let unknown = |e: residuum_domain::hook::UnknownHook| {
        Problem::new(Code::HookNotInCache, format!("{e}; the cache has {}", hook_names(&cache)))
    };
    let hook = hook.parse().map_err(unknown)?;
    one_hook(&state, cache, hook, &query, &headers).await
}

fn hook_names(cache: &StoredCache) -> String {
    let names: Vec<String> = cache.cache.capture.hooks.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// The site of `?hook=`; the residual stream after the block if left out.
fn layer_site(query: &TensorQuery) -> Result<Site, Problem> {
    let Some(name) = &query.hook else { return Ok(Site::ResidPost) };
    Site::by_short_name(name).filter(|s| s.in_block()).ok_or_else(|| {
        Problem::at(
            Code::InvalidQuery,
            "hook",
            "hook is a name inside the blocks without its layer, for example resid_post or attn_out",
        )
    })
}

/// Fetch one layer
///
/// The residual stream after the block, or the hook of `?hook=`. Negative layers count from the last.
#[utoipa::path(
    get, path = "/v1/caches/{id}/layers/{layer}", operation_id = "getCacheLayer", tag = "caches",
    params(("id" = String, Path, description = "Id of the cache"),
        ("layer" = i64, Path, description = "Block index from 0; negative numbers count from the last", example = 12), TensorQuery),
    responses((status = 200, description = "The tensor", content((TensorDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))),
        (status = 206, description = "A byte range of a binary format"), (status = 304, description = "Not modified"), CacheTensorProblems)
)]
pub async fn get_layer(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    PathLayer(layer): PathLayer,
    Query(query): Query<TensorQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let site = layer_site(&query)?;
    let cache = state.questions.stored(tenant, id).await?;
    let have = cache.cache.layers_with(site);
    let n_layers = i64::try_from(cache.cache.n_layers).unwrap_or(i64::MAX);
    let index = layer.parse::<i64>().ok().map(|l| if l < 0 { l.saturating_add(n_layers) } else { l });
    let Some(layer) = index.and_then(|l| usize::try_from(l).ok()).filter(|l| have.contains(l)) else {
        let detail = format!(
            "the cache has no layer `{}` of {}; it has {}",
            layer.chars().take(32).collect::<String>(),
            site.name(),
            listed(&have)
        );
        return Err(Problem::new(Code::LayerNotInCache, detail).into());
    };
    one_hook(&state, cache, Hook::block(site, layer), &query, &headers).await
}

fn listed(layers: &[usize]) -> String {
    if layers.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
    format!("layers {}", names.join(", "))
}

/// Fetch all layers
///
/// The residual stream after every captured block, or the hook of `?hook=`, stacked `[n_layers, …]` in ascending order;
/// `layers` lists the layers.
#[utoipa::path(
    get, path = "/v1/caches/{id}/layers", operation_id = "getCacheLayers", tag = "caches",
    params(("id" = String, Path, description = "Id of the cache"), TensorQuery),
    responses((status = 200, description = "The tensor", content((TensorDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))),
        (status = 206, description = "A byte range of a binary format"), (status = 304, description = "Not modified"), CacheTensorProblems)
)]
pub async fn get_layers(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(query): Query<TensorQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let spec = query.spec()?;
    let site = layer_site(&query)?;
    let cache = state.questions.stored(tenant, id).await?;
    let layers = cache.cache.layers_with(site);
    if layers.is_empty() {
        let detail = format!("the cache has no layer of {}; it has {}", site.name(), hook_names(&cache));
        return Err(Problem::new(Code::LayerNotInCache, detail).into());
    }
    let positions = spec.positions(&cache.cache)?;
    let select =
        |l: &usize| Selection::of(&cache.cache, cache.cache.hook_index(Hook::block(site, *l))?, positions.as_ref());
    let selected: Vec<Selection> = layers.iter().map(select).collect::<Result<_, Problem>>()?;
    if selected.iter().any(|s| s.shape != selected[0].shape) {
        return Err(Problem::new(
            Code::ShapeMismatch,
            "the layers differ in shape, so they do not stack; fetch them one by one",
        )
        .into());
    }
    let store = state.engine.store();
    let means = read_means(store, &vec![Arc::clone(&cache); selected.len()], &selected).await?;
    let stored_dtype = cache.cache.capture.dtype;
    let make = |wanted: Option<Dtype>| {
        let dtype = wanted.unwrap_or(stored_dtype);
        let parts = selected.iter().zip(means).flat_map(|(s, mean)| part(&cache, s, mean, dtype)).collect();
        Ok(TensorAnswer {
            hook: site.name().to_owned(),
            layer: None,
            layers: Some(layers),
            caches: None,
            offsets: None,
            shape: [vec![selected.len()], selected[0].shape.clone()].concat(),
            axes: [vec![Axis::Layer], selected[0].axes.clone()].concat(),
            dtype,
            widened: false,
            parts,
        })
    };
    respond(make, &spec, &headers, store, state.config.max_json_elements).await
}
