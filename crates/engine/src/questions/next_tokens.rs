//! The most probable next tokens of caches that captured their logits.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Questions, lens::TopToken, readout_rows::select, row_reader::read_rows, served::model_of, token::Token};
use residuum_analysis::Distribution as Softmax;
use residuum_domain::{CacheId, Hook, Problem, Rows, Site, TenantId};
use residuum_model::Model;
use residuum_store::{Store, StoredCache};

/// The most probable next tokens after the last captured position of a cache.
#[derive(Debug, Clone)]
pub struct NextTokens {
    /// The cache.
    pub cache: CacheId,
    /// The position whose logits are described.
    pub position: Option<u32>,
    /// The tokens, the most probable first; of equally probable ones the lower id first. Their texts are empty unless
    /// the model that made the cache is served.
    pub top: Vec<TopToken>,
    /// Why there are none.
    pub missing: Option<NoNextTokens>,
}

/// Why a cache has no next tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoNextTokens {
    /// It did not capture `logits`.
    NotCaptured,
    /// It captured a mean over positions.
    Mean,
    /// A logit is NaN or infinite.
    NotFinite,
}

impl Questions {
    /// The `k` most probable next tokens of each of these caches that the tenant has, in their order: the softmax, in
    /// float64 over the whole vocabulary, of the logits at the last captured position.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next_tokens(
        &self,
        tenant: TenantId,
        caches: &[CacheId],
        k: usize,
    ) -> Result<Vec<NextTokens>, Problem> {
        let mut asked = Vec::new();
        for stored in self.store().stored(tenant, caches).await?.into_iter().flatten() {
            let logits = stored.cache.hook_index(Hook::global(Site::Logits)).is_ok();
            if logits {
                stored.check(self.store()).await?;
            }
            let model = if logits { model_of(self.models(), &stored.cache).ok() } else { None };
            asked.push((stored, model));
        }
        let store = self.store().clone();
        self.analyse(move || {
            asked.par_iter().map(|(stored, model)| next_tokens(&store, stored, model.as_ref(), k)).collect()
        })
        .await
    }
}

fn next_tokens(
    store: &Store,
    stored: &StoredCache,
    model: Option<&Arc<Model>>,
    k: usize,
) -> Result<NextTokens, Problem> {
    let cache = &stored.cache;
    let none = |position, why| NextTokens { cache: cache.id, position, top: Vec::new(), missing: Some(why) };
    let logits = Hook::global(Site::Logits);
    if cache.hook_index(logits).is_err() {
        return Ok(none(None, NoNextTokens::NotCaptured));
    }
    let Rows::List(positions) = cache.rows()? else { return Ok(none(None, NoNextTokens::Mean)) };
    let Some(position) = positions.iter().max().copied() else {
        return Ok(none(None, NoNextTokens::NotCaptured));
    };
    // [d_vocab]
    let row = read_rows(store, stored, &select(cache, logits, &[position], "/position")?)?;
    let Some(p) = Softmax::of(&row) else { return Ok(none(Some(position), NoNextTokens::NotFinite)) };
    let ids: Vec<u32> = p.top(k).into_iter().filter_map(|i| u32::try_from(i).ok()).collect();
    let names = model.map_or_else(|| vec![String::new(); ids.len()], |m| m.tokenizer().token_strings(&ids));
    let named = |(id, token): (u32, String)| {
        let i = id as usize;
        TopToken { token: Token { id, token }, probability: p.probability(i), logit: p.logit(i) }
    };
    let top = ids.into_iter().zip(names).map(named).collect();
    Ok(NextTokens { cache: cache.id, position: Some(position), top, missing: None })
}
