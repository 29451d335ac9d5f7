//! The logit lens: the final norm and the unembedding of a served model, applied to stored rows of the residual stream.

use std::sync::Arc;

use rayon::prelude::*;

use super::{
    Questions,
    readout_rows::{Final, ReadoutRows},
    served::model_of,
    token::{Token, TokenRef},
};
use residuum_analysis::Distribution as Softmax;
use residuum_domain::{CacheId, Code, Hook, Layers, Positions, Problem, Site, TenantId};
use residuum_store::StoredCache;

/// Most probable tokens, or tokens to follow, per distribution.
const MAX_TOKENS: usize = 100;
/// Most numbers and token strings of one description.
const MAX_CELLS: usize = 1_000_000;
/// Most bytes of whole distributions, which are held in memory.
const MAX_TENSOR_BYTES: usize = 256 << 20;

/// The rows to read as logits.
#[derive(Debug, Clone)]
pub struct LensQuestion {
    /// The cache.
    pub cache: CacheId,
    /// A hook of the residual stream, with or without its layer.
    pub hook: String,
    /// Layers.
    pub layers: Layers,
    /// Positions; all stored ones if left out.
    pub positions: Option<Positions>,
}

/// What to describe of each distribution.
#[derive(Debug, Clone)]
pub struct LensDetail {
    /// Number of most probable tokens.
    pub top_k: usize,
    /// Tokens to follow through the layers.
    pub tokens: Vec<TokenRef>,
}

/// The values of a whole distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LensValues {
    /// Log-probabilities, in nats.
    LogProbs,
    /// Logits, scaled and capped like the model's own.
    Logits,
}

/// Rows of a cache that the head of its model can read.
pub struct Lens(ReadoutRows);

/// Descriptions of distributions over the next token.
#[derive(Debug, Clone)]
pub struct LensAnswer {
    /// The cache.
    pub cache: Arc<StoredCache>,
    /// The name under which its model is served now.
    pub model: String,
    /// The site that was read.
    pub site: Site,
    /// Layers, in the order of `values`.
    pub layers: Vec<usize>,
    /// Positions, in the order of each layer's values.
    pub positions: Vec<u32>,
    /// The followed tokens, in the order of the question.
    pub tokens: Vec<Token>,
    /// The stored hook from which the model's final distribution was computed, if one is stored.
    pub final_from: Option<Hook>,
    /// `[layer][position]`.
    pub values: Vec<Vec<LensDistribution>>,
}

/// One distribution over the next token. Its fields are empty if a logit is not finite.
#[derive(Debug, Clone, Default)]
pub struct LensDistribution {
    /// Entropy, in nats.
    pub entropy: Option<f64>,
    /// KL divergence of the model's final distribution from this one, `KL(final ‖ this)`, in nats.
    pub kl: Option<f64>,
    /// The most probable tokens, the most probable first; of equally probable ones the lower id first.
    pub top: Vec<TopToken>,
    /// The followed tokens.
    pub tokens: Vec<FollowedToken>,
}

/// One of the most probable tokens.
#[derive(Debug, Clone)]
pub struct TopToken {
    /// The token.
    pub token: Token,
    /// Its probability.
    pub probability: f64,
    /// Its logit, scaled and capped like the model's own.
    pub logit: f32,
}

/// A followed token.
#[derive(Debug, Clone)]
pub struct FollowedToken {
    /// Its id.
    pub id: u32,
    /// Number of tokens that are more probable.
    pub rank: usize,
    /// Its probability.
    pub probability: f64,
    /// Its log-probability, in nats.
    pub log_probability: f64,
    /// Its logit, scaled and capped like the model's own.
    pub logit: f32,
}

/// Whole distributions, float32 `[layer, pos, d_vocab]`.
#[derive(Debug, Clone)]
pub struct LensTensor {
    /// Layers, in the order of the first axis.
    pub layers: Vec<usize>,
    /// Extent of each axis.
    pub shape: [usize; 3],
    /// The values of each layer.
    pub values: Vec<Vec<f32>>,
}

impl Questions {
    /// The rows that a lens reads, after checking them against the cache and its model.
    ///
    /// # Errors
    /// [`Code::CacheNotFound`], [`Code::Conflict`] if the model that made the cache is not served, and those of
    /// [`ReadoutRows::new`].
    pub async fn lens(&self, tenant: TenantId, question: &LensQuestion) -> Result<Lens, Problem> {
        let cache = self.stored(tenant, question.cache).await?;
        let model = model_of(self.models(), &cache.cache)?;
        let store = self.store().clone();
        let positions = question.positions.as_ref();
        ReadoutRows::new(store, cache, model, &question.hook, &question.layers, positions).map(Lens)
    }

    /// Describes each distribution.
    ///
    /// # Errors
    /// [`Code::InvalidValue`], [`Code::ResultTooLarge`], those of resolving tokens, and those of the store.
    pub async fn lens_described(&self, lens: Lens, detail: &LensDetail) -> Result<LensAnswer, Problem> {
        let wanted = Wanted::of(detail, &lens.0)?;
        self.analyse(move || describe(&lens.0, wanted)).await
    }

    /// The whole distributions.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`], and those of the store.
    pub async fn lens_tensor(&self, lens: Lens, values: LensValues) -> Result<LensTensor, Problem> {
        let Lens(rows) = lens;
        let n_bytes = rows.n_rows().saturating_mul(rows.d_vocab() * size_of::<f32>());
        if n_bytes > MAX_TENSOR_BYTES {
            let detail = format!(
                "the tensor would have {n_bytes} bytes; {MAX_TENSOR_BYTES} are allowed. Ask for fewer layers or positions"
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        self.analyse(move || whole(&rows, values)).await
    }
}

/// What to describe of each distribution, with its tokens resolved.
struct Wanted {
    top_k: usize,
    tokens: Vec<Token>,
}

impl Wanted {
    fn of(detail: &LensDetail, rows: &ReadoutRows) -> Result<Self, Problem> {
        let top_k = detail.top_k;
        if top_k > MAX_TOKENS {
            let detail = format!("at most {MAX_TOKENS} tokens are listed; request format=npy for all");
            return Err(Problem::at(Code::InvalidValue, "/top_k", detail));
        }
        let named = &detail.tokens;
        if named.len() > MAX_TOKENS {
            let detail = format!("at most {MAX_TOKENS} tokens are followed; request format=npy for all");
            return Err(Problem::at(Code::InvalidValue, "/tokens", detail));
        }
        let tokenizer = rows.model.tokenizer();
        let resolve = |(i, token): (usize, &TokenRef)| token.resolve(tokenizer, &format!("/tokens/{i}"));
        let tokens: Vec<Token> = named.iter().enumerate().map(resolve).collect::<Result<_, _>>()?;
        let cells = rows.n_rows().saturating_mul(top_k + tokens.len() + 1);
        if cells > MAX_CELLS {
            let detail = format!(
                "the answer would hold {cells} entries; {MAX_CELLS} are allowed. Ask for fewer layers, positions or tokens"
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        Ok(Self { top_k, tokens })
    }
}

fn describe(rows: &ReadoutRows, wanted: Wanted) -> Result<LensAnswer, Problem> {
    let mut values: Vec<Vec<LensDistribution>> = vec![Vec::new(); rows.hooks.len()];
    let end = rows.end();
    rows.for_each_block(end, |hook, logits, last| {
        let described = logits.par_chunks(rows.d_vocab()).enumerate().map(|(i, row)| {
            let last = last.map(|last| &last[i * rows.d_vocab()..][..rows.d_vocab()]);
            wanted.describe(rows, row, last)
        });
        values[hook].par_extend(described);
        Ok(())
    })?;
    Ok(LensAnswer {
        cache: Arc::clone(&rows.cache),
        model: rows.model.info().id.clone(),
        site: rows.site(),
        layers: rows.hooks.iter().filter_map(Hook::layer).collect(),
        positions: rows.positions.clone(),
        tokens: wanted.tokens,
        final_from: end.map(|Final(hook)| hook),
        values,
    })
}

impl Wanted {
    /// Describes the distribution of `logits` `[d_vocab]`, and how far it is from that of `last`, the model's own
    /// logits.
    fn describe(&self, rows: &ReadoutRows, logits: &[f32], last: Option<&[f32]>) -> LensDistribution {
        let Some(p) = Softmax::of(logits) else {
            return LensDistribution::default();
        };
        let top: Vec<u32> = p.top(self.top_k).into_iter().filter_map(|i| u32::try_from(i).ok()).collect();
        let names = rows.model.tokenizer().token_strings(&top);
        let named = |(id, token): (u32, String)| {
            let i = id as usize;
            TopToken { token: Token { id, token }, probability: p.probability(i), logit: p.logit(i) }
        };
        let follow = |token: &Token| {
            let i = token.id as usize;
            let (rank, probability, log_probability) = (p.rank(i), p.probability(i), p.log_probability(i));
            FollowedToken { id: token.id, rank, probability, log_probability, logit: p.logit(i) }
        };
        LensDistribution {
            entropy: Some(p.entropy()),
            kl: last.and_then(Softmax::of).map(|last| last.kl(&p)),
            top: top.into_iter().zip(names).map(named).collect(),
            tokens: self.tokens.iter().map(follow).collect(),
        }
    }
}

/// The values, layer by layer.
fn whole(rows: &ReadoutRows, values: LensValues) -> Result<LensTensor, Problem> {
    let mut layers: Vec<Vec<f32>> = vec![Vec::new(); rows.hooks.len()];
    rows.for_each_block(None, |hook, logits, _| {
        if values == LensValues::LogProbs {
            logits.par_chunks_mut(rows.d_vocab()).for_each(|row| match Softmax::of(row) {
                Some(p) => {
                    let log_probs: Vec<f32> = p.log_probabilities().collect();
                    row.copy_from_slice(&log_probs);
                }
                None => row.fill(f32::NAN),
            });
        }
        layers[hook].extend_from_slice(logits);
        Ok(())
    })?;
    Ok(LensTensor {
        layers: rows.hooks.iter().filter_map(Hook::layer).collect(),
        shape: [rows.hooks.len(), rows.positions.len(), rows.d_vocab()],
        values: layers,
    })
}
