//! Going through the rows of a plan, and describing where features are strongest.

use std::{collections::BTreeSet, sync::Arc};

use rayon::prelude::*;

use super::{FeatureDto, FeatureTokens, FeatureTokensDto, LeftOut, ScannedDto};
use crate::api::state::ApiState;
use residuum_analysis::scan::Best;
use residuum_domain::{CacheId, Code, Problem, TenantId};
use residuum_engine::questions::hits::HitCaches;
use residuum_model::sae::{Chosen, Sae};
use residuum_store::{RowKey, ScanPlan, Store, TokenPlaces};

/// Multiply-adds of one request: a few minutes.
const MAX_WORK: u64 = 20_000_000_000_000;

/// Which rows are left out.
#[derive(Debug)]
pub(super) struct Skip {
    /// So many positions at the beginning of each input.
    pub first: u32,
    /// Positions of tokens that are left out.
    pub places: TokenPlaces,
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Encoded,
    /// Left out by its position, or because it has none.
    Skipped,
    /// Left out because of its token.
    LeftOut,
}

impl Skip {
    fn fate(&self, (cache, position): &RowKey) -> Fate {
        match position {
            None => Fate::Skipped,
            Some(position) if *position < self.first => Fate::Skipped,
            Some(position) if self.places.contains(*cache, *position) => Fate::LeftOut,
            Some(_) => Fate::Encoded,
        }
    }
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
pub(super) struct Found {
    tallies: Vec<Tally>,
    n_rows: u64,
    n_left_out: u64,
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
            n_left_out: 0,
            n_undefined: 0,
            n_bytes: 0,
            unread: BTreeSet::new(),
            n_caches: plan.n_caches(),
            n_skipped: plan.n_skipped(),
        }
    }

    /// Encodes the rows of a plan on the threads for analysis.
    pub(super) async fn of(
        state: &ApiState,
        plan: Arc<ScanPlan>,
        sae: Arc<Sae>,
        request: &FeatureTokens,
        skip: Arc<Skip>,
    ) -> Result<Self, Problem> {
        let features = request.features.clone();
        let (store, empty) = (state.engine.store().clone(), Self::new(request, &plan));
        state
            .questions
            .analyse(move || {
                let chosen = sae.choose(&features);
                let work = plan.n_rows().saturating_mul((chosen.n_computed() * sae.d_in()) as u64);
                if work > MAX_WORK {
                    let detail = format!("{} rows are too many to encode at once; filter them", plan.n_rows());
                    return Err(Problem::at(Code::ResultTooLarge, "/filter", detail));
                }
                let start = || empty.clone();
                let parts = (0..plan.n_tasks()).into_par_iter();
                let parts = parts.fold(start, |found, task| found.add(&store, &plan, task, &chosen, &skip));
                Ok(parts.reduce(start, Self::merged))
            })
            .await
    }

    /// Encodes the rows of one part of the plan.
    fn add(mut self, store: &Store, plan: &ScanPlan, task: usize, chosen: &Chosen<'_>, skip: &Skip) -> Self {
        let report = plan.read_blocking(store, task, |rows, keys| {
            let width = rows.len() / keys.len().max(1);
            let fates: Vec<Fate> = keys.iter().map(|key| skip.fate(key)).collect();
            let (mut rows, mut keys) = (rows, keys);
            for run in fates.chunk_by(|a, b| a == b) {
                let (these, others) = rows.split_at(run.len() * width);
                let (of_these, of_others) = keys.split_at(run.len());
                (rows, keys) = (others, of_others);
                match run[0] {
                    Fate::Encoded => self.take(&chosen.encode_rows(these), of_these),
                    Fate::LeftOut => self.n_left_out += run.len() as u64,
                    Fate::Skipped => {}
                }
            }
        });
        self.n_bytes += report.n_bytes;
        self.unread.extend(report.unread);
        self.unread.extend(report.deleted);
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
            n_left_out: self.n_left_out + other.n_left_out,
            n_undefined: self.n_undefined + other.n_undefined,
            n_bytes: self.n_bytes + other.n_bytes,
            unread,
            ..self
        }
    }

    /// The answer, with counts of caches left out still to be made. Hits whose caches have been deleted meanwhile are left
    /// out, and such caches are not damaged.
    pub(super) async fn answer(
        self,
        state: &ApiState,
        tenant: TenantId,
        sae: &Sae,
        request: &FeatureTokens,
        left_out: &LeftOut,
    ) -> Result<FeatureTokensDto, Problem> {
        let sorted: Vec<Vec<(f32, RowKey)>> = self.tallies.iter().map(|t| t.best.clone().into_sorted()).collect();
        let hits = sorted.iter().flatten();
        let caches = HitCaches::of(&state.questions, tenant, hits, &self.unread, request.context).await?;
        let damaged = caches.n_damaged(&self.unread);
        let of_feature = |((feature, tally), hits): ((&usize, &Tally), Vec<(f32, RowKey)>)| FeatureDto {
            feature: *feature,
            n_active: tally.n_active,
            density: (self.n_rows > 0).then(|| tally.n_active as f64 / self.n_rows as f64),
            mean: (tally.n_active > 0).then(|| tally.sum / tally.n_active as f64),
            hits: hits.into_iter().filter_map(|hit| caches.hit(hit)).map(Into::into).collect(),
        };
        Ok(FeatureTokensDto {
            sae: sae.id().to_owned(),
            model: sae.model().to_owned(),
            hook: sae.hook().to_string(),
            k: request.k,
            features: request.features.iter().zip(&self.tallies).zip(sorted).map(of_feature).collect(),
            left_out: left_out.describe(self.n_left_out),
            scanned: ScannedDto {
                caches: self.n_caches,
                rows: self.n_rows,
                undefined: self.n_undefined,
                bytes: self.n_bytes,
                damaged,
                deleted: self.unread.len() as u64 - damaged,
                without_positions: self.n_skipped,
                without_token_ids: 0,
                bos_mismatch: 0,
                other_weights: 0,
            },
        })
    }
}
