//! The steps of a batch around its computation: read its items, claim them, lay out their pack, commit the outcome.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Inner,
    keys::forward_key,
    queue::{Unit, UnitId},
    request::layout_of,
};
use residuum_domain::{CacheId, Capture, NewItem, PackId, Problem, Provenance, Rows, RunId};
use residuum_model::Model;
use residuum_store::{Completion, PackHeader, PackedCache, StoreError};

/// Claimed items and their model.
pub(super) type Claimed = (Vec<(Unit, NewItem)>, Arc<Model>);

/// The items of `units`, in the same order. Reads from the store what is not in `recent_items`; leaves out items that
/// have ended meanwhile.
pub(super) async fn load<'u>(engine: &Arc<Inner>, units: &'u [Unit]) -> Result<Vec<(&'u Unit, NewItem)>, StoreError> {
    let mut items: HashMap<UnitId, NewItem> = HashMap::new();
    let mut by_run: HashMap<RunId, Vec<u32>> = HashMap::new();
    for u in units {
        match engine.recent_items.get(u.id()).or_else(|| engine.followed.unrecorded(u.id())) {
            Some(item) => drop(items.insert(u.id(), item)),
            None => by_run.entry(u.run).or_default().push(u.index),
        }
    }
    for (run, indices) in by_run {
        let loaded = engine.store.items(run, &indices).await?;
        items.extend(loaded.into_iter().map(|(index, item)| ((run, index), item)));
    }
    Ok(units.iter().filter_map(|u| Some((u, items.remove(&(u.run, u.index))?))).collect())
}

/// Reads items and claims them; `None` if none is left.
pub(super) async fn claim(engine: &Arc<Inner>, units: &[Unit]) -> Result<Option<Claimed>, Problem> {
    let items: Vec<(Unit, NewItem)> =
        load(engine, units).await?.into_iter().map(|(u, item)| (u.clone(), item)).collect();
    let Some((first, _)) = items.first() else { return Ok(None) };
    let model = engine.models.accepted(&first.key.model)?;
    let ids: Vec<UnitId> = items.iter().map(|(u, _)| u.id()).collect();
    claim_ids(engine, &ids).await?;
    Ok(Some((items, model)))
}

/// Claims items and notifies the subscribers of their runs.
///
/// # Errors
/// Those of the store.
pub(super) async fn claim_ids(engine: &Inner, ids: &[UnitId]) -> Result<(), StoreError> {
    let ids: Vec<UnitId> = ids.iter().copied().filter(|(run, _)| !engine.followed.is_unrecorded(*run)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let ids = ids.as_slice();
    engine.store.claim(ids).await?;
    engine.recent_items.forget(ids);
    let mut runs: Vec<RunId> = ids.iter().map(|(run, _)| *run).collect();
    runs.dedup();
    runs.into_iter().for_each(|run| engine.progress.changed(run));
    Ok(())
}

/// The header of a pack for items that share a batch key, and the rows of each item.
pub(super) fn pack_header(
    units: &[Unit],
    items: Vec<NewItem>,
    model: &Model,
    provenance: Provenance,
) -> (PackHeader, Vec<Rows>) {
    let key = Arc::clone(&units[0].key);
    let rows = |item: &NewItem| {
        let rows = item.capture.positions.resolve(item.token_ids.len());
        rows.expect("positions were resolved when the run was accepted")
    };
    let rows: Vec<Rows> = items.iter().map(rows).collect();
    let lengths: Vec<(usize, &Rows)> = items.iter().map(|i| i.token_ids.len()).zip(&rows).collect();
    let capture =
        Capture { hooks: Arc::clone(&key.hooks), positions: items[0].capture.positions.clone(), dtype: key.dtype };
    let layout = layout_of(&capture, model, &lengths);
    let caches = units
        .iter()
        .zip(items)
        .map(|(unit, item)| PackedCache {
            cache: CacheId::generate(),
            run: unit.run,
            item_index: unit.index,
            forward_key: Some(forward_key(key.tenant, model, &item, unit.edits.as_deref())),
            item,
        })
        .collect();
    let header = PackHeader {
        id: PackId::generate(),
        tenant: key.tenant,
        model: key.model.clone(),
        n_layers: model.info().n_layers,
        d_model: model.info().d_model,
        provenance,
        capture,
        layout,
        caches,
    };
    (header, rows)
}

/// Commits the outcome of a batch and notifies the subscribers of its runs.
///
/// # Errors
/// Those of the store.
pub(super) async fn complete(
    engine: &Arc<Inner>,
    completion: Completion,
    mut runs: Vec<RunId>,
) -> Result<(), StoreError> {
    let started = Instant::now();
    let ended = engine.store.complete(completion).await?;
    engine.close_logs(&ended);
    // counted before the followers of these items are looked up again
    engine.completions.fetch_add(1, Ordering::Release);
    engine.note_room(true);
    metrics::histogram!("residuum_commit_seconds").record(started.elapsed().as_secs_f64());
    runs.sort_unstable();
    runs.dedup();
    runs.into_iter().for_each(|run| engine.progress.changed(run));
    Ok(())
}
