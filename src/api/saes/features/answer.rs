//! The features of each position, described.

use rayon::prelude::*;
use serde::Serialize;
use utoipa::ToSchema;

use super::{super::left_out::LeftOutDto, Encoded};
use crate::api::dto::warning::WarningDto;
use residuum_analysis::{Reconstructed, Reconstruction};
use residuum_domain::{Problem, Warning, WarningCode};
use residuum_model::sae::ExcludedTokens;

/// The features that are active at each position, and how well they reconstruct what was stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Features, example = json!({
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
    /// The name that its model is served under.
    model: String,
    /// The hook that was encoded.
    hook: String,
    /// Features of the autoencoder.
    d_sae: usize,
    /// The chosen features, in the order of `chosen`.
    features: Vec<usize>,
    /// The positions, in the order asked for.
    positions: Vec<PositionFeatures>,
    /// Over the positions.
    summary: Summaries,
    /// Stored positions left out because of their tokens.
    left_out: LeftOutDto,
    /// Why the features may not mean what they should.
    warnings: Vec<WarningDto>,
}

/// The features of one position. What is null is undefined: the stored row is not finite, or of zeros where it is divided by
/// its norm.
#[derive(Debug, Serialize, ToSchema)]
pub struct PositionFeatures {
    /// The position.
    position: u32,
    /// The token there.
    token: String,
    /// Whether it is a special token, such as BOS; null where the cache does not know its token ids.
    special: Option<bool>,
    /// Features that are active, the L0.
    n_active: Option<usize>,
    /// The strongest of them, the strongest first; of equal ones the lower feature.
    top: Vec<ActiveFeature>,
    /// Activations of the chosen features.
    chosen: Vec<Option<f32>>,
    /// Length of what is reconstructed, before any normalisation.
    norm: Option<f64>,
    /// Length of the reconstruction.
    norm_out: Option<f64>,
    /// Mean over the dimensions of the squared error.
    mse: Option<f64>,
    /// ‖x − x̂‖² / ‖x‖².
    relative_error: Option<f64>,
    /// Cosine of what is reconstructed with the reconstruction.
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

/// Reconstruction over positions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureSummaries)]
struct Summaries {
    /// Every position.
    all: SummaryDto,
    /// Those of special tokens left out.
    ordinary: SummaryDto,
}

/// Reconstruction over positions; null where undefined.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureSummary)]
struct SummaryDto {
    /// Positions that take part.
    n: u64,
    /// Positions left out because theirs is undefined.
    n_undefined: u64,
    /// Mean number of active features, the L0.
    n_active: Option<f64>,
    /// Mean length of what is reconstructed.
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

/// What a summary is made of.
struct Totals {
    fit: Reconstruction,
    n_active: u64,
    n_undefined: u64,
}

impl Totals {
    fn new(d: usize) -> Self {
        Self { fit: Reconstruction::new(d), n_active: 0, n_undefined: 0 }
    }

    fn add(&mut self, target: &[f32], one: &One) {
        match &one.fit {
            Some(fit) => {
                self.fit.add(target, fit);
                self.n_active += one.n_active as u64;
            }
            None => self.n_undefined += 1,
        }
    }

    fn summary(&self) -> SummaryDto {
        let (n, fvu) = (self.fit.n(), self.fit.fvu());
        SummaryDto {
            n,
            n_undefined: self.n_undefined,
            n_active: (n > 0).then(|| self.n_active as f64 / n as f64),
            norm: self.fit.norm(),
            mse: self.fit.mse(),
            fvu,
            explained_variance: fvu.map(|fvu| 1.0 - fvu),
            cosine: self.fit.cosine(),
        }
    }
}

/// One position.
struct One {
    fit: Option<Reconstructed>,
    n_active: usize,
    top: Vec<ActiveFeature>,
    chosen: Vec<Option<f32>>,
}

impl One {
    fn of(encoding: &Encoded, target: &[f32], activations: &[f32], out: &[f32]) -> Self {
        let mut active: Vec<usize> = (0..activations.len()).filter(|i| activations[*i] > 0.0).collect();
        let stronger = |a: &usize, b: &usize| activations[*b].total_cmp(&activations[*a]).then(a.cmp(b));
        let (n_active, top_k) = (active.len(), encoding.top_k());
        if top_k < n_active {
            active.select_nth_unstable_by(top_k, stronger);
            active.truncate(top_k);
        }
        active.sort_unstable_by(stronger);
        Self {
            fit: Reconstructed::of(target, out),
            n_active,
            top: active.into_iter().map(|i| ActiveFeature { feature: i, activation: activations[i] }).collect(),
            chosen: encoding.chosen().iter().map(|i| Some(activations[*i]).filter(|a| a.is_finite())).collect(),
        }
    }
}

/// Encodes and decodes every position.
///
/// # Errors
/// The store's own.
pub fn describe(encoding: &Encoded) -> Result<FeaturesDto, Problem> {
    let (sae, cache) = (&encoding.sae, &encoding.cache.cache);
    let (d_in, d_sae) = (sae.d_in(), sae.d_sae());
    let special = cache.knows_token_ids().then(|| encoding.model.tokenizer().special_mask(&cache.token_ids));
    let (mut all, mut ordinary) = (Totals::new(d_in), Totals::new(d_in));
    let mut described = Vec::with_capacity(encoding.positions().len());
    encoding.for_each_block(|positions, rows| {
        let targets = sae.targets(rows);
        let activations = sae.encode(&targets);
        let out = sae.decode(&targets, &activations);
        let each =
            targets.par_chunks_exact(d_in).zip(activations.par_chunks_exact(d_sae)).zip(out.par_chunks_exact(d_in));
        let each: Vec<One> = each.map(|((target, row), out)| One::of(encoding, target, row, out)).collect();
        for ((position, one), target) in positions.iter().zip(each).zip(targets.chunks_exact(d_in)) {
            let place = *position as usize;
            let is_special = special.as_ref().and_then(|special| special.get(place).copied());
            all.add(target, &one);
            if is_special != Some(true) {
                ordinary.add(target, &one);
            }
            let token = cache.tokens.get(place).cloned().unwrap_or_default();
            described.push(PositionFeatures {
                position: *position,
                token,
                special: is_special,
                n_active: one.fit.map(|_| one.n_active),
                top: one.top,
                chosen: one.chosen,
                norm: one.fit.map(|f| f.norm),
                norm_out: one.fit.map(|f| f.norm_out),
                mse: one.fit.map(|f| f.mse),
                relative_error: one.fit.and_then(|f| f.relative),
                cosine: one.fit.and_then(|f| f.cosine),
            });
        }
    })?;
    let mut warnings = encoding.warnings.clone();
    warnings.extend(outside_training(encoding));
    Ok(FeaturesDto {
        cache: cache.id.to_string(),
        sae: sae.id().to_owned(),
        model: sae.model().to_owned(),
        hook: sae.hook().to_string(),
        d_sae,
        features: encoding.chosen().to_vec(),
        positions: described,
        summary: Summaries { all: all.summary(), ordinary: ordinary.summary() },
        left_out: encoding.wanted.left_out.describe(encoding.wanted.n_left_out),
        warnings: warnings.iter().map(WarningDto::from).collect(),
    })
}

/// Positions such as the autoencoder never saw in training.
fn outside_training(encoding: &Encoded) -> Vec<Warning> {
    let (settings, cache) = (encoding.sae.settings(), &encoding.cache.cache);
    let (tokenizer, excluded) = (encoding.model.tokenizer(), &settings.exclude_special_tokens);
    let count = |outside: &dyn Fn(usize) -> bool| encoding.positions().iter().filter(|p| outside(**p as usize)).count();
    let mut warnings = Vec::new();
    let mut warn = |code, detail| warnings.push(Warning { code, detail });
    if let Some(context) = settings.context_size {
        let n = count(&|p| p >= context);
        if n > 0 {
            let detail = format!("positions beyond the {context} tokens of a text that it was trained on: {n}");
            warn(WarningCode::SaeBeyondContext, detail);
        }
    }
    if !cache.knows_token_ids() && *excluded != ExcludedTokens::Nothing {
        let detail = "it was not trained on special tokens, and the cache was imported without token ids, so none could be left out";
        warn(WarningCode::SaeTokensNotKnown, detail.to_owned());
    }
    let n = count(&|p| cache.token_ids.get(p).is_some_and(|id| excluded.contains(*id, tokenizer)));
    if n > 0 {
        let detail = format!("positions of special tokens, which it was not trained on: {n}");
        warn(WarningCode::SaeExcludedTokens, detail);
    }
    if let Some(slice) = &settings.seqpos_slice {
        let detail = format!("it was trained on the positions {slice} of a text alone, as a Python slice");
        warn(WarningCode::SaePositionsSlice, detail);
    }
    warnings
}
