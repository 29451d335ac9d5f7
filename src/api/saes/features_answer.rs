//! The response with the features of each position.

use serde::Serialize;
use utoipa::ToSchema;

use super::left_out_answer::LeftOutDto;
use crate::api::dto::warning::WarningDto;
use residuum_engine::questions::sae::features::{self, FeatureSummary, FeaturesAnswer};

/// The features that are active at each position, and how well they reconstruct the stored rows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureActivations, example = json!({
    "cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "sae": "res-12", "model": "smollm2-135m", "hook": "blocks.12.hook_resid_post",
    "d_sae": 16384, "features": [123],
    "positions": [{
        "position": 1, "token": " E", "special": false, "n_active": 31, "top": [{"feature": 8801, "activation": 14.25}],
        "chosen": [0.0], "norm": 92.1, "norm_out": 84.3, "mse": 1.52, "relative_error": 0.103, "cosine": 0.949
    }],
    "summary": {
        "all": {"n": 1, "n_undefined": 0, "n_active": 31.0, "norm": 92.1, "mse": 1.52, "fvu": null, "explained_variance": null, "cosine": 0.949},
        "ordinary": {"n": 1, "n_undefined": 0, "n_active": 31.0, "norm": 92.1, "mse": 1.52, "fvu": null, "explained_variance": null, "cosine": 0.949}
    },
    "left_out": {"tokens": "special", "n_ids": null, "said_by": "autoencoder", "rows": 1}, "warnings": []
}))]
pub struct FeaturesDto {
    /// The cache.
    cache: String,
    /// The autoencoder.
    sae: String,
    /// Name of its model on this server.
    model: String,
    /// The hook that was encoded.
    hook: String,
    /// Number of features of the autoencoder.
    d_sae: usize,
    /// The chosen features, in the order of `chosen`.
    features: Vec<usize>,
    /// The positions, in the order of the request.
    positions: Vec<PositionFeatures>,
    /// Summary over the positions.
    summary: Summaries,
    /// Stored positions left out because of their tokens.
    left_out: LeftOutDto,
    /// Why the features may not mean what they should.
    warnings: Vec<WarningDto>,
}

/// The features of one position. Values are null if undefined: the stored row is not finite, or it is zero and would be
/// divided by its norm.
#[derive(Debug, Serialize, ToSchema)]
pub struct PositionFeatures {
    /// The position.
    position: u32,
    /// The token at that position.
    token: String,
    /// Whether it is a special token, such as BOS; null if the cache has no token ids.
    special: Option<bool>,
    /// Number of active features (L0).
    n_active: Option<usize>,
    /// The most active features, the most active first; among equals the lower feature first.
    top: Vec<ActiveFeature>,
    /// Activations of the chosen features.
    chosen: Vec<Option<f32>>,
    /// Length of the vector to reconstruct, before any normalisation.
    norm: Option<f64>,
    /// Length of the reconstruction.
    norm_out: Option<f64>,
    /// Squared error, averaged over the dimensions.
    mse: Option<f64>,
    /// ‖x − x̂‖² / ‖x‖².
    relative_error: Option<f64>,
    /// Cosine between the vector and its reconstruction.
    cosine: Option<f64>,
}

/// A feature that is active.
#[derive(Debug, Serialize, ToSchema)]
struct ActiveFeature {
    /// The feature.
    feature: usize,
    /// Its activation.
    activation: f32,
}

/// Summaries of the reconstruction over positions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureSummaries)]
struct Summaries {
    /// All positions.
    all: SummaryDto,
    /// Positions whose token is not special.
    ordinary: SummaryDto,
}

/// Summary of the reconstruction over positions. Values are null if undefined.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureSummary)]
struct SummaryDto {
    /// Number of positions.
    n: u64,
    /// Number of positions left out because their values are undefined.
    n_undefined: u64,
    /// Mean number of active features (L0).
    n_active: Option<f64>,
    /// Mean length of the vectors to reconstruct.
    norm: Option<f64>,
    /// Mean squared error, over positions and dimensions.
    mse: Option<f64>,
    /// Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖² with the mean x̄ of these positions.
    fvu: Option<f64>,
    /// One minus `fvu`.
    explained_variance: Option<f64>,
    /// Mean cosine.
    cosine: Option<f64>,
}

impl From<FeaturesAnswer> for FeaturesDto {
    fn from(answer: FeaturesAnswer) -> Self {
        Self {
            cache: answer.cache.to_string(),
            sae: answer.sae,
            model: answer.model,
            hook: answer.hook.to_string(),
            d_sae: answer.d_sae,
            features: answer.features,
            positions: answer.positions.into_iter().map(Into::into).collect(),
            summary: Summaries { all: answer.all.into(), ordinary: answer.ordinary.into() },
            left_out: answer.left_out.into(),
            warnings: WarningDto::list(&answer.warnings),
        }
    }
}

impl From<features::PositionFeatures> for PositionFeatures {
    fn from(found: features::PositionFeatures) -> Self {
        let features::PositionFeatures { position, token, special, top, chosen, fit } = found;
        let active = |features::ActiveFeature { feature, activation }| ActiveFeature { feature, activation };
        Self {
            position,
            token,
            special,
            n_active: fit.map(|f| f.n_active),
            top: top.into_iter().map(active).collect(),
            chosen: chosen.into_iter().map(|a| a.is_finite().then_some(a)).collect(),
            norm: fit.map(|f| f.norm),
            norm_out: fit.map(|f| f.norm_out),
            mse: fit.map(|f| f.mse),
            relative_error: fit.and_then(|f| f.relative_error),
            cosine: fit.and_then(|f| f.cosine),
        }
    }
}

impl From<FeatureSummary> for SummaryDto {
    fn from(summary: FeatureSummary) -> Self {
        let FeatureSummary { n, n_undefined, n_active, norm, mse, fvu, explained_variance, cosine } = summary;
        Self { n, n_undefined, n_active, norm, mse, fvu, explained_variance, cosine }
    }
}
