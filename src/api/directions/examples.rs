//! The caches that a direction is fitted to, and to which class each belongs.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::request::Target;
use crate::api::dto::selector::CacheSelector;
use residuum_domain::{Cache, CacheId, Code, Problem, TenantId};
use residuum_engine::questions::Chosen;
use residuum_store::Store;

/// Caches that one direction is fitted to.
pub const MAX_CACHES: usize = 10_000;
/// Ids that a direction's provenance lists; more are counted.
const MAX_LISTED: usize = 1000;

/// The two ways of naming two classes.
pub struct TwoClasses<'a> {
    /// Positive caches.
    pub positive: Option<&'a CacheSelector>,
    /// Negative caches.
    pub negative: Option<&'a CacheSelector>,
    /// Caches of both classes.
    pub caches: Option<&'a CacheSelector>,
    /// Which of them are positive.
    pub target: Option<&'a Target>,
}

impl TwoClasses<'_> {
    /// The caches and which of them are positive: those of `positive`, then those of `negative`; or `caches` in their order.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] for neither or both ways; [`Code::InvalidValue`] for a cache on both sides, an empty class
    /// or a target that does not fit; those of [`CacheSelector::choose`].
    pub async fn choose(&self, store: &Store, tenant: TenantId) -> Result<(Chosen, Vec<bool>), Problem> {
        let (chosen, labels) = match (self.positive, self.negative, self.caches, self.target) {
            (Some(positive), Some(negative), None, None) => {
                let positive = positive.selector("/positive")?.choose(store, tenant, "/positive", MAX_CACHES).await?;
                let negative = negative.selector("/negative")?.choose(store, tenant, "/negative", MAX_CACHES).await?;
                disjoint(&positive, &negative)?;
                let labels = [vec![true; positive.caches.len()], vec![false; negative.caches.len()]].concat();
                (join(positive, negative), labels)
            }
            (None, None, Some(caches), Some(target)) => {
                let chosen = caches.selector("/caches")?.choose(store, tenant, "/caches", MAX_CACHES).await?;
                distinct(&chosen)?;
                let labels = target.labels(&chosen)?;
                (chosen, labels)
            }
            _ => {
                let detail = "give positive and negative, or caches and target";
                return Err(Problem::new(Code::InvalidBody, detail));
            }
        };
        if chosen.caches.len() > MAX_CACHES {
            let detail = format!("{} caches are chosen; at most {MAX_CACHES} are taken at once", chosen.caches.len());
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        let n_positive = labels.iter().filter(|l| **l).count();
        if n_positive == 0 || n_positive == labels.len() {
            let which = if n_positive == 0 { "negative" } else { "positive" };
            let detail = format!("all {} caches are {which}; two classes are needed", labels.len());
            return Err(Problem::at(Code::InvalidValue, "/target", detail));
        }
        Ok((chosen, labels))
    }
}

fn join(mut positive: Chosen, negative: Chosen) -> Chosen {
    positive.caches.extend(negative.caches);
    positive.pointers.extend(negative.pointers);
    positive
}

fn disjoint(positive: &Chosen, negative: &Chosen) -> Result<(), Problem> {
    distinct(positive)?;
    distinct(negative)?;
    let ids: HashSet<CacheId> = positive.caches.iter().map(|c| c.cache.id).collect();
    match negative.caches.iter().position(|c| ids.contains(&c.cache.id)) {
        Some(i) => Err(Problem::at(Code::InvalidValue, &negative.pointers[i], "a cache is positive and negative")),
        None => Ok(()),
    }
}

/// Refuses a cache that is named twice: it would count twice, and stand on both sides of a cross-validation.
///
/// # Errors
/// [`Code::InvalidValue`] at the second.
pub fn distinct(chosen: &Chosen) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    match chosen.caches.iter().position(|c| !seen.insert(c.cache.id)) {
        Some(i) => Err(Problem::at(Code::InvalidValue, &chosen.pointers[i], "this cache is named twice")),
        None => Ok(()),
    }
}

impl Target {
    fn labels(&self, chosen: &Chosen) -> Result<Vec<bool>, Problem> {
        if self.value.is_some() && self.metadata.is_none() {
            return Err(Problem::at(Code::InvalidBody, "/target/value", "value goes with metadata"));
        }
        let of = |cache: &Cache| match (&self.metadata, &self.tag, &self.label) {
            (Some(key), None, None) => self.by_metadata(key, cache),
            (None, Some(tag), None) => Ok(cache.tags.contains(tag)),
            (None, None, Some(label)) => Ok(cache.label.as_ref() == Some(label)),
            _ => Err(Problem::at(Code::InvalidBody, "/target", "give exactly one of metadata, tag and label")),
        };
        chosen.caches.iter().map(|c| of(&c.cache)).collect()
    }

    fn by_metadata(&self, key: &str, cache: &Cache) -> Result<bool, Problem> {
        let refuse =
            |why: &str| Problem::at(Code::InvalidValue, "/target/metadata", format!("cache {}: {why}", cache.id));
        let found = cache.metadata.get(key).ok_or_else(|| refuse("its metadata lacks this key"))?;
        match (&self.value, found) {
            (Some(value), found) => Ok(value == found),
            (None, Value::Bool(positive)) => Ok(*positive),
            (None, _) => Err(refuse("the key holds neither true nor false; say in value which value is positive")),
        }
    }
}

/// Model and fingerprint of its weights, which all caches must share.
///
/// # Errors
/// [`Code::InvalidValue`] at the first cache of other weights.
pub fn model(chosen: &Chosen) -> Result<(String, String), Problem> {
    let Some(first) = chosen.caches.first() else {
        return Err(Problem::new(Code::EmptyInput, "no cache is chosen"));
    };
    let fingerprint = &first.cache.provenance.model_fingerprint;
    // Imports may not say which weights: then the name of the model has to do.
    let same = |cache: &Cache| {
        cache.provenance.model_fingerprint == *fingerprint
            && (!fingerprint.is_empty() || cache.model == first.cache.model)
    };
    if let Some(i) = chosen.caches.iter().position(|c| !same(&c.cache)) {
        let detail =
            "this cache was computed with other weights than the first; a direction has meaning within one model";
        return Err(Problem::at(Code::InvalidValue, &chosen.pointers[i], detail));
    }
    Ok((first.cache.model.clone(), fingerprint.clone()))
}

/// What provenance says of the caches: how the body selected them, how many, and a hash of their ids.
pub fn provenance(chosen: &Chosen, body: &Map<String, Value>) -> Map<String, Value> {
    let mut hasher = blake3::Hasher::new();
    chosen.caches.iter().for_each(|c| {
        hasher.update(c.cache.id.as_bytes());
    });
    let mut out = Map::new();
    out.insert("n".to_owned(), chosen.caches.len().into());
    out.insert("caches_blake3".to_owned(), hasher.finalize().to_hex().as_str().into());
    let selected = ["positive", "negative", "caches", "target"].into_iter().filter_map(|key| {
        let value = body.get(key).filter(|v| !v.is_null())?;
        let long = value.as_array().filter(|ids| ids.len() > MAX_LISTED);
        Some((key.to_owned(), long.map_or_else(|| value.clone(), |ids| json!({"n_ids": ids.len()}))))
    });
    out.insert("selection".to_owned(), Value::Object(selected.collect()));
    out
}
