//! Answers items without a forward pass: by what is stored, or by what is being computed for another item.
//!
//! Items are looked for once, before they are planned; and whatever is put into a batch leads those in the queue that it
//! will answer. [`InFlightDedup`](super::dedup::InFlightDedup) holds who waits for whom.

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

/// Items looked for in one query.
const ASK_ITEMS: usize = 512;
/// Bytes that are copied instead of computed, for one item and in one pack: reading and writing more would keep the next
/// batch waiting.
const COPY_BYTES: u64 = 64 << 20;
/// Items copied into one pack.
const COPY_ITEMS: usize = 256;

/// An item that is looked for.
struct Asking {
    unit: Unit,
    item: NewItem,
    wanted: Wanted,
}

/// An item that stored rows answer.
struct Copying {
    unit: Unit,
    item: NewItem,
    rows: StoredRows,
}

/// Answers waiting items by what is stored or on its way there; the others wait to be computed.
pub(super) async fn reuse_stored(engine: &Arc<Inner>) {
    loop {
        let units = engine.queue().take_unasked(ASK_ITEMS);
        if units.is_empty() {
            return;
        }
        let rest = ask(engine, units).await;
        engine.queue().push(rest.into_iter().map(|u| Unit { reuse: Reuse::Asked, ..u }).collect());
    }
}

/// What an item needs.
pub(super) fn wanted(tenant: TenantId, edits: Option<&Edits>, item: &NewItem, model: &Model) -> Wanted {
    Wanted {
        forward_key: forward_key(tenant, model, item, edits),
        capture: item.capture.clone(),
        n_tokens: item.token_ids.len(),
    }
}

/// Items of a run that were looked for before it was queued, and not found.
pub(super) struct Missed {
    /// What each item needs; `None` for one that something was found for.
    pub(super) wanted: Vec<Option<Wanted>>,
    /// `Inner::completions` before they were looked for.
    pub(super) at: u64,
}

/// Whether an item's activations may be copied together from others.
fn may_copy(n_bytes: u64, item: &NewItem) -> bool {
    let rows = match item.capture.positions.resolve(item.token_ids.len()) {
        Ok(Rows::Mean(list)) => list.len() as u64,
        _ => 1,
    };
    n_bytes.saturating_mul(rows) <= COPY_BYTES
}

/// Answers or leaves to others what can be; gives back what has to be computed.
async fn ask(engine: &Arc<Inner>, units: Vec<Unit>) -> Vec<Unit> {
    let items = match load(engine, &units).await {
        Ok(items) => items,
        Err(e) => {
            tracing::error!(error = %e, "waiting items could not be read; they are computed");
            return units;
        }
    };
    let mut rest = Vec::new();
    // One query for each tenant: items of one never see another's.
    let mut by_tenant: HashMap<TenantId, Vec<Asking>> = HashMap::new();
    for (unit, item) in items {
        let Ok(model) = engine.models.get(&unit.key.model) else {
            rest.push(unit.clone());
            continue;
        };
        let wanted = wanted(unit.key.tenant, unit.edits.as_deref(), &item, &model);
        // InFlightDedup before the store: one that ends in between is found there.
        if let Err(unit) = engine.dedup().follow(unit.clone(), &wanted, may_copy(unit.n_bytes, &item)) {
            by_tenant.entry(unit.key.tenant).or_default().push(Asking { unit: *unit, item, wanted });
        }
    }
    for (tenant, asking) in by_tenant {
        rest.extend(ask_store(engine, tenant, asking).await);
    }
    rest
}

async fn ask_store(engine: &Arc<Inner>, tenant: TenantId, asking: Vec<Asking>) -> Vec<Unit> {
    let wanted: Vec<Wanted> = asking.iter().map(|a| a.wanted.clone()).collect();
    let found = match engine.store.find_reusable(tenant, &wanted).await {
        Ok(found) => found,
        Err(e) => {
            tracing::error!(error = %e, "the store could not be asked for activations to reuse");
            return asking.into_iter().map(|a| a.unit).collect();
        }
    };
    let (mut pointed, mut copied, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for (Asking { unit, item, wanted }, found) in asking.into_iter().zip(found) {
        match found {
            Some(Reusable::Extent(extent)) => {
                let (run, item_index) = unit.id();
                pointed.push((unit, ReusedCache { extent, cache: CacheId::generate(), run, item_index, item }));
            }
            Some(Reusable::Rows(rows)) if may_copy(unit.n_bytes, &item) => copied.push(Copying { unit, item, rows }),
            _ => {
                engine.dedup().queued(unit.id(), wanted);
                rest.push(unit);
            }
        }
    }
    rest.extend(point(engine, pointed).await);
    for group in groups(copied) {
        rest.extend(copy(engine, group).await);
    }
    rest
}

/// Makes caches that point at stored extents; the items where that failed.
async fn point(engine: &Arc<Inner>, pointed: Vec<(Unit, ReusedCache)>) -> Vec<Unit> {
    if pointed.is_empty() {
        return Vec::new();
    }
    let (units, reused): (Vec<Unit>, Vec<ReusedCache>) = pointed.into_iter().unzip();
    match record(engine, &units, Completion { reused, ..Completion::default() }).await {
        Ok(()) => Vec::new(),
        Err(StoreError::Gone) => {
            // what was found and is deleted now is not found again
            engine.queue().push(units.into_iter().map(|u| Unit { reuse: Reuse::Unasked, ..u }).collect());
            Vec::new()
        }
        Err(e) => {
            tracing::error!(error = %e, "reused activations could not be recorded; the items are computed");
            units
        }
    }
}

/// Records items as reused.
async fn record(engine: &Arc<Inner>, units: &[Unit], completion: Completion) -> Result<(), StoreError> {
    complete(engine, completion, units.iter().map(|u| u.run).collect()).await?;
    engine.recent_items.forget(&units.iter().map(Unit::id).collect::<Vec<_>>());
    metrics::counter!("residuum_items_reused_total").increment(units.len() as u64);
    Ok(())
}

/// Items that can share a pack: what is captured, and what computed it.
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

/// Writes a pack of rows that are stored elsewhere; the items where that failed.
async fn copy(engine: &Arc<Inner>, group: Vec<Copying>) -> Vec<Unit> {
    let provenance = group[0].rows.provenance().clone();
    let mut sources = Vec::with_capacity(group.len());
    let (mut units, mut items) = (Vec::new(), Vec::new());
    for Copying { unit, item, rows } in group {
        units.push(unit);
        items.push(item);
        sources.push(rows);
    }
    let Ok(model) = engine.models.get(&units[0].key.model) else { return units };
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

/// Lets the items of a batch lead: those that another of them answers follow it, as do those in the queue.
pub(super) fn lead(engine: &Inner, items: Vec<(Unit, NewItem)>, model: &Model) -> Vec<(Unit, NewItem)> {
    let mut leading = Vec::with_capacity(items.len());
    let mut answered: HashMap<UnitId, Wanted> = HashMap::new();
    {
        let mut leaders = engine.dedup();
        for (unit, item) in items {
            let wanted = wanted(unit.key.tenant, unit.edits.as_deref(), &item, model);
            let copy = may_copy(unit.n_bytes, &item);
            let unit = match unit.reuse {
                Reuse::Never => unit,
                _ => match leaders.follow(unit, &wanted, copy) {
                    Ok(()) => continue,
                    Err(unit) => *unit,
                },
            };
            answered.extend(leaders.lead(unit.id(), wanted));
            leading.push((unit, item));
        }
    }
    let ids: HashSet<UnitId> = answered.keys().copied().collect();
    let taken = engine.queue().take(&ids);
    let mut back = Vec::new();
    for unit in taken {
        let Some(wanted) = answered.remove(&unit.id()) else { continue };
        // Its leader may have been cancelled in between.
        if let Err(unit) = engine.dedup().follow(unit, &wanted, false) {
            back.push(*unit);
        }
    }
    engine.queue().push(back);
    leading
}

impl Inner {
    /// Marks the items of a run that need not be looked for again: nothing has become durable since they were not found.
    /// Those that an item being computed will answer wait for it; the others are given back.
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
            // an item that stopped being computed in between has counted before
            if self.completions.load(Ordering::Acquire) == missed.at {
                dedup.queued(unit.id(), wanted);
                rest.push(Unit { reuse: Reuse::Asked, ..*unit });
            } else {
                rest.push(*unit);
            }
        }
        rest
    }

    /// Notes that items are no longer being computed: whoever follows them is looked for again.
    pub(super) fn end_leads(&self, ids: &[UnitId]) {
        let followers = {
            let mut leaders = self.dedup();
            ids.iter().flat_map(|id| leaders.end(*id)).collect()
        };
        self.ask_again(followers);
    }

    /// Queues followers whose leader is gone.
    pub(super) fn ask_again(&self, followers: Vec<Unit>) {
        if !followers.is_empty() {
            self.enqueue(followers.into_iter().map(|u| Unit { reuse: Reuse::Unasked, ..u }).collect());
        }
    }
}
