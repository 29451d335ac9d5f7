//! Stores what was generated: with the rows that were recorded meanwhile, or after a forward pass over the whole text.

use std::{collections::HashMap, sync::Arc};

use super::Active;
use crate::{
    Inner, batch_key,
    claimed::{complete, pack_header},
    keys::provenance,
    queue::{BatchKey, Reuse, Unit, UnitId},
    reuse::wanted,
    scheduler::{all_failed, may_succeed_later, no_room, put_back},
    unit,
};
use residuum_domain::{CacheId, NewItem, Positions, Problem, RunId, positions::Unsettled};
use residuum_model::{
    Model,
    generate::{Keep, KeptRows},
};
use residuum_store::{Completion, FinishedPack, PackHeader, Reusable, ReusedCache, Store, StoreError};

/// A continued item with the rows that were recorded.
struct Recorded {
    unit: Unit,
    item: NewItem,
    kept: Option<KeptRows>,
    model: Arc<Model>,
}

/// What an item's sequence should keep, and how many bytes that takes at most. `None` if it needs a pass of its own.
pub(super) fn keep(item: &NewItem, model: &Model) -> Option<(Keep, u64)> {
    let hooks = &item.capture.hooks;
    if hooks.is_empty() || !model.records_while_decoding(hooks, item.max_tokens()) {
        return None;
    }
    let shortest = item.token_ids.len() + 1;
    let positions = match &item.unsettled {
        Some(Unsettled::Reply { reply_from, .. }) => {
            Positions::Range { start: Some(i64::from(*reply_from)), end: None }
        }
        Some(Unsettled::Asked(_)) => Positions::All,
        None => item.capture.positions.clone(),
    };
    let keep = Keep::new(Arc::clone(hooks), &positions, shortest);
    let n_rows = keep.from.map_or(1, |from| item.max_tokens().saturating_sub(from));
    let row: usize = hooks.iter().map(|hook| model.info().row_shape(hook.site()).iter().product::<usize>()).sum();
    Some((keep, (n_rows * row * size_of::<f32>()) as u64))
}

/// Stores finished items. They stay in flight until they are durable, or wait to be captured.
pub(super) async fn store_finished(engine: Arc<Inner>, finished: Vec<Active>) {
    let places: Vec<(UnitId, u64)> = finished.iter().map(|a| (a.unit.id(), a.batch)).collect();
    let mut groups: HashMap<Arc<BatchKey>, Vec<Recorded>> = HashMap::new();
    let mut to_capture = Vec::new();
    for active in finished {
        let Active { unit, item, writing, model, .. } = active;
        let Some(done) = writing.sequence.finish() else { continue };
        let tokens = model.tokenizer().token_strings(&done.token_ids);
        let mut item =
            NewItem { token_ids: done.token_ids, tokens, generation: None, completion: Some(done.completion), ..item };
        if let Err(problem) = settle(&mut item, &model) {
            record_failure(&engine, vec![unit], &problem).await;
            continue;
        }
        if !item.capture.hooks.is_empty() && done.kept.is_none() {
            to_capture.push((unit, item, model));
            continue;
        }
        let key = batch_key(unit.key.tenant, &unit.key.model, &item);
        let recorded = Recorded { unit: Unit { key: Arc::clone(&key), ..unit }, item, kept: done.kept, model };
        groups.entry(key).or_default().push(recorded);
    }
    if !to_capture.is_empty() {
        queue_for_capture(&engine, to_capture).await;
    }
    for group in groups.into_values() {
        store_group(&engine, group).await;
    }
    for (id, batch) in &places {
        engine.controls.remove(*id);
        engine.in_flight_remove(*batch);
    }
    let runs: Vec<RunId> = places.iter().map(|((run, _), _)| *run).collect();
    runs.iter().for_each(|run| engine.progress.changed(*run));
}

/// Resolves the positions of an item whose tokens are all known now.
fn settle(item: &mut NewItem, model: &Model) -> Result<(), Problem> {
    if let Some(asked) = item.unsettled.take() {
        let special = model.tokenizer().special_mask(&item.token_ids);
        item.capture.positions = asked.resolve(&special)?;
    }
    item.capture.positions.resolve(item.token_ids.len()).map(drop)
}

/// Stores items that share a pack: those that stored activations answer share these, the others get their own.
async fn store_group(engine: &Arc<Inner>, group: Vec<Recorded>) {
    let (reused, new) = find_stored(engine, group).await;
    let mut units: Vec<Unit> = reused.iter().map(|(unit, _)| unit.clone()).collect();
    units.extend(new.iter().map(|recorded| recorded.unit.clone()));
    metrics::counter!("residuum_items_reused_total").increment(reused.len() as u64);
    metrics::counter!("residuum_items_captured_total").increment(new.len() as u64);
    let pack = match write_pack(engine, new).await {
        Ok(pack) => pack,
        Err(problem) if may_succeed_later(&problem) => return no_room(engine, units, &problem),
        Err(problem) => return record_failure(engine, units, &problem).await,
    };
    let reused = reused.into_iter().map(|(_, reused)| reused).collect();
    let completion = Completion { pack, reused, ..Completion::default() };
    let runs = units.iter().map(|u| u.run).collect();
    if let Err(e) = complete(engine, completion, runs).await {
        no_room(engine, units, &e.into());
    }
}

/// Separates the items whose rows are stored already.
async fn find_stored(engine: &Arc<Inner>, group: Vec<Recorded>) -> (Vec<(Unit, ReusedCache)>, Vec<Recorded>) {
    let Some(tenant) = group.first().map(|recorded| recorded.unit.key.tenant) else { return Default::default() };
    let (asking, mut new): (Vec<Recorded>, Vec<Recorded>) =
        group.into_iter().partition(|r| r.unit.reuse != Reuse::Never && r.kept.is_some());
    let wants: Vec<_> = asking.iter().map(|r| wanted(tenant, r.unit.edits.as_deref(), &r.item, &r.model)).collect();
    let found = if wants.is_empty() { Ok(Vec::new()) } else { engine.store.find_reusable(tenant, &wants).await };
    let found = found.unwrap_or_else(|e| {
        tracing::warn!(error = %e, "stored activations could not be looked up; new ones are stored");
        Vec::new()
    });
    let mut found = found.into_iter();
    let mut reused = Vec::new();
    for recorded in asking {
        match found.next().flatten() {
            Some(Reusable::Extent(extent)) => {
                let Recorded { unit, item, .. } = recorded;
                let cache = CacheId::generate();
                let one = ReusedCache { extent, cache, run: unit.run, item_index: unit.index, item };
                reused.push((unit, one));
            }
            _ => new.push(recorded),
        }
    }
    (reused, new)
}

/// Writes the recorded rows of items into a pack; `None` without items.
async fn write_pack(engine: &Arc<Inner>, new: Vec<Recorded>) -> Result<Option<FinishedPack>, Problem> {
    let Some(model) = new.first().map(|recorded| Arc::clone(&recorded.model)) else { return Ok(None) };
    let mut units = Vec::with_capacity(new.len());
    let (mut items, mut kept) = (Vec::new(), Vec::new());
    for recorded in new {
        units.push(recorded.unit);
        items.push(recorded.item);
        kept.push(recorded.kept);
    }
    let (header, rows) = pack_header(&units, items, &model, provenance(&model));
    engine.make_room(header.layout.total_bytes()).await?;
    let store = engine.store.clone();
    let write = move || -> Result<FinishedPack, StoreError> { write_rows(&store, header, &kept, &rows) };
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => Ok(Some(written?)),
        Err(e) => {
            tracing::error!(error = %e, "writing a pack panicked");
            Err(Problem::new(residuum_domain::Code::Internal, "captured activations could not be written"))
        }
    }
}

fn write_rows(
    store: &Store,
    header: PackHeader,
    kept: &[Option<KeptRows>],
    rows: &[residuum_domain::Rows],
) -> Result<FinishedPack, StoreError> {
    let n_hooks = header.layout.hooks.len();
    let mut pack = store.begin_pack(header)?;
    for hook in 0..n_hooks {
        for (i, (kept, rows)) in kept.iter().zip(rows).enumerate() {
            let values = kept.as_ref().and_then(|kept| kept.rows(hook, rows));
            let values = values.ok_or_else(|| StoreError::Misuse("a row was not recorded".to_owned()))?;
            pack.write(hook, i..i + 1, &values)?;
        }
    }
    pack.finish()
}

/// Makes continued items durable and queues them for a forward pass over the whole text.
async fn queue_for_capture(engine: &Arc<Inner>, ready: Vec<(Unit, NewItem, Arc<Model>)>) {
    let items: Vec<(RunId, u32, NewItem)> = ready.iter().map(|(u, item, _)| (u.run, u.index, item.clone())).collect();
    if let Err(e) = engine.store.continued(&items).await {
        tracing::error!(error = %e, "continued inputs could not be recorded; they go back to the queue");
        return put_back(engine, ready.into_iter().map(|(unit, ..)| unit).collect(), true);
    }
    let waiting = |(old, item, model): &(Unit, NewItem, Arc<Model>)| {
        let key = batch_key(old.key.tenant, &old.key.model, item);
        let edits = old.edits.clone();
        let Unit { priority, reuse, max_batch_items, .. } = *old;
        Unit { edits, priority, reuse, max_batch_items, ..unit(old.run, old.index, item, key, model) }
    };
    engine.enqueue(ready.iter().map(waiting).collect());
}

/// Records that items could not be continued.
pub(super) async fn record_failure(engine: &Arc<Inner>, units: Vec<Unit>, problem: &Problem) {
    metrics::counter!("residuum_items_failed_total").increment(units.len() as u64);
    units.iter().for_each(|unit| engine.followed.failed(unit.id(), problem));
    let (_, units): (Vec<Unit>, Vec<Unit>) =
        units.into_iter().partition(|unit| engine.followed.is_unrecorded(unit.run));
    if units.is_empty() {
        return;
    }
    let runs: Vec<RunId> = units.iter().map(|u| u.run).collect();
    if let Err(e) = complete(engine, all_failed(&units, problem), runs).await {
        tracing::error!(error = %e, "a failure could not be recorded; its inputs go back to the queue");
        put_back(engine, units, true);
    }
}
