//! Scoring the rows of a plan, and describing the best.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use rayon::prelude::*;

use super::{
    super::state::ApiState,
    dto::{Hit, HitContext, Scanned, Search, SearchDto, SearchResult},
};
use residuum_analysis::scan::{Best, Scan};
use residuum_domain::{Cache, CacheId, Code, Hook, Problem, TenantId};
use residuum_engine::questions::served::SpecialTokens;
use residuum_store::{RowKey, ScanPlan, Store};

/// Hits that are looked up at once.
const LOOKED_UP: usize = 1000;

/// The caches of hits, and of rows that could not be read, as far as they are still there.
///
/// # Errors
/// The store's own.
pub async fn caches_of(
    state: &ApiState,
    tenant: TenantId,
    hits: impl Iterator<Item = &(f32, RowKey)>,
    unread: &BTreeSet<CacheId>,
) -> Result<HashMap<CacheId, Cache>, Problem> {
    let ids: BTreeSet<CacheId> = hits.map(|(_, (cache, _))| *cache).chain(unread.iter().copied()).collect();
    let ids: Vec<CacheId> = ids.into_iter().collect();
    let mut caches = HashMap::new();
    for ids in ids.chunks(LOOKED_UP) {
        let found = state.engine.store().stored(tenant, ids).await?;
        caches.extend(found.into_iter().flatten().map(|s| (s.cache.id, s.cache)));
    }
    Ok(caches)
}

/// The best rows for each query.
pub struct Ranked {
    /// For each query score and row, best first.
    results: Vec<Vec<(f32, RowKey)>>,
    scanned: Scanned,
    /// Caches whose rows could not all be read, whether they are damaged or were deleted.
    unread: BTreeSet<CacheId>,
}

/// What has been gone through so far.
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

    /// Scores the rows of one part of the plan.
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
    /// Scans a plan whose rows have the queries' width, on the threads for analysis.
    ///
    /// # Errors
    /// [`Code::Internal`] when it panics.
    pub async fn of(
        state: &ApiState,
        plan: Arc<ScanPlan>,
        queries: Vec<Vec<f32>>,
        request: &Search,
        excluded: Option<CacheId>,
    ) -> Result<Self, Problem> {
        let (store, pool) = (state.engine.store().clone(), Arc::clone(state.questions.threads()));
        let (metric, k) = (request.metric, request.k);
        let ranked = tokio::task::spawn_blocking(move || {
            pool.install(|| {
                let scan = Scan::new(metric, &queries);
                let start = || Progress::new(&scan, k);
                let done = (0..plan.n_tasks())
                    .into_par_iter()
                    .fold(start, |progress, task| progress.add(&store, &plan, task, &scan, excluded))
                    .reduce(start, Progress::merged);
                let scored = |best: Best<RowKey>| {
                    best.into_sorted().into_iter().map(|(goodness, key)| (scan.score(goodness), key)).collect()
                };
                Self {
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
                }
            })
        });
        ranked.await.map_err(|e| {
            tracing::error!(error = %e, "a search panicked");
            Problem::new(Code::Internal, "the search could not be carried out")
        })
    }

    /// The answer. Hits whose caches have been deleted meanwhile are left out, and such caches are not damaged.
    ///
    /// # Errors
    /// The store's own.
    pub async fn answer(
        self,
        state: &ApiState,
        tenant: TenantId,
        hook: Hook,
        request: &Search,
    ) -> Result<SearchDto, Problem> {
        let caches = caches_of(state, tenant, self.results.iter().flatten(), &self.unread).await?;
        let special = SpecialTokens::of(state.engine.models());
        let hit = |(score, key): (f32, RowKey)| {
            caches.get(&key.0).map(|c| describe(c, score, key, request.context, &special))
        };
        let results =
            self.results.into_iter().map(|hits| SearchResult { hits: hits.into_iter().filter_map(hit).collect() });
        let damaged = self.unread.iter().filter(|id| caches.contains_key(id)).count() as u64;
        Ok(SearchDto {
            hook: hook.to_string(),
            metric: request.metric,
            over: request.over,
            k: request.k,
            results: results.collect(),
            scanned: Scanned { damaged, deleted: self.unread.len() as u64 - damaged, ..self.scanned },
        })
    }
}

/// A row that was found, with `around` tokens on either side.
pub fn describe(cache: &Cache, score: f32, (_, position): RowKey, around: usize, special: &SpecialTokens) -> Hit {
    let token = position.map(|p| p as usize).filter(|p| *p < cache.tokens.len());
    let context = token.map(|p| {
        let start = p.saturating_sub(around);
        let end = (p + around + 1).min(cache.tokens.len());
        HitContext { start, tokens: cache.tokens[start..end].to_vec(), hit: p - start }
    });
    Hit {
        cache: cache.id.to_string(),
        run: cache.run.to_string(),
        model: cache.model.clone(),
        score,
        position,
        token: token.map(|p| cache.tokens[p].clone()),
        special: token.and_then(|p| special.at(cache, p)),
        context,
        label: cache.label.clone(),
        tags: cache.tags.clone(),
        metadata: cache.metadata.clone(),
    }
}
