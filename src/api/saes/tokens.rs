//! `POST /v1/saes/{id}/tokens`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    analysis::scan::Best,
    api::{
        directions_ref::check_feature,
        error::ApiResult,
        extract::{JsonBody, NoQuery, Object, Query, Tenant},
        problems::FeatureTokensProblems,
        search::{Hit, LOOKED_UP, MAX_CONTEXT, MAX_HITS, MAX_K, describe},
        select::FilterDto,
        state::ApiState,
    },
    domain::{Cache, CacheFilter, CacheId, Code, Problem, TenantId},
    model::sae::{Chosen, Sae},
    store::{RowKey, ScanPlan, Store, Take},
};

/// Features of one request.
const MAX_FEATURES: usize = 64;
/// Multiply-adds of one request: a few minutes.
const MAX_WORK: u64 = 20_000_000_000_000;

/// Which features, and where to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FeatureTokensRequest, example = json!({
    "features": [123, 8801], "k": 5, "filter": {"tags": ["corpus"]}, "context": 5, "skip_first": 1
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
    filter: Object<FilterDto>,
    /// Tokens of context on either side of a hit.
    #[serde(default = "five")]
    #[schema(maximum = 64, default = 5)]
    context: usize,
    /// Leaves out so many positions at the beginning of each input: BOS and attention sinks stand there, and their activations
    /// are often the largest of all.
    #[serde(default)]
    #[schema(default = 0)]
    skip_first: u32,
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
        "score": 9.5, "position": 3, "token": " Tower", "context": {"start": 0, "tokens": ["The", " E", "iffel", " Tower"], "hit": 3},
        "label": null, "tags": ["corpus"], "metadata": {}
    }]}],
    "scanned": {"caches": 100, "rows": 2000, "undefined": 0, "bytes": 4_608_000, "damaged": 0, "without_positions": 0, "bos_mismatch": 0,
        "other_weights": 0}
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
    /// Caches that stored a mean over positions and none of them.
    without_positions: u64,
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
    let sae = state.saes.get(&path.map(|Path(id)| id).unwrap_or_default(), Code::SaeNotFound)?;
    let request = body.value;
    check(&request, &sae)?;
    let chosen = request.filter.0.filter("/filter")?;
    let own = CacheFilter {
        hooks: vec![sae.hook()],
        fingerprint: Some(sae.model_fingerprint().to_owned()),
        ..chosen.clone()
    };
    let alike = CacheFilter { bos: sae.settings().prepend_bos, ..own.clone() };
    let matching = if request.allow_bos_mismatch { &own } else { &alike };
    let store = state.engine.store();
    let plan = store.scan_plan(tenant, matching, sae.hook(), &Take::Positions).await?;
    if plan.widths().iter().any(|width| *width != sae.row_width()) {
        let detail = format!("rows of {} are not of {} numbers in some of the caches", sae.hook(), sae.row_width());
        return Err(Problem::new(Code::ShapeMismatch, detail).into());
    }
    let with_hook = CacheFilter { hooks: vec![sae.hook()], ..chosen };
    let (all, of_model) =
        (store.count_all_caches(tenant, &with_hook).await?, store.count_all_caches(tenant, &own).await?);
    let found = Found::of(&state, plan, Arc::clone(&sae), &request).await?;
    let mut answer = found.answer(&state, tenant, &sae, &request).await?;
    answer.scanned.other_weights = all.saturating_sub(of_model);
    answer.scanned.bos_mismatch = of_model.saturating_sub(store.count_all_caches(tenant, &alike).await?);
    Ok(Json(answer))
}

fn check(request: &FeatureTokens, sae: &Sae) -> Result<(), Problem> {
    let refuse = |pointer: &str, detail: String| Err(Problem::at(Code::InvalidValue, pointer, detail));
    let n = request.features.len();
    if !(1..=MAX_FEATURES).contains(&n) {
        return refuse("/features", format!("give 1 to {MAX_FEATURES} features, not {n}"));
    }
    for (i, feature) in request.features.iter().enumerate() {
        check_feature(*feature, sae.d_sae(), &format!("/features/{i}"))?;
    }
    if !(1..=MAX_K).contains(&request.k) {
        return refuse("/k", format!("k is {}; it must lie between 1 and {MAX_K}", request.k));
    }
    if request.context > MAX_CONTEXT {
        return refuse("/context", format!("context is {}; it may be {MAX_CONTEXT} at most", request.context));
    }
    if n * request.k > MAX_HITS {
        let detail =
            format!("{n} features with {} hits each are more than the {MAX_HITS} that one answer holds", request.k);
        return Err(Problem::at(Code::ResultTooLarge, "/k", detail));
    }
    Ok(())
}

/// What one feature came to.
#[derive(Clone)]
struct Tally {
    best: Best<RowKey>,
    n_active: u64,
    sum: f64,
}

/// What has been gone through so far.
#[derive(Clone)]
struct Found {
    tallies: Vec<Tally>,
    n_rows: u64,
    n_undefined: u64,
    n_bytes: u64,
    unread: BTreeSet<CacheId>,
    n_caches: u64,
    n_skipped: u64,
}

impl Found {
    fn new(request: &FeatureTokens, plan: &ScanPlan) -> Self {
        let empty = Tally { best: Best::new(request.k), n_active: 0, sum: 0.0 };
        Self {
            tallies: vec![empty; request.features.len()],
            n_rows: 0,
            n_undefined: 0,
            n_bytes: 0,
            unread: BTreeSet::new(),
            n_caches: plan.n_caches(),
            n_skipped: plan.n_skipped(),
        }
    }

    /// Encodes the rows of a plan on the threads for analysis.
    async fn of(
        state: &ApiState,
        plan: Arc<ScanPlan>,
        sae: Arc<Sae>,
        request: &FeatureTokens,
    ) -> Result<Self, Problem> {
        let (features, skip_first) = (request.features.clone(), request.skip_first);
        let (store, empty) = (state.engine.store().clone(), Self::new(request, &plan));
        state
            .analyse(move || {
                let chosen = sae.choose(&features);
                let work = plan.n_rows().saturating_mul((chosen.n_computed() * sae.d_in()) as u64);
                if work > MAX_WORK {
                    let detail = format!("{} rows are too many to encode at once; filter them", plan.n_rows());
                    return Err(Problem::at(Code::ResultTooLarge, "/filter", detail));
                }
                let start = || empty.clone();
                let parts = (0..plan.n_tasks()).into_par_iter();
                let parts = parts.fold(start, |found, task| found.add(&store, &plan, task, &chosen, skip_first));
                Ok(parts.reduce(start, Self::merged))
            })
            .await
    }

    /// Encodes the rows of one part of the plan.
    fn add(mut self, store: &Store, plan: &ScanPlan, task: usize, chosen: &Chosen<'_>, skip_first: u32) -> Self {
        let report = plan.read_blocking(store, task, |rows, keys| {
            let width = rows.len() / keys.len().max(1);
            let is_out = |key: &RowKey| key.1.is_none_or(|position| position < skip_first);
            let mut rows = rows;
            for run in keys.chunk_by(|a, b| is_out(a) == is_out(b)) {
                let (these, others) = rows.split_at(run.len() * width);
                rows = others;
                if !is_out(&run[0]) {
                    self.take(&chosen.encode_rows(these), run);
                }
            }
        });
        self.n_bytes += report.n_bytes;
        self.unread.extend(report.unread);
        self
    }

    /// Takes in activations `[keys, features]`.
    fn take(&mut self, activations: &[f32], keys: &[RowKey]) {
        for (row, key) in activations.chunks_exact(self.tallies.len()).zip(keys) {
            if row[0].is_nan() {
                self.n_undefined += 1;
                continue;
            }
            self.n_rows += 1;
            for (tally, activation) in self.tallies.iter_mut().zip(row).filter(|(_, a)| **a > 0.0) {
                tally.best.offer(*activation, *key);
                tally.n_active += 1;
                tally.sum += f64::from(*activation);
            }
        }
    }

    fn merged(self, other: Self) -> Self {
        let both = |(a, b): (Tally, Tally)| Tally {
            best: a.best.merged(b.best),
            n_active: a.n_active + b.n_active,
            sum: a.sum + b.sum,
        };
        let mut unread = self.unread;
        unread.extend(other.unread);
        Self {
            tallies: self.tallies.into_iter().zip(other.tallies).map(both).collect(),
            n_rows: self.n_rows + other.n_rows,
            n_undefined: self.n_undefined + other.n_undefined,
            n_bytes: self.n_bytes + other.n_bytes,
            unread,
            ..self
        }
    }

    /// The answer, with counts of caches left out still to be made. Hits whose caches have been deleted meanwhile are left
    /// out, and such caches are not damaged.
    async fn answer(
        self,
        state: &ApiState,
        tenant: TenantId,
        sae: &Sae,
        request: &FeatureTokens,
    ) -> Result<FeatureTokensDto, Problem> {
        let sorted: Vec<Vec<(f32, RowKey)>> = self.tallies.iter().map(|t| t.best.clone().into_sorted()).collect();
        let hits = sorted.iter().flatten().map(|(_, (cache, _))| *cache);
        let ids: Vec<CacheId> = hits.chain(self.unread.iter().copied()).collect::<BTreeSet<_>>().into_iter().collect();
        let mut caches: HashMap<CacheId, Cache> = HashMap::new();
        for ids in ids.chunks(LOOKED_UP) {
            let found = state.engine.store().stored(tenant, ids).await?;
            caches.extend(found.into_iter().flatten().map(|s| (s.cache.id, s.cache)));
        }
        let hit = |(activation, key): (f32, RowKey)| {
            caches.get(&key.0).map(|c| describe(c, activation, key, request.context))
        };
        let of_feature = |((feature, tally), hits): ((&usize, &Tally), Vec<(f32, RowKey)>)| FeatureDto {
            feature: *feature,
            n_active: tally.n_active,
            density: (self.n_rows > 0).then(|| tally.n_active as f64 / self.n_rows as f64),
            mean: (tally.n_active > 0).then(|| tally.sum / tally.n_active as f64),
            hits: hits.into_iter().filter_map(hit).collect(),
        };
        Ok(FeatureTokensDto {
            sae: sae.id().to_owned(),
            model: sae.model().to_owned(),
            hook: sae.hook().to_string(),
            k: request.k,
            features: request.features.iter().zip(&self.tallies).zip(sorted).map(of_feature).collect(),
            scanned: ScannedDto {
                caches: self.n_caches,
                rows: self.n_rows,
                undefined: self.n_undefined,
                bytes: self.n_bytes,
                damaged: self.unread.iter().filter(|id| caches.contains_key(id)).count() as u64,
                without_positions: self.n_skipped,
                bos_mismatch: 0,
                other_weights: 0,
            },
        })
    }
}
