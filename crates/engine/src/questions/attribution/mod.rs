//! Direct logit attribution: a logit as the sum of the contributions to the residual stream.

mod logit_parts;

use std::sync::Arc;

pub use logit_parts::{Components, LogitPart, PartKind};

use super::{
    Questions,
    readout_rows::{not_readable, readout},
    served::model_of,
    token::{Token, TokenRef},
};
use logit_parts::{AttributionPlan, PositionReader};
use residuum_domain::{CacheId, Code, Positions, Problem, Rows, TenantId};
use residuum_model::Model;
use residuum_store::{Store, StoredCache};

/// The logit to divide into parts.
#[derive(Debug, Clone)]
pub struct AttributionQuestion {
    /// The cache.
    pub cache: CacheId,
    /// The token.
    pub token: TokenRef,
    /// A second token. If given, the difference of the two logits is divided.
    pub against: Option<TokenRef>,
    /// One position. Its logits predict the token after it.
    pub position: Positions,
    /// How finely to divide; by default as finely as the stored hooks allow.
    pub components: Option<Components>,
}

/// A logit and its parts.
#[derive(Debug, Clone)]
pub struct AttributionAnswer {
    /// The cache.
    pub cache: CacheId,
    /// The name under which its model is served now.
    pub model: String,
    /// The position.
    pub position: u32,
    /// The token.
    pub token: Token,
    /// The token whose logit is subtracted.
    pub against: Option<Token>,
    /// How finely the logit is divided.
    pub components: Components,
    /// The denominator of the final norm at this position, which is treated as constant; 1 if the model has no such
    /// norm.
    pub scale: f64,
    /// The contribution of each part to the logit, in the order of the forward pass.
    pub parts: Vec<LogitPart>,
    /// The sum of the parts.
    pub sum: f64,
    /// The logit that the model's own head computes from the stored output of the last block: after the model's scale
    /// of logits, before any softcap. With `against`, the difference of two logits.
    pub logit: f64,
    /// The softcap of the model's logits. It is not linear, so it is not a part.
    pub softcap: Option<f32>,
    /// The logit (or the difference of two) after the softcap, if the model has one.
    pub logit_after_softcap: Option<f64>,
}

impl Questions {
    /// Divides a logit into parts. The residual stream before the final norm is the sum of the embeddings and the
    /// outputs of all attentions and MLPs. With the denominator of the norm treated as constant, the logit is a sum
    /// over these terms.
    ///
    /// # Errors
    /// [`Code::CacheNotFound`], [`Code::Conflict`] if the model that made the cache is not served,
    /// [`Code::NotReadable`], [`Code::HookNotStored`], [`Code::PositionOutOfRange`], [`Code::InvalidValue`] for several
    /// positions, those of resolving tokens, and those of the store.
    pub async fn attribution(
        &self,
        tenant: TenantId,
        question: AttributionQuestion,
    ) -> Result<AttributionAnswer, Problem> {
        let cache = self.stored(tenant, question.cache).await?;
        let model = model_of(self.models(), &cache.cache)?;
        let token = question.token.resolve(model.tokenizer(), "/token")?;
        let against = question.against.map(|t| t.resolve(model.tokenizer(), "/against")).transpose()?;
        let position = one_position(&cache, &question.position)?;
        readout(&model)?.linear().map_err(|why| not_readable(&model, why))?;
        let plan = AttributionPlan::of(&cache.cache, model.info(), question.components)?;
        let store = self.store().clone();
        let job = Job { store, cache, model, plan, position, token, against };
        self.analyse(move || job.run()).await
    }
}

fn one_position(cache: &StoredCache, wanted: &Positions) -> Result<u32, Problem> {
    let at = |p: Problem| Problem::at(p.code, "/position", p.detail);
    match wanted.resolve(cache.cache.token_ids.len()).map_err(at)? {
        Rows::List(list) if list.len() == 1 && !wanted.keeps_axis() => Ok(list[0]),
        _ => Err(Problem::at(
            Code::InvalidValue,
            "/position",
            "an attribution is for one position: an integer or \"last\"",
        )),
    }
}

/// A checked question with everything needed to answer it.
struct Job {
    store: Store,
    cache: Arc<StoredCache>,
    model: Arc<Model>,
    plan: AttributionPlan,
    position: u32,
    token: Token,
    against: Option<Token>,
}

impl Job {
    fn run(self) -> Result<AttributionAnswer, Problem> {
        let readout = readout(&self.model)?;
        let linear = readout.linear().map_err(|why| not_readable(&self.model, why))?;
        let reader = PositionReader { store: &self.store, cache: &self.cache, position: self.position };
        let row = reader.row(self.plan.end)?;
        let difference = |of: &dyn Fn(u32) -> f64| of(self.token.id) - self.against.as_ref().map_or(0.0, |t| of(t.id));
        let logits = readout.uncapped_logits(&row);
        let logit = difference(&|id| f64::from(logits[id as usize]));
        let capped = readout.softcap().map(|_| {
            let capped = readout.logits(&row);
            difference(&|id| f64::from(capped[id as usize]))
        });

        let (mut weights, mut bias) = linear.token(self.token.id);
        if let Some(against) = &self.against {
            let (minus, minus_bias) = linear.token(against.id);
            weights.iter_mut().zip(minus).for_each(|(w, m)| *w -= m);
            bias -= minus_bias;
        }
        let norm = linear.final_norm(&row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let (weights, norm_bias) = norm.pull_back(&weights);
        let mut parts = self.plan.parts(&reader, linear, &weights)?;
        if norm.has_bias() {
            parts.push(LogitPart::bias("ln_final.b", norm_bias));
        }
        if linear.has_bias() {
            parts.push(LogitPart::bias("unembed.b_U", bias));
        }
        let sum: f64 = parts.iter().map(|part| part.value).sum();
        Ok(AttributionAnswer {
            cache: self.cache.cache.id,
            model: self.model.info().id.clone(),
            position: self.position,
            token: self.token,
            against: self.against,
            components: self.plan.components,
            scale: norm.scale,
            parts,
            sum,
            logit,
            softcap: readout.softcap(),
            logit_after_softcap: capped,
        })
    }
}
