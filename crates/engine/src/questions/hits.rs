//! Describes stored rows that a scan found: the cache of each, its token, and the tokens around it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Questions, served::SpecialTokens};
use residuum_domain::{Cache, CacheId, Code, Problem, TenantId};
use residuum_store::RowKey;

/// Hits looked up in one query.
const LOOKED_UP: usize = 1000;
/// Most hits for one query or feature.
const MAX_K: usize = 1000;
/// Most hits in one answer.
const MAX_HITS: usize = 10_000;
/// Most tokens on either side of a hit.
const MAX_CONTEXT: usize = 64;

/// A row that was found.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its cache.
    pub cache: Arc<Cache>,
    /// What it is ranked by, in float32: the metric of a search, or the activation of a feature.
    pub score: f32,
    /// Its position in the input; `None` for a mean.
    pub position: Option<u32>,
    /// The token at this position.
    pub token: Option<String>,
    /// Whether it is a special token; `None` for a mean, if the token's id is not known, or if the model that made the
    /// cache is not served.
    pub special: Option<bool>,
    /// The token with its neighbours.
    pub context: Option<HitContext>,
}

/// A token with its neighbours.
#[derive(Debug, Clone)]
pub struct HitContext {
    /// Position of the first of `tokens`.
    pub start: usize,
    /// The tokens.
    pub tokens: Vec<String>,
    /// Index of the hit in `tokens`.
    pub hit: usize,
}

/// How many hits a question wants, and how many tokens around each.
#[derive(Debug, Clone, Copy)]
pub(super) struct HitLimits {
    /// Hits for each query or feature.
    pub k: usize,
    /// Tokens on either side of a hit.
    pub context: usize,
}

impl HitLimits {
    /// Checks both numbers for `n` queries or features; `of_what` is what the question calls them.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] at `/k` or `/context`; [`Code::ResultTooLarge`] at `/k` for more hits than one answer holds.
    pub fn check(self, n: usize, of_what: &str) -> Result<(), Problem> {
        let Self { k, context } = self;
        let refuse = |pointer: &str, detail: String| Err(Problem::at(Code::InvalidValue, pointer, detail));
        if !(1..=MAX_K).contains(&k) {
            return refuse("/k", format!("k is {k}; it must lie between 1 and {MAX_K}"));
        }
        if context > MAX_CONTEXT {
            return refuse("/context", format!("context is {context}; it may be {MAX_CONTEXT} at most"));
        }
        if n * k > MAX_HITS {
            let detail = format!("{n} {of_what} with {k} hits each are more than the {MAX_HITS} that one answer holds");
            return Err(Problem::at(Code::ResultTooLarge, "/k", detail));
        }
        Ok(())
    }
}

/// The caches of hits and of unread rows, as far as they still exist.
pub(super) struct HitCaches {
    caches: HashMap<CacheId, Arc<Cache>>,
    special: SpecialTokens,
    context: usize,
}

impl HitCaches {
    /// Looks up the caches. Hits are described with `context` tokens on either side.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(
        questions: &Questions,
        tenant: TenantId,
        hits: impl Iterator<Item = &(f32, RowKey)>,
        unread: &BTreeSet<CacheId>,
        context: usize,
    ) -> Result<Self, Problem> {
        let ids: BTreeSet<CacheId> = hits.map(|(_, (cache, _))| *cache).chain(unread.iter().copied()).collect();
        let ids: Vec<CacheId> = ids.into_iter().collect();
        let mut caches = HashMap::new();
        for ids in ids.chunks(LOOKED_UP) {
            let found = questions.store().stored(tenant, ids).await?;
            caches.extend(found.into_iter().flatten().map(|s| (s.cache.id, Arc::new(s.cache))));
        }
        Ok(Self { caches, special: SpecialTokens::of(questions.models()), context })
    }

    /// How many of `unread` still exist and are therefore damaged; the others were deleted while they were read.
    pub fn n_damaged(&self, unread: &BTreeSet<CacheId>) -> u64 {
        unread.iter().filter(|id| self.caches.contains_key(id)).count() as u64
    }

    /// Describes a row that was found; `None` if its cache was deleted meanwhile.
    pub fn hit(&self, (score, (cache, position)): (f32, RowKey)) -> Option<Hit> {
        let cache = self.caches.get(&cache)?;
        let token = position.map(|p| p as usize).filter(|p| *p < cache.tokens.len());
        let context = token.map(|p| {
            let start = p.saturating_sub(self.context);
            let end = (p + self.context + 1).min(cache.tokens.len());
            HitContext { start, tokens: cache.tokens[start..end].to_vec(), hit: p - start }
        });
        Some(Hit {
            cache: Arc::clone(cache),
            score,
            position,
            token: token.map(|p| cache.tokens[p].clone()),
            special: token.and_then(|p| self.special.at(cache, p)),
            context,
        })
    }
}
