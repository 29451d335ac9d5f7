//! Values that interventions take from stored caches: means, and values to patch in.

use std::sync::Arc;

use super::{PatchSource, row_part::RowPart};
use crate::questions::{
    Chosen, Questions, Selector, blocking,
    row_reader::{RowsOf, read_rows},
};
use residuum_analysis::rows::{Preparation, Prepared};
use residuum_domain::{
    Code, Hook, HookName, ModelInfo, Positions, PositionsRequest, Problem, Selection, TenantId, TokensRequest,
    hook::UnknownHook,
};

/// Most caches of one mean.
const MAX_CACHES: usize = 100_000;

/// Values for the hooks that an intervention changes. Problems point into the intervention.
pub struct StoredValues<'a> {
    /// The store.
    pub questions: &'a Questions,
    /// The tenant whose caches may be used.
    pub tenant: TenantId,
    /// The model that is changed.
    pub info: &'a ModelInfo,
    /// The hooks, all of one site.
    pub hooks: &'a [Hook],
}

/// Values to patch in at one hook.
pub struct Table {
    /// `[rows, changed part]`; of an attention map `[heads, rows, keys]`.
    pub values: Vec<f32>,
    /// Number of positions.
    pub n_rows: usize,
    /// Number of keys of an attention map; 0 for other hooks.
    pub n_keys: usize,
}

impl StoredValues<'_> {
    /// The mean over all rows that the caches stored at each hook, one row `[d]` per hook, and the number of caches.
    ///
    /// # Errors
    /// [`Code::HookNotStored`], [`Code::ShapeMismatch`] for rows of another width than the model's,
    /// [`Code::InvalidValue`] for a mean that is not finite, those of [`Selector::choose`], and those of the store.
    pub async fn means(&self, selector: &Selector) -> Result<(Vec<Vec<f32>>, usize), Problem> {
        let store = self.questions.store();
        let chosen = self.check(selector).await?;
        let mut means = Vec::with_capacity(self.hooks.len());
        for hook in self.hooks {
            let rows = chosen.rows(store, *hook, &RowsOf::Positions)?;
            let work = move || Ok(Prepared::new(rows, Preparation::default())?.column_means()?);
            let mean = self.questions.analyse(work).await?;
            check_width(mean.len(), self.info, *hook, "/caches")?;
            if mean.iter().any(|x| !x.is_finite()) {
                let detail = format!("{hook} holds NaN or infinity in a cache");
                return Err(Problem::at(Code::InvalidValue, "/caches", detail));
            }
            #[expect(clippy::cast_possible_truncation, reason = "the activations are float32")]
            means.push(mean.into_iter().map(|x| x as f32).collect());
        }
        Ok((means, chosen.caches.len()))
    }

    /// The caches of a mean, without reading their rows.
    ///
    /// # Errors
    /// [`Code::HookNotStored`], those of [`Selector::choose`], and those of the store.
    pub async fn check(&self, selector: &Selector) -> Result<Chosen, Problem> {
        let chosen = selector.choose(self.questions.store(), self.tenant, "/caches", MAX_CACHES).await?;
        check_stored(&chosen, self.hooks)?;
        Ok(chosen)
    }

    /// The values of `part` to patch in at each hook, at the positions of the source. If it names none, at the
    /// positions that are patched.
    ///
    /// # Errors
    /// [`Code::UnknownCache`], [`Code::UnknownHook`], [`Code::HookNotStored`], [`Code::PositionOutOfRange`],
    /// [`Code::ShapeMismatch`] for values of another width than the model's, [`Code::InvalidBody`] for a source without
    /// layer or positions, or with two of them, and those of the store.
    pub async fn tables(
        &self,
        source: &PatchSource,
        same: Option<&TokensRequest>,
        part: &RowPart,
    ) -> Result<Vec<Table>, Problem> {
        let store = self.questions.store();
        let named = (source.cache, "/source/cache".to_owned());
        let chosen = Chosen::of_ids(store, self.tenant, vec![named]).await?;
        let own = source_hooks(source, self.hooks)?;
        check_stored(&chosen, &own)?;
        let positions = source_positions(source, same)?;
        let is_map = self.hooks[0].site().is_attention_map();
        let mut tables = Vec::with_capacity(self.hooks.len());
        for hook in own {
            let cache = Arc::clone(&chosen.caches[0]);
            let width: usize = cache.cache.row_shapes[cache.cache.hook_index(hook)?].iter().product();
            check_width(width, self.info, self.hooks[0], "/source")?;
            let at = |p: Problem| Problem::at(p.code, "/source/positions", p.detail);
            let selection = Selection::of(&cache.cache, cache.cache.hook_index(hook)?, Some(&positions)).map_err(at)?;
            let n_keys = if is_map { cache.cache.token_ids.len() } else { 0 };
            let (n_served, store) = (selection.n_served(), store.clone());
            let rows = blocking(move || read_rows(&store, &cache, &selection)).await?;
            let n_rows = n_served / (width * n_keys.max(1)).max(1);
            let values = if is_map {
                let head = n_rows * n_keys;
                part.heads().iter().flat_map(|h| &rows[h * head..(h + 1) * head]).copied().collect()
            } else {
                rows.chunks_exact(width).flat_map(|row| part.gather(row)).collect()
            };
            tables.push(Table { values, n_rows, n_keys });
        }
        Ok(tables)
    }
}

/// The positions of the source: its own, or those that are patched.
fn source_positions(source: &PatchSource, same: Option<&TokensRequest>) -> Result<Positions, Problem> {
    if let Some(positions) = &source.positions {
        return Ok(positions.clone());
    }
    match same {
        None | Some(TokensRequest::All | TokensRequest::Prompt) => Ok(Positions::All),
        Some(TokensRequest::At(PositionsRequest::Known(same))) => Ok(same.clone()),
        Some(_) => {
            let detail = "name the positions of the source: the patched positions are not given by number";
            Err(Problem::at(Code::InvalidBody, "/source/positions", detail))
        }
    }
}

/// The hooks of the source, one for each patched hook.
fn source_hooks(source: &PatchSource, hooks: &[Hook]) -> Result<Vec<Hook>, Problem> {
    let unknown = |e: UnknownHook| Problem::at(Code::UnknownHook, "/source/hook", e.to_string());
    let site = match source.hook.as_deref().map(str::parse).transpose().map_err(unknown)? {
        Some(HookName::Full(_)) if source.layer.is_some() => {
            let detail = "the hook names its layer itself; leave out one of the two";
            return Err(Problem::at(Code::InvalidBody, "/source/layer", detail));
        }
        Some(HookName::Full(hook)) => {
            return if hook.site().is_attention_map() == hooks[0].site().is_attention_map() {
                Ok(vec![hook; hooks.len()])
            } else {
                Err(map_and_rows())
            };
        }
        Some(HookName::Short(site)) => site,
        None => hooks[0].site(),
    };
    if site.is_attention_map() != hooks[0].site().is_attention_map() {
        return Err(map_and_rows());
    }
    let own = |hook: &Hook| match (site.in_block(), source.layer.or(hook.layer())) {
        (true, Some(layer)) => Ok(Hook::block(site, layer)),
        (false, _) if source.layer.is_none() => Ok(Hook::global(site)),
        (true, None) => Err(Problem::at(Code::InvalidBody, "/source/layer", "say which layer of the source")),
        (false, _) => Err(Problem::at(Code::InvalidBody, "/source/layer", format!("`{}` has no layer", site.name()))),
    };
    hooks.iter().map(own).collect()
}

fn map_and_rows() -> Problem {
    Problem::at(Code::ShapeMismatch, "/source/hook", "an attention map is patched from an attention map")
}

/// Refuses caches that did not capture a hook.
fn check_stored(chosen: &Chosen, hooks: &[Hook]) -> Result<(), Problem> {
    for (cache, pointer) in chosen.caches.iter().zip(&chosen.pointers) {
        if let Some(missing) = hooks.iter().find(|h| cache.cache.hook_index(**h).is_err()) {
            return Err(Problem::at(Code::HookNotStored, pointer, format!("this cache did not capture {missing}")));
        }
    }
    Ok(())
}

/// Refuses activations of another width than the model's.
fn check_width(found: usize, info: &ModelInfo, hook: Hook, pointer: &str) -> Result<(), Problem> {
    let width: usize = info.row_shape(hook.site()).iter().product();
    if found == width {
        return Ok(());
    }
    let detail = format!("these activations have {found} values per position and {hook} of {} has {width}", info.id);
    Err(Problem::at(Code::ShapeMismatch, pointer, detail))
}
