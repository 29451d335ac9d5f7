//! Scores the rows of a scan plan, and describes the best.

use std::{collections::BTreeSet, sync::Arc};

use rayon::prelude::*;

use super::{Scanned, SearchAnswer, SearchQuestion};
use crate::questions::{Questions, hits::HitCaches};
use residuum_analysis::scan::{Best, Scan};
use residuum_domain::{CacheId, Hook, Problem, TenantId};
use residuum_store::{RowKey, ScanPlan, Store};

/// The best rows for each query.
pub(super) struct Ranked {
    /// For each query, score and row of the hits, best first.
    results: Vec<Vec<(f32, RowKey)>>,
    scanned: Scanned,
    /// Caches whose rows could not all be read, whether they are damaged or were deleted.
    unread: BTreeSet<CacheId>,
}

/// The best rows so far.
struct Progress {
    rankings: Vec<Best<RowKey>>,
    n_rows: u64,
    n_bytes: u64,
    unread: BTreeSet<CacheId>,
}

impl Progress {
    fn new(scan: &Scan, k: usize) -> Self {
        Self { rankings: scan.rankings(k), n_rows: 0, n_bytes: 0, unread: BTreeSet::new() }
    }

    /// Scores the rows of one task of the plan.
    fn add(mut self, store: &Store, plan: &ScanPlan, task: usize, scan: &Scan, excluded: Option<CacheId>) -> Self {
        let is_out = |key: &RowKey| Some(key.0) == excluded;
        let report = plan.read_blocking(store, task, |rows, keys| {
            let mut rows = rows;
            for run in keys.chunk_by(|a, b| is_out(a) == is_out(b)) {
                let (these, others) = rows.split_at(run.len() * scan.width());
                rows = others;
                if !is_out(&run[0]) {
                    scan.offer(these, run, &mut self.rankings);
                }
            }
        });
        self.n_rows += report.n_rows;
        self.n_bytes += report.n_bytes;
        self.unread.extend(report.unread);
        self.unread.extend(report.deleted);
        self
    }

    fn merged(self, other: Self) -> Self {
        let rankings = self.rankings.into_iter().zip(other.rankings).map(|(a, b)| a.merged(b)).collect();
        let mut unread = self.unread;
        unread.extend(other.unread);
        Self { rankings, n_rows: self.n_rows + other.n_rows, n_bytes: self.n_bytes + other.n_bytes, unread }
    }
}

impl Ranked {
    /// Scores the rows of a plan on the analysis threads. The rows must have the width of the queries.
    ///
    /// # Errors
    /// `Code::Internal` if the search panicked.
    pub(super) async fn of(
        questions: &Questions,
        plan: Arc<ScanPlan>,
        queries: Vec<Vec<f32>>,
        question: &SearchQuestion,
    ) -> Result<Self, Problem> {
        let store = questions.store().clone();
        let (metric, k, excluded) = (question.metric, question.k, question.source.excluded());
        questions
            .analyse(move || {
                let scan = Scan::new(metric, &queries);
                let start = || Progress::new(&scan, k);
                let done = (0..plan.n_tasks())
                    .into_par_iter()
                    .fold(start, |progress, task| progress.add(&store, &plan, task, &scan, excluded))
                    .reduce(start, Progress::merged);
                let scored = |best: Best<RowKey>| {
                    best.into_sorted().into_iter().map(|(goodness, key)| (scan.score(goodness), key)).collect()
                };
                Ok(Self {
                    results: done.rankings.into_iter().map(scored).collect(),
                    scanned: Scanned {
                        caches: plan.n_caches(),
                        rows: done.n_rows,
                        bytes: done.n_bytes,
                        skipped: plan.n_skipped(),
                        damaged: 0,
                        deleted: 0,
                    },
                    unread: done.unread,
                })
            })
            .await
    }

    /// The answer, with `context` tokens on either side of a hit. Hits whose caches were deleted meanwhile are left
    /// out, and such caches are not counted as damaged.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn answer(
        self,
        questions: &Questions,
        tenant: TenantId,
        hook: Hook,
        context: usize,
    ) -> Result<SearchAnswer, Problem> {
        let hits = self.results.iter().flatten();
        let caches = HitCaches::of(questions, tenant, hits, &self.unread, context).await?;
        let described = |hits: Vec<_>| hits.into_iter().filter_map(|hit| caches.hit(hit)).collect();
        let damaged = caches.n_damaged(&self.unread);
        Ok(SearchAnswer {
            hook,
            results: self.results.into_iter().map(described).collect(),
            scanned: Scanned { damaged, deleted: self.unread.len() as u64 - damaged, ..self.scanned },
        })
    }
}
