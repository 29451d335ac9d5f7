//! `POST /v1/saes/{id}/tokens`: finds the tokens at which features are most active.

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

/// Which features, and which positions to search.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeatureTokensRequest, example = json!({
    "features": [123, 8801], "k": 5, "filter": {"tags": ["corpus"]}, "context": 5, "special": false
}))]
pub struct FeatureTokens {
    /// The features, 1 to 64.
    features: Vec<usize>,
    /// Number of positions for each feature.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    k: usize,
    /// Search only caches that meet these conditions; if left out, all that the autoencoder can encode.
    #[serde(default)]
    #[schema(value_type = FilterDto)]
    filter: FilterDto,
    /// Number of tokens of context before and after a hit.
    #[serde(default = "five")]
    #[schema(maximum = 64, default = 5)]
    context: usize,
    /// Number of positions to leave out at the beginning of each input: BOS and attention sinks are there, and their
    /// activations are often the largest of all.
    #[serde(default)]
    #[schema(default = 0)]
    skip_first: u32,
    /// Whether to include special tokens; false leaves them out at every position. By default the autoencoder's
    /// `exclude_special_tokens` decides: if it is true, special tokens are left out; if it is a list, these ids; else
    /// none. `left_out` in the response says what was left out.
    special: Option<bool>,
    /// true: include caches that begin with a BOS token if the autoencoder was trained without one, or vice versa. By
    /// default they are left out and counted.
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

/// The tokens at which features are most active.
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
    /// As requested.
    k: usize,
    /// The features, in the order of the request.
    features: Vec<FeatureDto>,
    /// Positions left out because of their tokens, not counting those that `skip_first` leaves out.
    left_out: LeftOutDto,
    /// What was scanned.
    scanned: ScannedDto,
}

/// One feature.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureOfTokens)]
struct FeatureDto {
    /// The feature.
    feature: usize,
    /// Number of positions at which it is active.
    n_active: u64,
    /// Fraction of all scanned positions at which it is active; null if none were scanned.
    density: Option<f64>,
    /// Mean activation over the positions at which it is active; null if there are none.
    mean: Option<f64>,
    /// The positions at which it is most active, the most active first; `score` is the activation. Only positions at
    /// which it is active.
    hits: Vec<Hit>,
}

/// What was scanned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureTokensScanned)]
struct ScannedDto {
    /// Number of caches whose rows were encoded.
    caches: u64,
    /// Number of rows that were encoded.
    rows: u64,
    /// Number of rows without features, because they are not finite, or zero and would be divided by their norm.
    undefined: u64,
    /// Number of bytes that were read.
    bytes: u64,
    /// Number of caches with rows that could not be read, because their blob is missing or too short.
    damaged: u64,
    /// Number of caches that were deleted before all of their rows were read.
    deleted: u64,
    /// Number of caches that stored only a mean over positions.
    without_positions: u64,
    /// Number of caches that were imported without token ids, so that none of their tokens could be left out. 0 if no
    /// tokens are to be left out.
    without_token_ids: u64,
    /// Number of caches that begin with a BOS token although the autoencoder was trained without one, or vice versa.
    /// They are left out unless `allow_bos_mismatch` is true.
    bos_mismatch: u64,
    /// Number of caches left out because they were made by a model with other weights.
    other_weights: u64,
}

/// Find tokens at which features are most active
///
/// The positions of stored caches at which features of a sparse autoencoder have their largest activations. Every
/// stored position of the autoencoder's hook that matches the filter is encoded, if the autoencoder's model made it.
/// Packs are read in parts, so the memory needed does not grow with the store. Ties are ordered by the id of the cache,
/// then by position.
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
    /// Converts the body to a question about the autoencoder `sae`.
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
