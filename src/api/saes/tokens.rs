//! `POST /v1/saes/{id}/tokens`.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::left_out_answer::LeftOutDto;
use crate::api::{
    dto::selector::FilterDto,
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query, Tenant},
    problems::FeatureTokensProblems,
    search::Hit,
    state::ApiState,
};
use residuum_domain::Problem;
use residuum_engine::questions::sae::feature_tokens::{
    FeatureTokensAnswer, FeatureTokensQuestion, FeatureTokensScanned, StrongestTokens,
};

/// Which features, and where to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeatureTokensRequest, example = json!({
    "features": [123, 8801], "k": 5, "filter": {"tags": ["corpus"]}, "context": 5, "special": false
}))]
pub struct FeatureTokens {
    /// The features, 1 to 64.
    features: Vec<usize>,
    /// Positions for each of them.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    k: usize,
    /// Only these caches; all that the autoencoder can encode if left out.
    #[serde(default)]
    #[schema(value_type = FilterDto)]
    filter: FilterDto,
    /// Tokens of context on either side of a hit.
    #[serde(default = "five")]
    #[schema(maximum = 64, default = 5)]
    context: usize,
    /// Leaves out so many positions at the beginning of each input: BOS and attention sinks stand there, and their activations
    /// are often the largest of all.
    #[serde(default)]
    #[schema(default = 0)]
    skip_first: u32,
    /// Whether special tokens take part: false leaves them out wherever in an input they stand. If left out, the autoencoder's
    /// `exclude_special_tokens` decides: true leaves special tokens out, a list those ids, else all take part. `left_out` in the
    /// answer says what was decided.
    special: Option<bool>,
    /// Takes caches in that begin with a BOS token where the autoencoder was trained without, or the other way round. They are
    /// left out and counted otherwise.
    #[serde(default)]
    #[schema(default = false)]
    allow_bos_mismatch: bool,
}

fn ten() -> usize {
    10
}

fn five() -> usize {
    5
}

/// Where features are strongest.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureTokens, example = json!({
    "sae": "res-12", "model": "smollm2-135m", "hook": "blocks.12.hook_resid_post", "k": 1,
    "features": [{"feature": 123, "n_active": 40, "density": 0.02, "mean": 3.1, "hits": [{
        "cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "run": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "model": "smollm2-135m",
        "score": 9.5, "position": 3, "token": " Tower", "special": false, "context": {"start": 0, "tokens": ["The", " E", "iffel", " Tower"], "hit": 3},
        "label": null, "tags": ["corpus"], "metadata": {}
    }]}],
    "left_out": {"tokens": "special", "n_ids": null, "said_by": "request", "rows": 100},
    "scanned": {"caches": 100, "rows": 1900, "undefined": 0, "bytes": 4_608_000, "damaged": 0, "deleted": 0, "without_positions": 0,
        "without_token_ids": 0, "bos_mismatch": 0, "other_weights": 0}
}))]
pub struct FeatureTokensDto {
    /// The autoencoder.
    sae: String,
    /// Its model.
    model: String,
    /// The hook whose rows were encoded.
    hook: String,
    /// As asked.
    k: usize,
    /// The features, in the order asked for.
    features: Vec<FeatureDto>,
    /// Positions left out because of their tokens; those that `skip_first` leaves out anyway are not counted.
    left_out: LeftOutDto,
    /// What was gone through.
    scanned: ScannedDto,
}

/// One feature.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureOfTokens)]
struct FeatureDto {
    /// The feature.
    feature: usize,
    /// Positions where it is active.
    n_active: u64,
    /// Their share of all positions gone through; null of none.
    density: Option<f64>,
    /// Mean activation where it is active; null if it never is.
    mean: Option<f64>,
    /// The positions where it is strongest, the strongest first; `score` is the activation. None where it is not active.
    hits: Vec<Hit>,
}

/// What was gone through.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureTokensScanned)]
struct ScannedDto {
    /// Caches whose rows took part.
    caches: u64,
    /// Rows that were encoded.
    rows: u64,
    /// Rows that have no features, because they are not finite, or zero where they are divided by their norm.
    undefined: u64,
    /// Bytes that were read.
    bytes: u64,
    /// Caches whose rows could not all be read, because their blob is missing or short.
    damaged: u64,
    /// Caches that were deleted before all of their rows were read.
    deleted: u64,
    /// Caches that stored a mean over positions and none of them.
    without_positions: u64,
    /// Caches that were imported without token ids: no tokens of theirs could be left out. Not counted where none are to be.
    without_token_ids: u64,
    /// Caches that begin with a BOS token where the autoencoder was trained without, or the other way round: left out, unless
    /// `allow_bos_mismatch` takes them in.
    bos_mismatch: u64,
    /// Caches left out because other weights made them.
    other_weights: u64,
}

/// Where features are strongest
///
/// The positions of stored caches at which each of some features of a sparse autoencoder has its largest activations. Every
/// stored position of the autoencoder's hook that the filter leaves is encoded, in parts of the packs, so the memory it takes
/// does not grow with the store; only rows that the autoencoder's own model made take part. Ties go by the cache's id, then by
/// position.
#[utoipa::path(
    post, path = "/v1/saes/{id}/tokens", operation_id = "findFeatureTokens", tag = "saes", request_body = FeatureTokens,
    params(("id" = String, Path, description = "Name of the autoencoder")),
    responses((status = 200, description = "The positions", body = FeatureTokensDto), FeatureTokensProblems)
)]
pub async fn find_feature_tokens(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    path: Result<Path<String>, PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<FeatureTokens>,
) -> ApiResult<Json<FeatureTokensDto>> {
    let sae = path.map(|Path(id)| id).unwrap_or_default();
    let request = body.value;
    let k = request.k;
    let answer = state.questions.feature_tokens(tenant, request.question(sae)?).await?;
    Ok(Json(FeatureTokensDto::new(answer, k)))
}

impl FeatureTokens {
    /// The question that the body asks of the autoencoder `sae`.
    fn question(self, sae: String) -> Result<FeatureTokensQuestion, Problem> {
        Ok(FeatureTokensQuestion {
            sae,
            features: self.features,
            k: self.k,
            filter: self.filter.filter("/filter")?,
            context: self.context,
            skip_first: self.skip_first,
            special: self.special,
            allow_bos_mismatch: self.allow_bos_mismatch,
        })
    }
}

impl FeatureTokensDto {
    fn new(answer: FeatureTokensAnswer, k: usize) -> Self {
        Self {
            sae: answer.sae,
            model: answer.model,
            hook: answer.hook.to_string(),
            k,
            features: answer.features.into_iter().map(Into::into).collect(),
            left_out: answer.left_out.into(),
            scanned: answer.scanned.into(),
        }
    }
}

impl From<StrongestTokens> for FeatureDto {
    fn from(found: StrongestTokens) -> Self {
        let StrongestTokens { feature, n_active, density, mean, hits } = found;
        Self { feature, n_active, density, mean, hits: hits.into_iter().map(Into::into).collect() }
    }
}

impl From<FeatureTokensScanned> for ScannedDto {
    fn from(scanned: FeatureTokensScanned) -> Self {
        Self {
            caches: scanned.caches,
            rows: scanned.rows,
            undefined: scanned.undefined,
            bytes: scanned.bytes,
            damaged: scanned.damaged,
            deleted: scanned.deleted,
            without_positions: scanned.without_positions,
            without_token_ids: scanned.without_token_ids,
            bos_mismatch: scanned.bos_mismatch,
            other_weights: scanned.other_weights,
        }
    }
}
