//! Answers items without a forward pass: with stored activations, or with those being computed for another item.
//!
//! Each item is looked up once, before it is planned. When a batch is put together, its items become leaders of the
//! queued items that they will answer; [`InFlightDedup`](super::dedup::InFlightDedup) knows who follows whom.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::{
    Inner,
    claimed::{complete, load, pack_header},
    keys::forward_key,
    queue::{Reuse, Unit, UnitId},
};
use residuum_domain::{CacheId, Edits, NewItem, Rows, TenantId};
use residuum_model::Model;
use residuum_store::{
    Completion, FinishedPack, PackHeader, Reusable, ReusedCache, Store, StoreError, StoredRows, Wanted,
};

/// Items looked up in one query.
const LOOKUP_ITEMS: usize = 512;
/// Bytes that may be copied instead of computed, for one item and in one pack. Reading and writing more would delay the
/// next batch.
const COPY_BYTES: u64 = 64 << 20;
/// Most items copied into one pack.
const COPY_ITEMS: usize = 256;

/// An item to be looked up.
struct Candidate {
    unit: Unit,
    item: NewItem,
    wanted: Wanted,
}

/// An item whose rows are stored, and have to be copied.
struct Copying {
    unit: Unit,
    item: NewItem,
    rows: StoredRows,
}

/// Answers waiting items with activations that are stored or being computed. The other items wait to be computed.
pub(super) async fn reuse_stored(engine: &Arc<Inner>) {
    loop {
        let units = engine.queue().take_to_look_up(LOOKUP_ITEMS);
        if units.is_empty() {
            return;
        }
        let rest = look_up(engine, units).await;
        engine.queue().push(rest.into_iter().map(|u| Unit { reuse: Reuse::NotFound, ..u }).collect());
    }
}

/// The activations that an item needs.
pub(super) fn wanted(tenant: TenantId, edits: Option<&Edits>, item: &NewItem, model: &Model) -> Wanted {
    Wanted {
        forward_key: forward_key(tenant, model, item, edits),
        capture: item.capture.clone(),
        n_tokens: item.token_ids.len(),
    }
}

/// The lookup of a run's items before it was queued.
pub(super) struct Missed {
    /// What each item that was not found needs; `None` for an item for which something was found.
    pub(super) wanted: Vec<Option<Wanted>>,
    /// The value of `Inner::completions` before the lookup.
    pub(super) at: u64,
}

/// Whether the rows that an item needs are few enough to be copied from stored ones.
fn may_copy(n_bytes: u64, item: &NewItem) -> bool {
    let rows = match item.capture.positions.resolve(item.token_ids.len()) {
        Ok(Rows::Mean(list)) => list.len() as u64,
        _ => 1,
    };
    n_bytes.saturating_mul(rows) <= COPY_BYTES
}

/// Answers items, or lets them follow leaders. Returns those that have to be computed.
async fn look_up(engine: &Arc<Inner>, units: Vec<Unit>) -> Vec<Unit> {
    let items = match load(engine, &units).await {
        Ok(items) => items,
        Err(e) => {
            tracing::error!(error = %e, "waiting items could not be read; they are computed");
            return units;
        }
    };
    let mut rest = Vec::new();
    // One query for each tenant: an item is never answered with another tenant's activations.
    let mut by_tenant: HashMap<TenantId, Vec<Candidate>> = HashMap::new();
    for (unit, item) in items {
        let Ok(model) = engine.models.accepted(&unit.key.model) else {
            rest.push(unit.clone());
            continue;
        };
        let wanted = wanted(unit.key.tenant, unit.edits.as_deref(), &item, &model);
        // First the leaders, then the store: an item that ends in between is found in the store.
        if let Err(unit) = engine.dedup().follow(unit.clone(), &wanted, may_copy(unit.n_bytes, &item)) {
            by_tenant.entry(unit.key.tenant).or_default().push(Candidate { unit: *unit, item, wanted });
        }
    }
    for (tenant, candidates) in by_tenant {
        rest.extend(look_up_stored(engine, tenant, candidates).await);
    }
    rest
}

async fn look_up_stored(engine: &Arc<Inner>, tenant: TenantId, candidates: Vec<Candidate>) -> Vec<Unit> {
    let wanted: Vec<Wanted> = candidates.iter().map(|a| a.wanted.clone()).collect();
    let found = match engine.store.find_reusable(tenant, &wanted).await {
        Ok(found) => found,
        Err(e) => {
            tracing::error!(error = %e, "the lookup of activations to reuse failed");
            return candidates.into_iter().map(|a| a.unit).collect();
        }
    };
    let (mut shared, mut copied, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (Candidate { unit, item, wanted }, found) in candidates.into_iter().zip(found) {
        match found {
            Some(Reusable::Extent(extent)) => {
                let (run, item_index) = unit.id();
                shared.push((unit, ReusedCache { extent, cache: CacheId::generate(), run, item_index, item }));
            }
            Some(Reusable::Rows(rows)) if may_copy(unit.n_bytes, &item) => copied.push(Copying { unit, item, rows }),
            _ => {
                engine.dedup().queued(unit.id(), wanted);
                rest.push(unit);
            }
        }
    }
    rest.extend(share_extents(engine, shared).await);
    for group in groups(copied) {
        rest.extend(copy(engine, group).await);
    }
    rest
}

/// Makes caches that share stored extents. Returns the items for which that failed.
async fn share_extents(engine: &Arc<Inner>, shared: Vec<(Unit, ReusedCache)>) -> Vec<Unit> {
    if shared.is_empty() {
        return Vec::new();
    }
    let (units, reused): (Vec<Unit>, Vec<ReusedCache>) = shared.into_iter().unzip();
    match record(engine, &units, Completion { reused, ..Completion::default() }).await {
        Ok(()) => Vec::new(),
        Err(StoreError::Gone) => {
            // the extent was deleted after it was found, and a second lookup will not find it
            engine.queue().push(units.into_iter().map(|u| Unit { reuse: Reuse::ToLookUp, ..u }).collect());
            Vec::new()
        }
        Err(e) => {
            tracing::error!(error = %e, "reused activations could not be recorded; the items are computed");
            units
        }
    }
}

/// Commits items as reused.
async fn record(engine: &Arc<Inner>, units: &[Unit], completion: Completion) -> Result<(), StoreError> {
    complete(engine, completion, units.iter().map(|u| u.run).collect()).await?;
    engine.recent_items.forget(&units.iter().map(Unit::id).collect::<Vec<_>>());
    metrics::counter!("residuum_items_reused_total").increment(units.len() as u64);
    Ok(())
}

/// Groups items that can share a pack: same batch key, same provenance.
fn groups(copied: Vec<Copying>) -> Vec<Vec<Copying>> {
    let mut groups: Vec<Vec<Copying>> = Vec::new();
    for one in copied {
        let joins = |group: &&mut Vec<Copying>| {
            let bytes: u64 = group.iter().map(|c| c.unit.n_bytes).sum();
            group[0].unit.key == one.unit.key
                && group[0].rows.provenance() == one.rows.provenance()
                && bytes + one.unit.n_bytes <= COPY_BYTES
                && group.len() < COPY_ITEMS
        };
        match groups.iter_mut().find(joins) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    groups
}

/// Copies stored rows into a new pack. Returns the items for which that failed.
async fn copy(engine: &Arc<Inner>, group: Vec<Copying>) -> Vec<Unit> {
    let provenance = group[0].rows.provenance().clone();
    let mut sources = Vec::with_capacity(group.len());
    let (mut units, mut items) = (Vec::new(), Vec::new());
    for Copying { unit, item, rows } in group {
        units.push(unit);
        items.push(item);
        sources.push(rows);
    }
    let Ok(model) = engine.models.accepted(&units[0].key.model) else { return units };
    let (header, rows) = pack_header(&units, items, &model, provenance);
    let store = engine.store.clone();
    let written = tokio::task::spawn_blocking(move || write_copies(&store, header, &sources, &rows)).await;
    match written {
        Ok(Ok(pack)) => {
            metrics::counter!("residuum_items_copied_total").increment(units.len() as u64);
            let completion = Completion { pack: Some(pack), copied: true, ..Completion::default() };
            match record(engine, &units, completion).await {
                Ok(()) => Vec::new(),
                Err(e) => {
                    tracing::error!(error = %e, "copied activations could not be recorded; the items are computed");
                    units
                }
            }
        }
        Ok(Err(StoreError::Gone)) => {
            tracing::debug!("stored rows were deleted before they were copied; the items are computed");
            units
        }
        Ok(Err(e)) => {
            tracing::warn!(error = %e, "stored rows could not be copied; the items are computed");
            units
        }
        Err(e) => {
            tracing::error!(error = %e, "copying stored rows panicked; the items are computed");
            units
        }
    }
}

fn write_copies(
    store: &Store,
    header: PackHeader,
    sources: &[StoredRows],
    rows: &[Rows],
) -> Result<FinishedPack, StoreError> {
    let n_hooks = header.layout.hooks.len();
    let mut writer = store.begin_pack(header)?;
    for hook in 0..n_hooks {
        for (i, (source, rows)) in sources.iter().zip(rows).enumerate() {
            writer.write(hook, i..i + 1, &source.read_blocking(store, hook, rows)?)?;
        }
    }
    writer.finish()
}

/// Makes the items of a batch leaders. Items of the batch or the queue that one of them will answer follow it. Returns
/// the leaders.
pub(super) fn lead(engine: &Inner, items: Vec<(Unit, NewItem)>, model: &Model) -> Vec<(Unit, NewItem)> {
    let mut leading = Vec::with_capacity(items.len());
    let mut answered: HashMap<UnitId, Wanted> = HashMap::new();
    {
        let mut dedup = engine.dedup();
        for (unit, item) in items {
            let wanted = wanted(unit.key.tenant, unit.edits.as_deref(), &item, model);
            let copy = may_copy(unit.n_bytes, &item);
            let unit = match unit.reuse {
                Reuse::Never => unit,
                _ => match dedup.follow(unit, &wanted, copy) {
                    Ok(()) => continue,
                    Err(unit) => *unit,
                },
            };
            answered.extend(dedup.lead(unit.id(), wanted));
            leading.push((unit, item));
        }
    }
    let ids: HashSet<UnitId> = answered.keys().copied().collect();
    let taken = engine.queue().take(&ids);
    let mut back = Vec::new();
    for unit in taken {
        let Some(wanted) = answered.remove(&unit.id()) else { continue };
        // The leader may have been cancelled in between.
        if let Err(unit) = engine.dedup().follow(unit, &wanted, false) {
            back.push(*unit);
        }
    }
    engine.queue().push(back);
    leading
}

impl Inner {
    /// Marks the items of a run that need no second lookup, because no activations were committed since the first.
    /// Items that a leader will answer follow it; the others are returned.
    pub(super) fn after_miss(&self, units: Vec<Unit>, items: &[NewItem], missed: Missed) -> Vec<Unit> {
        let mut rest = Vec::with_capacity(units.len());
        let mut dedup = self.dedup();
        for ((unit, item), wanted) in units.into_iter().zip(items).zip(missed.wanted) {
            let Some(wanted) = wanted else {
                rest.push(unit);
                continue;
            };
            let copy = may_copy(unit.n_bytes, item);
            let Err(unit) = dedup.follow(unit, &wanted, copy) else { continue };
            // an item that stopped being computed in between has increased `completions` before
            if self.completions.load(Ordering::Acquire) == missed.at {
                dedup.queued(unit.id(), wanted);
                rest.push(Unit { reuse: Reuse::NotFound, ..*unit });
            } else {
                rest.push(*unit);
            }
        }
        rest
    }

    /// Ends leaders, and queues their followers to be looked up again.
    pub(super) fn end_leads(&self, ids: &[UnitId]) {
        let followers = {
            let mut dedup = self.dedup();
            ids.iter().flat_map(|id| dedup.end(*id)).collect()
        };
        self.look_up_again(followers);
    }

    /// Queues followers whose leader has ended, to be looked up again.
    pub(super) fn look_up_again(&self, followers: Vec<Unit>) {
        if !followers.is_empty() {
            self.enqueue(followers.into_iter().map(|u| Unit { reuse: Reuse::ToLookUp, ..u }).collect());
        }
    }
}
