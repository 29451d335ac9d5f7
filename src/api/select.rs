//! Caches that a request names, one by one or by what they have in common, and their vectors.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    caches::tensors::mean,
    dto::{cache::layers_with, position::ComparedPosition, read_time},
    json,
    rows::RowsOf,
    tensor::blocking,
};
use residuum_analysis::RowSource;
use residuum_domain::{
    CacheFilter, CacheId, Code, Dtype, Hook, HookName, Layers, Positions, Problem, Selection, Site, TenantId,
    TextQuery, hook::UnknownHook,
};
use residuum_store::{Store, StoreError, StoredCache};

/// Which caches: these, by their ids, or those that a filter finds.
#[derive(Debug, Clone)]
pub enum CacheSelector {
    /// These, in this order.
    Ids(Vec<String>),
    /// What the filter finds, newest first.
    Filter(Box<FilterDto>),
}

/// Conditions on caches; all that are given must hold.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CacheConditions, example = json!({"model": "smollm2-135m", "tags": ["demo"], "metadata": {"split": "train"}}))]
pub struct FilterDto {
    /// Name of the model.
    pub model: Option<String>,
    /// Made by this run.
    pub run: Option<String>,
    /// Bears every one of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Has this label.
    pub label: Option<String>,
    /// Captured every one of these hooks (full names).
    #[serde(default)]
    pub hooks: Vec<String>,
    /// Stored at or after this time (RFC 3339).
    pub created_from: Option<String>,
    /// Stored before this time (RFC 3339).
    pub created_to: Option<String>,
    /// The text, or what was generated behind it, has these words and `"quoted phrases"`.
    pub text: Option<String>,
    /// Has these keys with these values in its metadata; dots in a key lead into objects.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Is pinned, or is not.
    pub pinned: Option<bool>,
    /// Has a time to expire at or after this one (RFC 3339).
    pub expires_from: Option<String>,
    /// Has a time to expire before this one (RFC 3339).
    pub expires_to: Option<String>,
}

/// Caches by their ids or by conditions.
#[derive(Serialize, ToSchema)]
#[schema(as = CacheSelector)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes CacheSelector for the specification")]
pub enum CacheSelectorSchema {
    /// Ids.
    Ids(Vec<String>),
    /// Conditions.
    Conditions(Box<FilterDto>),
}

impl<'de> Deserialize<'de> for CacheSelector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = CacheSelector;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of ids of caches, or an object of conditions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<CacheSelector, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(ids)).map(CacheSelector::Ids)
            }

            fn visit_map<A: MapAccess<'de>>(self, conditions: A) -> Result<CacheSelector, A::Error> {
                let filter = FilterDto::deserialize(MapAccessDeserializer::new(conditions))?;
                Ok(CacheSelector::Filter(Box::new(filter)))
            }
        }

        json::one_of::<FilterDto, _, _>(d, Read)
    }
}

impl CacheSelector {
    /// The caches, at most `max`. Problems point at `pointer`, the place of the selector in the body.
    ///
    /// # Errors
    /// [`Code::UnknownCache`], [`Code::EmptyInput`] for none at all, [`Code::ResultTooLarge`] for more than `max`,
    /// [`Code::InvalidValue`] for a run that is no id; the store's own.
    pub async fn choose(&self, store: &Store, tenant: TenantId, pointer: &str, max: usize) -> Result<Chosen, Problem> {
        let too_many = || {
            let detail = format!("more than {max} caches are chosen; at most {max} are taken at once");
            Problem::at(Code::ResultTooLarge, pointer, detail)
        };
        let chosen = match self {
            Self::Ids(ids) if ids.len() > max => return Err(too_many()),
            Self::Ids(ids) => {
                let named: Vec<(CacheId, String)> = ids
                    .iter()
                    .enumerate()
                    .map(|(i, text)| read_id(text, format!("{pointer}/{i}")))
                    .collect::<Result<_, _>>()?;
                Chosen::of_ids(store, tenant, named).await?
            }
            Self::Filter(filter) => {
                let filter = filter.filter(pointer)?;
                let limit = u32::try_from(max).unwrap_or(u32::MAX - 1) + 1;
                let caches = store.choose(tenant, &filter, limit).await?;
                if caches.len() > max {
                    return Err(too_many());
                }
                let pointers = vec![pointer.to_owned(); caches.len()];
                Chosen { caches: caches.into_iter().map(Arc::new).collect(), pointers }
            }
        };
        if chosen.caches.is_empty() {
            return Err(Problem::at(Code::EmptyInput, pointer, "no cache is chosen"));
        }
        Ok(chosen)
    }
}

/// An id as a request writes it, with the place it stands at.
///
/// # Errors
/// [`Code::UnknownCache`]: what is no id names no cache.
pub fn read_id(text: &str, pointer: String) -> Result<(CacheId, String), Problem> {
    match text.parse() {
        Ok(id) => Ok((id, pointer)),
        Err(_) => Err(unknown_cache(&pointer)),
    }
}

fn unknown_cache(pointer: &str) -> Problem {
    Problem::at(Code::UnknownCache, pointer, "this is not the id of a cache here; it may have been deleted")
}

impl FilterDto {
    /// The conditions in the domain's words. Problems point into `pointer`, their place in the body.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for what no cache can have: a run that is no id, an unknown hook, a time or text that is none.
    pub fn filter(&self, pointer: &str) -> Result<CacheFilter, Problem> {
        self.read(|field, detail| Problem::at(Code::InvalidValue, format!("{pointer}/{field}"), detail))
    }

    /// The conditions in the domain's words; `wrong` makes the problem of a field.
    ///
    /// # Errors
    /// That of the first field that cannot be read.
    pub fn read(&self, wrong: impl Fn(&str, String) -> Problem) -> Result<CacheFilter, Problem> {
        let time = |field: &str, value: &Option<String>| {
            read_time(value.as_deref()).map_err(|detail| wrong(field, detail.to_owned()))
        };
        let run = self.run.as_deref().map(str::parse).transpose();
        let hooks = self.hooks.iter().enumerate().map(|(i, hook)| {
            hook.parse().map_err(|e: UnknownHook| {
                wrong(&format!("hooks/{i}"), format!("{e}; give a full name such as blocks.5.hook_resid_post"))
            })
        });
        let text = self.text.as_deref().map(TextQuery::parse).transpose();
        Ok(CacheFilter {
            model: self.model.clone(),
            run: run.map_err(|_| wrong("run", "this is not the id of a run".to_owned()))?,
            tags: self.tags.clone(),
            label: self.label.clone(),
            hooks: hooks.collect::<Result<_, _>>()?,
            created_from: time("created_from", &self.created_from)?,
            created_to: time("created_to", &self.created_to)?,
            text: text.map_err(|e| wrong("text", e.to_string()))?,
            metadata: self.metadata.clone(),
            pinned: self.pinned,
            expires_from: time("expires_from", &self.expires_from)?,
            expires_to: time("expires_to", &self.expires_to)?,
            fingerprint: None,
            bos: None,
        })
    }
}

/// Caches that can be read, each with the place in the body that names it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The caches.
    pub caches: Vec<Arc<StoredCache>>,
    /// JSON pointers, one a cache.
    pub pointers: Vec<String>,
}

impl Chosen {
    /// The caches with these ids.
    ///
    /// # Errors
    /// [`Code::UnknownCache`] at the first that the tenant does not have.
    pub async fn of_ids(store: &Store, tenant: TenantId, named: Vec<(CacheId, String)>) -> Result<Self, Problem> {
        let (ids, pointers): (Vec<CacheId>, Vec<String>) = named.into_iter().unzip();
        let found = store.stored(tenant, &ids).await?;
        let caches = found
            .into_iter()
            .zip(&pointers)
            .map(|(cache, pointer)| cache.map(Arc::new).ok_or_else(|| unknown_cache(pointer)))
            .collect::<Result<_, _>>()?;
        Ok(Self { caches, pointers })
    }

    /// The hooks that `hook`, a full or short name in the body's field `/hook`, stands for: one for each of `layers`, by
    /// default those that every cache has.
    ///
    /// # Errors
    /// [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::HookNotStored`] at the first cache that lacks one.
    pub fn hooks(&self, hook: &str, layers: &Layers) -> Result<Vec<Hook>, Problem> {
        let name: HookName =
            hook.parse().map_err(|e: UnknownHook| Problem::at(Code::UnknownHook, "/hook", e.to_string()))?;
        let hooks: Vec<Hook> = match name {
            HookName::Full(hook) => vec![hook],
            HookName::Short(site) => {
                let layers = match layers {
                    Layers::All => self.shared_layers(site),
                    some => some.resolve(self.caches.iter().map(|c| c.cache.n_layers).min().unwrap_or(0))?,
                };
                layers.into_iter().map(|l| Hook::block(site, l)).collect()
            }
        };
        if hooks.is_empty() {
            return Err(Problem::at(Code::HookNotStored, "/hook", format!("the caches share no layer of {hook}")));
        }
        for (cache, pointer) in self.caches.iter().zip(&self.pointers) {
            if let Some(missing) = hooks.iter().find(|h| cache.cache.hook_index(**h).is_err()) {
                return Err(Problem::at(Code::HookNotStored, pointer, format!("this cache did not capture {missing}")));
            }
        }
        Ok(hooks)
    }

    fn shared_layers(&self, site: Site) -> Vec<usize> {
        let mut layers = self.caches.first().map(|c| layers_with(&c.cache, site)).unwrap_or_default();
        for cache in &self.caches {
            let have = layers_with(&cache.cache, site);
            layers.retain(|l| have.contains(l));
        }
        layers
    }

    /// The rows of each cache at one hook: those at `positions`, or all that are stored. Each selection has a position axis of
    /// its own length, or none, and behind it rows of one width, which comes with them.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`], [`Code::ShapeMismatch`] at the first cache whose rows have another width, and for
    /// attention maps, which have none; [`Code::HookNotInCache`] for a hook that [`Self::hooks`] has not checked.
    pub fn selections(&self, hook: Hook, positions: Option<&Positions>) -> Result<(Vec<Selection>, usize), Problem> {
        if hook.site().is_attention_map() {
            let detail = format!("the rows of {hook} differ in width from input to input");
            return Err(Problem::at(Code::ShapeMismatch, "/hook", detail));
        }
        let mut selections = Vec::with_capacity(self.caches.len());
        let mut width = None;
        for (cache, pointer) in self.caches.iter().zip(&self.pointers) {
            let index = cache.cache.hook_index(hook)?;
            let own: usize = cache.cache.row_shapes[index].iter().product();
            if *width.get_or_insert(own) != own {
                let detail = format!("{hook} has rows of {own} values here and of others in the first cache");
                return Err(Problem::at(Code::ShapeMismatch, pointer, detail));
            }
            let selection = Selection::of(&cache.cache, index, positions);
            selections.push(selection.map_err(|p| Problem::at(p.code, pointer, p.detail))?);
        }
        Ok((selections, width.unwrap_or_default()))
    }

    /// The vector of each cache at one hook and one position, in float32; all of one width.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`], [`Code::ShapeMismatch`] at the first cache whose vector has another width, and the
    /// store's own.
    pub async fn vectors(
        &self,
        store: &Store,
        hook: Hook,
        position: impl Into<ComparedPosition>,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let rows = self.rows(store, hook, &RowsOf::Caches(position.into()))?;
        let one = move |i| rows.read(i..i + 1);
        let n = self.caches.len();
        blocking(move || (0..n).map(one).collect()).await
    }
}

/// The values of one selection, averaged where it asks for that, on a thread that may block.
///
/// # Errors
/// The store's.
pub fn read_rows(store: &Store, cache: &StoredCache, selection: &Selection) -> Result<Vec<f32>, StoreError> {
    if let Some(n) = selection.mean_of {
        return Ok(Dtype::Float32.decode(&mean(store, cache, selection, n)?));
    }
    let mut values = Vec::with_capacity(selection.n_served());
    for bytes in cache.read_many_blocking(store, &selection.reads())? {
        values.extend(cache.cache.capture.dtype.decode(&bytes));
    }
    Ok(values)
}
