//! Selecting the caches of a question, and their hooks and rows.

use std::sync::Arc;

use residuum_domain::{
    CacheFilter, CacheId, Code, Hook, HookName, Layers, Positions, Problem, Selection, Site, TenantId,
    hook::UnknownHook,
};
use residuum_store::{Store, StoredCache};

/// Which caches: listed by id, or found by a filter.
#[derive(Debug, Clone)]
pub enum Selector {
    /// These caches, in this order.
    Ids(Vec<CacheId>),
    /// The caches that the filter finds: by run, the oldest first, and within a run in the order of its inputs.
    Filter(Box<CacheFilter>),
}

impl Selector {
    /// The selected caches, at most `max`. Problems point at `pointer`, the place of the selector in the question.
    ///
    /// # Errors
    /// [`Code::UnknownCache`], [`Code::EmptyInput`] if no cache is selected, [`Code::ResultTooLarge`] for more than
    /// `max`, and those of the store.
    pub async fn choose(&self, store: &Store, tenant: TenantId, pointer: &str, max: usize) -> Result<Chosen, Problem> {
        let too_many = || {
            let detail = format!("more than {max} caches are selected; at most {max} are allowed");
            Problem::at(Code::ResultTooLarge, pointer, detail)
        };
        let chosen = match self {
            Self::Ids(ids) if ids.len() > max => return Err(too_many()),
            Self::Ids(ids) => {
                let named = ids.iter().enumerate().map(|(i, id)| (*id, format!("{pointer}/{i}"))).collect();
                Chosen::of_ids(store, tenant, named).await?
            }
            Self::Filter(filter) => {
                let limit = u32::try_from(max).unwrap_or(u32::MAX - 1) + 1;
                let mut caches = store.choose(tenant, filter, limit).await?;
                if caches.len() > max {
                    return Err(too_many());
                }
                caches.sort_by_key(|stored| stored.cache.run_order());
                let pointers = vec![pointer.to_owned(); caches.len()];
                Chosen { caches: caches.into_iter().map(Arc::new).collect(), pointers }
            }
        };
        if chosen.caches.is_empty() {
            return Err(Problem::at(Code::EmptyInput, pointer, "no cache is selected"));
        }
        Ok(chosen)
    }
}

/// Parses the id of a cache that a client gives at `pointer`.
///
/// # Errors
/// [`Code::UnknownCache`]: a malformed id is the id of no cache.
pub fn read_id(text: &str, pointer: &str) -> Result<CacheId, Problem> {
    text.parse().map_err(|_| unknown_cache(pointer))
}

fn unknown_cache(pointer: &str) -> Problem {
    Problem::at(Code::UnknownCache, pointer, "this is not the id of a cache here; it may have been deleted")
}

/// Caches whose rows can be read, each with its place in the request body.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The caches.
    pub caches: Vec<Arc<StoredCache>>,
    /// One JSON pointer for each cache.
    pub pointers: Vec<String>,
}

impl Chosen {
    /// The caches with these ids.
    ///
    /// # Errors
    /// [`Code::UnknownCache`] at the first id for which the tenant has no cache.
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

    /// The hooks that `hook`, a full or short name in the body's field `/hook`, means: one for each of `layers`, by
    /// default one for each layer that all caches have.
    ///
    /// # Errors
    /// [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::HookNotStored`] at the first cache that lacks a hook.
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
        let mut layers = self.caches.first().map(|c| c.cache.layers_with(site)).unwrap_or_default();
        for cache in &self.caches {
            let have = cache.cache.layers_with(site);
            layers.retain(|l| have.contains(l));
        }
        layers
    }

    /// The rows of each cache at one hook: those at `positions`, or all stored rows. Also returns the width of the
    /// rows, which is the same for all caches. Each selection has a position axis of its own length, or none.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`]; [`Code::ShapeMismatch`] at the first cache whose rows have another width, and for
    /// attention maps, whose rows have no common width; [`Code::HookNotInCache`] for a hook that [`Self::hooks`] has
    /// not checked.
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
}
