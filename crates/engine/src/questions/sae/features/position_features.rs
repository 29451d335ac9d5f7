//! Describes the features of each position and how well they reconstruct the stored row.

use rayon::prelude::*;

use super::{FeatureRows, FeaturesAnswer};
use residuum_analysis::{Reconstructed, Reconstruction};
use residuum_domain::{Problem, Warning, WarningCode};
use residuum_model::sae::ExcludedTokens;

/// The features of one position.
#[derive(Debug, Clone)]
pub struct PositionFeatures {
    /// The position.
    pub position: u32,
    /// The token there.
    pub token: String,
    /// Whether it is a special token; `None` if the cache has no token ids.
    pub special: Option<bool>,
    /// The strongest features, the strongest first; of equally strong ones the lower index first.
    pub top: Vec<ActiveFeature>,
    /// Activations of the chosen features; not finite if they are undefined.
    pub chosen: Vec<f32>,
    /// How well the features reconstruct the row. `None` if that is undefined: the stored row is not finite, or it is
    /// zero and would be divided by its norm.
    pub fit: Option<PositionFit>,
}

/// A feature that is active.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActiveFeature {
    /// The feature.
    pub feature: usize,
    /// Its activation.
    pub activation: f32,
}

/// How well the features of one position reconstruct its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PositionFit {
    /// Number of active features (L0).
    pub n_active: usize,
    /// Length of the vector to reconstruct, before any normalisation.
    pub norm: f64,
    /// Length of the reconstruction.
    pub norm_out: f64,
    /// Mean over the dimensions of the squared error.
    pub mse: f64,
    /// ‖x − x̂‖² / ‖x‖²; `None` for a row of zeros.
    pub relative_error: Option<f64>,
    /// Cosine of the vector and its reconstruction; `None` if either is zero.
    pub cosine: Option<f64>,
}

/// Quality of the reconstruction over several positions; `None` if undefined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureSummary {
    /// Number of positions included.
    pub n: u64,
    /// Number of positions left out because their features are undefined.
    pub n_undefined: u64,
    /// Mean number of active features (L0).
    pub n_active: Option<f64>,
    /// Mean length of the vectors to reconstruct.
    pub norm: Option<f64>,
    /// Mean squared error, over positions and dimensions.
    pub mse: Option<f64>,
    /// Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − x̄‖² with the mean x̄ of these positions.
    pub fvu: Option<f64>,
    /// One minus `fvu`.
    pub explained_variance: Option<f64>,
    /// Mean cosine.
    pub cosine: Option<f64>,
}

/// Running sums of a summary.
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

    fn summary(&self) -> FeatureSummary {
        let (n, fvu) = (self.fit.n(), self.fit.fvu());
        FeatureSummary {
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

/// The features of one position, before its token is known.
struct One {
    fit: Option<Reconstructed>,
    n_active: usize,
    top: Vec<ActiveFeature>,
    chosen: Vec<f32>,
}

impl One {
    /// From a `target` `[d_in]`, its `activations` `[d_sae]` and its reconstruction `out` `[d_in]`.
    fn of(target: &[f32], activations: &[f32], out: &[f32], top_k: usize, chosen: &[usize]) -> Self {
        let mut active: Vec<usize> = (0..activations.len()).filter(|i| activations[*i] > 0.0).collect();
        let stronger = |a: &usize, b: &usize| activations[*b].total_cmp(&activations[*a]).then(a.cmp(b));
        let n_active = active.len();
        if top_k < n_active {
            active.select_nth_unstable_by(top_k, stronger);
            active.truncate(top_k);
        }
        active.sort_unstable_by(stronger);
        Self {
            fit: Reconstructed::of(target, out),
            n_active,
            top: active.into_iter().map(|i| ActiveFeature { feature: i, activation: activations[i] }).collect(),
            chosen: chosen.iter().map(|i| activations[*i]).collect(),
        }
    }

    fn at(self, position: u32, token: String, special: Option<bool>) -> PositionFeatures {
        let fit = self.fit.map(|fit| PositionFit {
            n_active: self.n_active,
            norm: fit.norm,
            norm_out: fit.norm_out,
            mse: fit.mse,
            relative_error: fit.relative,
            cosine: fit.cosine,
        });
        PositionFeatures { position, token, special, top: self.top, chosen: self.chosen, fit }
    }
}

/// Encodes and decodes every position.
///
/// # Errors
/// Those of the store.
pub(super) fn describe(rows: &FeatureRows, top_k: usize) -> Result<FeaturesAnswer, Problem> {
    let (sae, cache, chosen) = (&rows.sae, &rows.cache.cache, rows.chosen());
    let (d_in, d_sae) = (sae.d_in(), sae.d_sae());
    let special = cache.knows_token_ids().then(|| rows.model.tokenizer().special_mask(&cache.token_ids));
    let (mut all, mut ordinary) = (Totals::new(d_in), Totals::new(d_in));
    let mut described = Vec::with_capacity(rows.positions().len());
    rows.for_each_block(|positions, stored| {
        let targets = sae.targets(stored);
        let activations = sae.encode(&targets);
        let out = sae.decode(&targets, &activations);
        let each =
            targets.par_chunks_exact(d_in).zip(activations.par_chunks_exact(d_sae)).zip(out.par_chunks_exact(d_in));
        let each: Vec<One> = each.map(|((target, row), out)| One::of(target, row, out, top_k, chosen)).collect();
        for ((position, one), target) in positions.iter().zip(each).zip(targets.chunks_exact(d_in)) {
            let place = *position as usize;
            let is_special = special.as_ref().and_then(|special| special.get(place).copied());
            all.add(target, &one);
            if is_special != Some(true) {
                ordinary.add(target, &one);
            }
            let token = cache.tokens.get(place).cloned().unwrap_or_default();
            described.push(one.at(*position, token, is_special));
        }
    })?;
    let mut warnings = rows.warnings.clone();
    warnings.extend(outside_training(rows));
    Ok(FeaturesAnswer {
        cache: cache.id,
        sae: sae.id().to_owned(),
        model: sae.model().to_owned(),
        hook: sae.hook(),
        d_sae,
        features: chosen.to_vec(),
        positions: described,
        all: all.summary(),
        ordinary: ordinary.summary(),
        left_out: rows.encoded.left_out,
        warnings,
    })
}

/// Warnings about positions of a kind that the autoencoder was not trained on.
fn outside_training(rows: &FeatureRows) -> Vec<Warning> {
    let (settings, cache) = (rows.sae.settings(), &rows.cache.cache);
    let (tokenizer, excluded) = (rows.model.tokenizer(), &settings.exclude_special_tokens);
    let count = |outside: &dyn Fn(usize) -> bool| rows.positions().iter().filter(|p| outside(**p as usize)).count();
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
        let detail = format!("it was only trained on the positions {slice} of a text, given as a Python slice");
        warn(WarningCode::SaePositionsSlice, detail);
    }
    warnings
}
