//! Finds the tokens at which features of a sparse autoencoder are strongest, by encoding every stored row of its hook.

mod tally;

use std::sync::Arc;

use super::left_out::{LeftOut, LeftOutPositions};
use crate::questions::{
    Questions,
    direction::check_feature,
    hits::{Hit, HitLimits},
};
use residuum_domain::{CacheFilter, Code, Hook, Problem, TenantId};
use residuum_model::sae::Sae;
use residuum_store::{ScanPlan, Take, TokenPlaces};
use tally::{Skip, Tallies};

/// Most features of one question.
const MAX_FEATURES: usize = 64;

/// Which features to find, and where to look.
#[derive(Debug, Clone)]
pub struct FeatureTokensQuestion {
    /// The autoencoder.
    pub sae: String,
    /// The features.
    pub features: Vec<usize>,
    /// Number of positions for each feature.
    pub k: usize,
    /// The caches to look at.
    pub filter: CacheFilter,
    /// Tokens of context on either side of a hit.
    pub context: usize,
    /// How many positions to leave out at the beginning of each input.
    pub skip_first: u32,
    /// Whether to include special tokens. If left out, the autoencoder's `exclude_special_tokens` decides.
    pub special: Option<bool>,
    /// Whether to include caches that begin with a BOS token although the autoencoder was trained without one, or vice
    /// versa.
    pub allow_bos_mismatch: bool,
}

/// The tokens at which features are strongest.
#[derive(Debug, Clone)]
pub struct FeatureTokensAnswer {
    /// The autoencoder.
    pub sae: String,
    /// Its model.
    pub model: String,
    /// The hook whose rows were encoded.
    pub hook: Hook,
    /// The features, in the order of the question.
    pub features: Vec<StrongestTokens>,
    /// Positions left out because of their tokens, not counting those that `skip_first` leaves out.
    pub left_out: LeftOutPositions,
    /// What was scanned.
    pub scanned: FeatureTokensScanned,
}

/// The tokens at which one feature is strongest.
#[derive(Debug, Clone)]
pub struct StrongestTokens {
    /// The feature.
    pub feature: usize,
    /// Number of positions at which it is active.
    pub n_active: u64,
    /// Share of these among all scanned positions; `None` if none was scanned.
    pub density: Option<f64>,
    /// Mean activation over the positions at which it is active; `None` if there are none.
    pub mean: Option<f64>,
    /// The positions at which it is strongest, the strongest first; the score is the activation. Ties are ordered by
    /// the cache's id, then by position. Positions at which it is not active, and hits whose caches were deleted
    /// meanwhile, are left out.
    pub hits: Vec<Hit>,
}

/// What was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureTokensScanned {
    /// Caches whose rows were included.
    pub caches: u64,
    /// Rows that were encoded.
    pub rows: u64,
    /// Rows without features, because they are not finite, or because they are zero and would be divided by their norm.
    pub undefined: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Caches whose rows could not all be read, because their blob is missing or short.
    pub damaged: u64,
    /// Caches that were deleted before all of their rows were read.
    pub deleted: u64,
    /// Caches that only stored a mean over positions.
    pub without_positions: u64,
    /// Caches that were imported without token ids, so that none of their tokens could be left out. 0 if no tokens are
    /// left out.
    pub without_token_ids: u64,
    /// Caches left out because they begin with a BOS token although the autoencoder was trained without one, or vice
    /// versa. With `allow_bos_mismatch` they are included, and counted all the same.
    pub bos_mismatch: u64,
    /// Caches left out because other weights made them.
    pub other_weights: u64,
}

/// Filters for the caches that captured the hook; each is narrower than the one before.
struct Filters {
    /// All caches that the question's filter finds.
    with_hook: CacheFilter,
    /// Of these, caches that the autoencoder's own model made.
    own: CacheFilter,
    /// Of these, caches that begin with a BOS token if and only if the training texts did.
    alike: CacheFilter,
}

impl Filters {
    fn of(chosen: CacheFilter, sae: &Sae) -> Self {
        let mut with_hook = chosen;
        with_hook.hooks.push(sae.hook());
        let own = CacheFilter { fingerprint: Some(sae.model_fingerprint().to_owned()), ..with_hook.clone() };
        let alike = CacheFilter { bos: sae.settings().prepend_bos, ..own.clone() };
        Self { with_hook, own, alike }
    }
}

impl Questions {
    /// Encodes every stored position of the autoencoder's hook that the question includes, and describes where each
    /// feature has its largest activations. Rows are encoded task by task, so the memory needed does not grow with the
    /// store.
    ///
    /// # Errors
    /// [`Code::SaeNotFound`]; [`Code::UnknownSae`] for a feature that does not exist; [`Code::Unavailable`] while the
    /// autoencoder or its model loads; [`Code::InvalidValue`], [`Code::ShapeMismatch`], [`Code::ResultTooLarge`], and
    /// those of the store.
    pub async fn feature_tokens(
        &self,
        tenant: TenantId,
        question: FeatureTokensQuestion,
    ) -> Result<FeatureTokensAnswer, Problem> {
        let sae = self.saes().get(&question.sae, Code::SaeNotFound)?;
        question.check(&sae)?;
        let FeatureTokensQuestion { features, k, filter, context, skip_first, special, allow_bos_mismatch, .. } =
            question;
        let store = self.store();
        let filters = Filters::of(filter, &sae);
        let matching = if allow_bos_mismatch { &filters.own } else { &filters.alike };
        let plan = store.scan_plan(tenant, matching, sae.hook(), &Take::Positions).await?;
        check_widths(&plan, &sae)?;
        let n_all = store.count_all_caches(tenant, &filters.with_hook).await?;
        let n_own = store.count_all_caches(tenant, &filters.own).await?;
        let left_out = LeftOut::of(&sae, special);
        let places = self.places_left_out(tenant, matching, &sae, &left_out).await?;
        let without_token_ids = places.n_unknown();
        let skip = Skip { first: skip_first, places };
        let tallies = Tallies::of(self, plan, Arc::clone(&sae), (features, k), skip).await?;
        let mut answer = tallies.answer(self, tenant, &sae, context, &left_out).await?;
        answer.scanned.without_token_ids = without_token_ids;
        answer.scanned.other_weights = n_all.saturating_sub(n_own);
        answer.scanned.bos_mismatch = n_own.saturating_sub(store.count_all_caches(tenant, &filters.alike).await?);
        Ok(answer)
    }

    /// The positions of tokens that are left out.
    async fn places_left_out(
        &self,
        tenant: TenantId,
        caches: &CacheFilter,
        sae: &Sae,
        left_out: &LeftOut,
    ) -> Result<TokenPlaces, Problem> {
        if !left_out.any() {
            return Ok(TokenPlaces::default());
        }
        let model = self.models().get(sae.model())?;
        let is_out = |id| left_out.tokens.contains(id, model.tokenizer());
        Ok(self.store().token_places(tenant, caches, is_out).await?)
    }
}

/// Checks that the stored rows have the width that the autoencoder encodes.
fn check_widths(plan: &ScanPlan, sae: &Sae) -> Result<(), Problem> {
    if plan.widths().iter().all(|width| *width == sae.row_width()) {
        return Ok(());
    }
    let detail = format!("rows of {} do not have {} numbers in some of the caches", sae.hook(), sae.row_width());
    Err(Problem::new(Code::ShapeMismatch, detail))
}

impl FeatureTokensQuestion {
    fn check(&self, sae: &Sae) -> Result<(), Problem> {
        let n = self.features.len();
        if !(1..=MAX_FEATURES).contains(&n) {
            let detail = format!("give 1 to {MAX_FEATURES} features, not {n}");
            return Err(Problem::at(Code::InvalidValue, "/features", detail));
        }
        for (i, feature) in self.features.iter().enumerate() {
            check_feature(*feature, sae.d_sae(), &format!("/features/{i}"))?;
        }
        HitLimits { k: self.k, context: self.context }.check(n, "features")
    }
}
