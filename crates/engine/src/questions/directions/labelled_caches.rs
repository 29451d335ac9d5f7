//! Selects the caches that a direction is fitted to, and the class of each.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::questions::{Chosen, Selector};
use residuum_domain::{Cache, CacheId, Code, Problem, TenantId};
use residuum_store::Store;

/// Most caches that one direction is fitted to.
pub const MAX_CACHES: usize = 10_000;

/// Caches of two classes.
#[derive(Debug, Clone)]
pub enum Classes {
    /// Each class has its own selector.
    Apart {
        /// Positive caches.
        positive: Selector,
        /// Negative caches.
        negative: Selector,
    },
    /// One selector for both classes; a target decides the class.
    Together {
        /// Caches of both classes.
        caches: Selector,
        /// Which of them are positive.
        target: Target,
    },
}

/// Which caches are positive.
#[derive(Debug, Clone)]
pub enum Target {
    /// By a key at the top level of each cache's metadata.
    Metadata {
        /// The key.
        key: String,
        /// The value that makes a cache positive. If left out, the key must hold true or false.
        value: Option<Value>,
    },
    /// Caches with this tag are positive.
    Tag(String),
    /// Caches with this label are positive.
    Label(String),
}

impl Classes {
    /// The caches, and which of them are positive. The order is `positive`, then `negative`; or that of `caches`.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for a cache in both classes or named twice, an empty class or a target that does not
    /// match; [`Code::ResultTooLarge`]; those of [`Selector::choose`].
    pub(super) async fn choose(&self, store: &Store, tenant: TenantId) -> Result<(Chosen, Vec<bool>), Problem> {
        let (chosen, labels) = match self {
            Self::Apart { positive, negative } => {
                let positive = positive.choose(store, tenant, "/positive", MAX_CACHES).await?;
                let negative = negative.choose(store, tenant, "/negative", MAX_CACHES).await?;
                disjoint(&positive, &negative)?;
                let labels = [vec![true; positive.caches.len()], vec![false; negative.caches.len()]].concat();
                (join(positive, negative), labels)
            }
            Self::Together { caches, target } => {
                let chosen = caches.choose(store, tenant, "/caches", MAX_CACHES).await?;
                distinct(&chosen)?;
                let labels = target.labels(&chosen)?;
                (chosen, labels)
            }
        };
        if chosen.caches.len() > MAX_CACHES {
            let detail = format!("{} caches are selected; at most {MAX_CACHES} are allowed", chosen.caches.len());
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
        Some(i) => {
            Err(Problem::at(Code::InvalidValue, &negative.pointers[i], "this cache is both positive and negative"))
        }
        None => Ok(()),
    }
}

/// Refuses a cache that is named twice: it would count twice, and could be in both parts of a cross-validation.
///
/// # Errors
/// [`Code::InvalidValue`] at the second occurrence.
pub fn distinct(chosen: &Chosen) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    match chosen.caches.iter().position(|c| !seen.insert(c.cache.id)) {
        Some(i) => Err(Problem::at(Code::InvalidValue, &chosen.pointers[i], "this cache is named twice")),
        None => Ok(()),
    }
}

impl Target {
    fn labels(&self, chosen: &Chosen) -> Result<Vec<bool>, Problem> {
        let of = |cache: &Cache| match self {
            Self::Metadata { key, value } => by_metadata(key, value.as_ref(), cache),
            Self::Tag(tag) => Ok(cache.tags.contains(tag)),
            Self::Label(label) => Ok(cache.label.as_ref() == Some(label)),
        };
        chosen.caches.iter().map(|c| of(&c.cache)).collect()
    }
}

fn by_metadata(key: &str, value: Option<&Value>, cache: &Cache) -> Result<bool, Problem> {
    let refuse = |why: &str| Problem::at(Code::InvalidValue, "/target/metadata", format!("cache {}: {why}", cache.id));
    let found = cache.metadata.get(key).ok_or_else(|| refuse("its metadata lacks this key"))?;
    match (value, found) {
        (Some(value), found) => Ok(value == found),
        (None, Value::Bool(positive)) => Ok(*positive),
        (None, _) => Err(refuse("the key holds neither true nor false; say in value which value is positive")),
    }
}

/// The model and the fingerprint of its weights, which must be the same for all caches.
///
/// # Errors
/// [`Code::InvalidValue`] at the first cache that other weights made.
pub fn model(chosen: &Chosen) -> Result<(String, String), Problem> {
    let Some(first) = chosen.caches.first() else {
        return Err(Problem::new(Code::EmptyInput, "no cache is selected"));
    };
    let fingerprint = &first.cache.provenance.model_fingerprint;
    // An import may lack the fingerprint; then the model's name must match.
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

/// What provenance says about the caches: how they were selected, how many there are, and a hash of their ids.
pub fn provenance(chosen: &Chosen, selection: &Map<String, Value>) -> Map<String, Value> {
    let mut hasher = blake3::Hasher::new();
    chosen.caches.iter().for_each(|c| {
        hasher.update(c.cache.id.as_bytes());
    });
    let mut out = Map::new();
    out.insert("n".to_owned(), chosen.caches.len().into());
    out.insert("caches_blake3".to_owned(), hasher.finalize().to_hex().as_str().into());
    out.insert("selection".to_owned(), Value::Object(selection.clone()));
    out
}
