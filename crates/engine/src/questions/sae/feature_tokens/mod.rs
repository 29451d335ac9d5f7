//! Where features of a sparse autoencoder are strongest: every stored position of its hook is encoded.

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

/// Features of one question.
const MAX_FEATURES: usize = 64;

/// Which features, and where to look.
#[derive(Debug, Clone)]
pub struct FeatureTokensQuestion {
    /// The autoencoder.
    pub sae: String,
    /// The features.
    pub features: Vec<usize>,
    /// Positions for each of them.
    pub k: usize,
    /// Only these caches.
    pub filter: CacheFilter,
    /// Tokens of context on either side of a hit.
    pub context: usize,
    /// Leaves out so many positions at the beginning of each input.
    pub skip_first: u32,
    /// Whether special tokens take part; the autoencoder's `exclude_special_tokens` decides if left out.
    pub special: Option<bool>,
    /// Whether caches take part that begin with a BOS token where the autoencoder was trained without, or the other way round.
    pub allow_bos_mismatch: bool,
}

/// Where features are strongest.
#[derive(Debug, Clone)]
pub struct FeatureTokensAnswer {
    /// The autoencoder.
    pub sae: String,
    /// Its model.
    pub model: String,
    /// The hook whose rows were encoded.
    pub hook: Hook,
    /// The features, in the order asked for.
    pub features: Vec<StrongestTokens>,
    /// Positions left out because of their tokens; those that `skip_first` leaves out anyway are not counted.
    pub left_out: LeftOutPositions,
    /// What was scanned.
    pub scanned: FeatureTokensScanned,
}

/// Where one feature is strongest.
#[derive(Debug, Clone)]
pub struct StrongestTokens {
    /// The feature.
    pub feature: usize,
    /// Positions where it is active.
    pub n_active: u64,
    /// Their share of all positions scanned; `None` of none.
    pub density: Option<f64>,
    /// Mean activation where it is active; `None` if it never is.
    pub mean: Option<f64>,
    /// The positions where it is strongest, the strongest first; the score is the activation. Ties go by the cache's id, then by
    /// position. None where it is not active. Hits whose caches were deleted meanwhile are left out.
    pub hits: Vec<Hit>,
}

/// What was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureTokensScanned {
    /// Caches whose rows took part.
    pub caches: u64,
    /// Rows that were encoded.
    pub rows: u64,
    /// Rows that have no features, because they are not finite, or zero where they are divided by their norm.
    pub undefined: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Caches whose rows could not all be read, because their blob is missing or short.
    pub damaged: u64,
    /// Caches that were deleted before all of their rows were read.
    pub deleted: u64,
    /// Caches that stored a mean over positions and none of them.
    pub without_positions: u64,
    /// Caches that were imported without token ids: no tokens of theirs could be left out. Not counted where none are to be.
    pub without_token_ids: u64,
    /// Caches that begin with a BOS token where the autoencoder was trained without, or the other way round: left out, unless
    /// the question takes them in.
    pub bos_mismatch: u64,
    /// Caches left out because other weights made them.
    pub other_weights: u64,
}

/// Caches that captured the hook, from the most to the fewest.
struct Filters {
    /// All that the question leaves.
    with_hook: CacheFilter,
    /// Of these, what the autoencoder's own model made.
    own: CacheFilter,
    /// Of these, what begins with a BOS token as the autoencoder's training texts did.
    alike: CacheFilter,
}

impl Filters {
    fn of(chosen: CacheFilter, sae: &Sae) -> Self {
        let with_hook = CacheFilter { hooks: vec![sae.hook()], ..chosen };
        let own = CacheFilter { fingerprint: Some(sae.model_fingerprint().to_owned()), ..with_hook.clone() };
        let alike = CacheFilter { bos: sae.settings().prepend_bos, ..own.clone() };
        Self { with_hook, own, alike }
    }
}

impl Questions {
    /// Encodes every stored position of the autoencoder's hook that the question leaves, and describes where each feature has its
    /// largest activations. It works through the rows task by task, so the memory it takes does not grow with the store.
    ///
    /// # Errors
    /// [`Code::SaeNotFound`]; [`Code::UnknownSae`] for a feature that does not exist; [`Code::Unavailable`] while the autoencoder
    /// or its model is loaded; [`Code::InvalidValue`], [`Code::ShapeMismatch`], [`Code::ResultTooLarge`]; the store's own.
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

    /// Where the tokens stand that are left out.
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

/// Compares the width of the stored rows with what the autoencoder encodes.
fn check_widths(plan: &ScanPlan, sae: &Sae) -> Result<(), Problem> {
    if plan.widths().iter().all(|width| *width == sae.row_width()) {
        return Ok(());
    }
    let detail = format!("rows of {} are not of {} numbers in some of the caches", sae.hook(), sae.row_width());
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
