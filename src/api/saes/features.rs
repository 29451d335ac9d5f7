//! `POST /v1/caches/{id}/features`.

mod answer;
mod positions;

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::matching;
use crate::api::{
    dto::capture::PositionsRequestSchema,
    error::ApiResult,
    extract::{JsonBody, PathId, Query, Tenant},
    problems::FeaturesProblems,
    state::ApiState,
    tensor::{Format, POSITIONS, Part, TensorAnswer, respond_to_post},
};
use answer::FeaturesDto;
use positions::Wanted;
use residuum_domain::{Axis, CacheId, Code, Dtype, PositionsRequest, Problem, Warning};
use residuum_engine::questions::{
    direction::check_feature, readout_rows::select, row_reader::read_rows, served::model_of,
};
use residuum_model::{Model, sae::Sae};
use residuum_store::{Store, StoredCache};

/// Strongest features of one position, and chosen features.
const MAX_FEATURES: usize = 1000;
/// Numbers of one JSON answer.
const MAX_CELLS: usize = 1_000_000;
/// Multiply-adds of one request: some ten seconds.
/// Bytes of a tensor answer, which is held in memory.
const MAX_TENSOR_BYTES: usize = 256 << 20;
const MAX_WORK: usize = 2_000_000_000_000;
/// Activations that are held at a time.
const BLOCK_ACTIVATIONS: usize = 1 << 22;

/// What to encode.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeaturesRequest, example = json!({"sae": "res-12", "positions": "all", "top_k": 5, "features": [123]}))]
pub struct Features {
    /// The autoencoder.
    sae: String,
    /// Positions, by number, by text or by kind: `{"special": false}` are those stored whose tokens are not special. Not those
    /// of a message. If left out: all that the cache has, but for tokens that the autoencoder was not trained on
    /// (`exclude_special_tokens` of its settings); `left_out` in the answer says so.
    #[schema(value_type = Option<PositionsRequestSchema>)]
    positions: Option<PositionsRequest>,
    /// Strongest features to name at each position, at most 1000; 10 if left out.
    top_k: Option<usize>,
    /// Features to give the activations of at each position, at most 1000.
    features: Option<Vec<usize>>,
    /// Encode although the cache begins with a BOS token and the autoencoder was trained without, or the other way round;
    /// the answer then warns. Refused if left out.
    #[serde(default)]
    #[schema(default = false)]
    allow_bos_mismatch: bool,
}

/// How the features are answered.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeaturesQuery {
    /// `json` describes each position; `npy`, `safetensors` and `raw` are the activations, float32 `[pos, feature]`: of the
    /// chosen `features`, else of all; where the request names no positions by number, the header `Residuum-Positions` says which
    /// they are (`1:4,6` are 1, 2, 3 and 6). Beats the `Accept` header.
    format: Option<Format>,
}

/// Encode stored activations to features
///
/// The features of a sparse autoencoder that are active at each position of a cache, and how well they reconstruct what was
/// stored. No forward pass is run. The cache must have been made by the model that the autoencoder stands beside, and must have
/// captured its hook. Special tokens are marked: BOS and other attention sinks usually have an enormous norm, features of their
/// own and a reconstruction that says nothing of the others, so `summary` is given with and without them.
#[utoipa::path(
    post, path = "/v1/caches/{id}/features", operation_id = "encodeFeatures", tag = "saes", request_body = Features,
    params(("id" = String, Path, description = "Id of the cache"), FeaturesQuery),
    responses((status = 200, description = "The features", content((FeaturesDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))), FeaturesProblems)
)]
pub async fn encode_features(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    PathId(id): PathId<CacheId>,
    Query(query): Query<FeaturesQuery>,
    headers: HeaderMap,
    body: JsonBody<Features>,
) -> ApiResult<Response> {
    let request = body.value;
    let format = Format::negotiate(query.format, &headers)?;
    let cache = state.questions.stored(tenant, id).await?;
    let encoding = Encoded::new(&state, cache, request)?;
    if format != Format::Json {
        return tensor(&state, encoding, format).await;
    }
    let cells = encoding.positions().len().saturating_mul(encoding.top_k() + encoding.chosen().len() + 1);
    if cells > MAX_CELLS {
        let detail = format!(
            "the answer would hold {cells} entries; {MAX_CELLS} are allowed. Ask for fewer positions or features, or for format=npy"
        );
        return Err(Problem::new(Code::ResultTooLarge, detail).into());
    }
    Ok(Json(state.questions.analyse(move || answer::describe(&encoding)).await?).into_response())
}

/// A request, checked.
struct Encoded {
    store: Store,
    cache: Arc<StoredCache>,
    model: Arc<Model>,
    sae: Arc<Sae>,
    wanted: Wanted,
    request: Features,
    warnings: Vec<Warning>,
}

impl Encoded {
    fn new(state: &ApiState, cache: Arc<StoredCache>, request: Features) -> Result<Self, Problem> {
        let at_sae = |p: Problem| match p.code {
            Code::UnknownSae => Problem::at(p.code, "/sae", p.detail),
            _ => p,
        };
        let sae = state.questions.saes().get(&request.sae, Code::UnknownSae).map_err(at_sae)?;
        let refuse = |pointer: &str, detail: String| Err(Problem::at(Code::InvalidValue, pointer, detail));
        if request.top_k.is_some_and(|k| k > MAX_FEATURES) {
            return refuse(
                "/top_k",
                format!("at most {MAX_FEATURES} features are named; ask for format=npy to have all"),
            );
        }
        let chosen = request.features.as_deref().unwrap_or_default();
        if chosen.len() > MAX_FEATURES || request.features.as_ref().is_some_and(Vec::is_empty) {
            return refuse("/features", format!("name 1 to {MAX_FEATURES} features"));
        }
        for (i, feature) in chosen.iter().enumerate() {
            check_feature(*feature, sae.d_sae(), &format!("/features/{i}"))?;
        }
        let warnings = matching::check(&sae, &cache.cache, request.allow_bos_mismatch)?;
        let model = model_of(state.engine.models(), &cache.cache)?;
        let wanted = positions::wanted(request.positions.as_ref(), &sae, &cache.cache, model.tokenizer())?;
        let n_positions = wanted.positions.len();
        let work = n_positions.saturating_mul(sae.d_in()).saturating_mul(sae.d_sae());
        if work > MAX_WORK {
            let detail = format!("{n_positions} positions are too many to encode at once; ask for fewer");
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        let this = Self { store: state.engine.store().clone(), cache, model, sae, wanted, request, warnings };
        // Finds out now whether the rows are stored.
        this.select(this.positions())?;
        Ok(this)
    }

    fn positions(&self) -> &[u32] {
        &self.wanted.positions
    }

    fn top_k(&self) -> usize {
        self.request.top_k.unwrap_or(10)
    }

    fn chosen(&self) -> &[usize] {
        self.request.features.as_deref().unwrap_or_default()
    }

    fn select(&self, positions: &[u32]) -> Result<residuum_domain::Selection, Problem> {
        select(&self.cache.cache, self.sae.hook(), positions, "/positions")
    }

    /// Hands `take` the stored rows `[n, row_width]` in blocks of positions.
    fn for_each_block(&self, mut take: impl FnMut(&[u32], &[f32])) -> Result<(), Problem> {
        for positions in self.positions().chunks((BLOCK_ACTIVATIONS / self.sae.d_sae()).clamp(1, 256)) {
            take(positions, &read_rows(&self.store, &self.cache, &self.select(positions)?)?);
        }
        Ok(())
    }
}

/// The activations, `[pos, feature]`.
async fn tensor(state: &ApiState, encoding: Encoded, format: Format) -> ApiResult<Response> {
    if encoding.request.top_k.is_some() {
        let detail = "top_k has no meaning in this format: the answer has every feature, or those chosen by features";
        return Err(Problem::at(Code::InvalidBody, "/top_k", detail).into());
    }
    let n_features = encoding.request.features.as_ref().map_or(encoding.sae.d_sae(), Vec::len);
    let shape = vec![encoding.positions().len(), n_features];
    let n_bytes = shape.iter().product::<usize>().saturating_mul(Dtype::Float32.size());
    if n_bytes > MAX_TENSOR_BYTES {
        let detail = format!(
            "the tensor would have {n_bytes} bytes; {MAX_TENSOR_BYTES} are allowed. Ask for fewer positions, or choose features"
        );
        return Err(Problem::new(Code::ResultTooLarge, detail).into());
    }
    let name = format!("{}.features", encoding.sae.id());
    let positions = if encoding.wanted.chosen_here { positions_header(encoding.positions()) } else { None };
    let parts = state.questions.analyse(move || whole(&encoding)).await?;
    let answer = TensorAnswer {
        hook: name,
        layer: None,
        layers: None,
        caches: None,
        offsets: None,
        shape,
        axes: vec![Axis::Pos, Axis::Feature],
        dtype: Dtype::Float32,
        widened: false,
        parts,
    };
    let mut response = respond_to_post(answer, format, state).await?;
    response.headers_mut().extend(positions);
    Ok(response)
}

/// The header that names positions, runs of them as `first:end`.
fn positions_header(positions: &[u32]) -> Option<(HeaderName, HeaderValue)> {
    let runs: Vec<String> = positions
        .chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .map(|run| match run {
            [one] => one.to_string(),
            run => format!("{}:{}", run[0], run[run.len() - 1] + 1),
        })
        .collect();
    Some((POSITIONS, HeaderValue::from_str(&runs.join(",")).ok()?))
}

/// The bytes of the tensor.
fn whole(encoding: &Encoded) -> Result<Vec<Part>, Problem> {
    let (sae, mut bytes) = (&encoding.sae, Vec::new());
    let chosen = encoding.request.features.as_deref().map(|features| sae.choose(features));
    encoding.for_each_block(|_, rows| {
        let activations = match &chosen {
            Some(chosen) => chosen.encode_rows(rows),
            None => sae.encode(&sae.targets(rows)),
        };
        Dtype::Float32.encode(&activations, &mut bytes);
    })?;
    Ok(vec![Part::Made(bytes.into())])
}
