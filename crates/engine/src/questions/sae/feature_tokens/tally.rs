//! Encodes the rows of a scan plan, and keeps the positions at which each feature is strongest.

use std::{collections::BTreeSet, sync::Arc};

use rayon::prelude::*;

use super::{FeatureTokensAnswer, FeatureTokensScanned, StrongestTokens};
use crate::questions::{Questions, hits::HitCaches, sae::left_out::LeftOut};
use residuum_analysis::scan::Best;
use residuum_domain::{CacheId, Code, Problem, TenantId};
use residuum_model::sae::{Chosen, Sae};
use residuum_store::{RowKey, ScanPlan, Store, TokenPlaces};

/// Most multiply-adds of one question; they take a few minutes.
const MAX_WORK: u64 = 20_000_000_000_000;

/// Which rows to leave out.
#[derive(Debug)]
pub(super) struct Skip {
    /// How many positions at the beginning of each input.
    pub first: u32,
    /// Positions of tokens to leave out.
    pub places: TokenPlaces,
}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Encoded,
    /// Left out because of its position, or because it has none.
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

/// The result for one feature.
#[derive(Clone)]
struct Tally {
    best: Best<RowKey>,
    n_active: u64,
    sum: f64,
}

/// The results for the rows scanned so far.
#[derive(Clone)]
pub(super) struct Tallies {
    /// The features.
    features: Vec<usize>,
    /// One for each feature.
    tallies: Vec<Tally>,
    n_rows: u64,
    n_left_out: u64,
    n_undefined: u64,
    n_bytes: u64,
    unread: BTreeSet<CacheId>,
    n_caches: u64,
    n_skipped: u64,
}

impl Tallies {
    fn new(features: Vec<usize>, k: usize, plan: &ScanPlan) -> Self {
        let empty = Tally { best: Best::new(k), n_active: 0, sum: 0.0 };
        Self {
            tallies: vec![empty; features.len()],
            features,
            n_rows: 0,
            n_left_out: 0,
            n_undefined: 0,
            n_bytes: 0,
            unread: BTreeSet::new(),
            n_caches: plan.n_caches(),
            n_skipped: plan.n_skipped(),
        }
    }

    /// Encodes the rows of a plan on the analysis threads, and keeps the `k` strongest positions of each feature.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`] for more rows than can be encoded at once.
    pub(super) async fn of(
        questions: &Questions,
        plan: Arc<ScanPlan>,
        sae: Arc<Sae>,
        (features, k): (Vec<usize>, usize),
        skip: Skip,
    ) -> Result<Self, Problem> {
        let store = questions.store().clone();
        let empty = Self::new(features, k, &plan);
        questions
            .analyse(move || {
                let chosen = sae.choose(&empty.features);
                let work = plan.n_rows().saturating_mul((chosen.n_computed() * sae.d_in()) as u64);
                if work > MAX_WORK {
                    let detail = format!("{} rows are too many to encode at once; filter them", plan.n_rows());
                    return Err(Problem::at(Code::ResultTooLarge, "/filter", detail));
                }
                let start = || empty.clone();
                let tasks = (0..plan.n_tasks()).into_par_iter();
                let tasks = tasks.fold(start, |tallies, task| tallies.add(&store, &plan, task, &chosen, &skip));
                Ok(tasks.reduce(start, Self::merged))
            })
            .await
    }

    /// Encodes the rows of one task of the plan.
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

    /// Adds activations `[keys, features]`.
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

    /// The answer, with `context` tokens on either side of a hit. The caller fills in the counts of caches left out.
    /// Hits whose caches were deleted meanwhile are left out, and such caches are not counted as damaged.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn answer(
        self,
        questions: &Questions,
        tenant: TenantId,
        sae: &Sae,
        context: usize,
        left_out: &LeftOut,
    ) -> Result<FeatureTokensAnswer, Problem> {
        let sorted: Vec<Vec<(f32, RowKey)>> = self.tallies.iter().map(|t| t.best.clone().into_sorted()).collect();
        let caches = HitCaches::of(questions, tenant, sorted.iter().flatten(), &self.unread, context).await?;
        let damaged = caches.n_damaged(&self.unread);
        let of_feature = |((feature, tally), hits): ((&usize, &Tally), Vec<(f32, RowKey)>)| StrongestTokens {
            feature: *feature,
            n_active: tally.n_active,
            density: (self.n_rows > 0).then(|| tally.n_active as f64 / self.n_rows as f64),
            mean: (tally.n_active > 0).then(|| tally.sum / tally.n_active as f64),
            hits: hits.into_iter().filter_map(|hit| caches.hit(hit)).collect(),
        };
        Ok(FeatureTokensAnswer {
            sae: sae.id().to_owned(),
            model: sae.model().to_owned(),
            hook: sae.hook(),
            features: self.features.iter().zip(&self.tallies).zip(sorted).map(of_feature).collect(),
            left_out: left_out.positions(self.n_left_out),
            scanned: FeatureTokensScanned {
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
