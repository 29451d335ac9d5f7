//! A cache of parsed inputs: those of small runs, from their commit until they are computed.
//!
//! An input that is not here is read from the store, so entries may be missing; they may never be stale. An entry is
//! exactly what was committed, and a run that is cancelled or deleted is removed.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::queue::UnitId;
use residuum_domain::{NewItem, RunId};

/// Approximate bytes of all kept inputs.
const MAX_BYTES: usize = 32 << 20;
/// Inputs of the largest run that is kept.
const MAX_ITEMS: usize = 16;
/// Approximate bytes of a token: its id, and its text in a separate allocation.
const TOKEN_BYTES: usize = 64;
/// Approximate bytes of an input beside tokens, text and metadata.
const ITEM_BYTES: usize = 1024;

/// Inputs by run and index. A run that finds no room is not kept.
#[derive(Default)]
pub(super) struct RecentItems {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    runs: HashMap<RunId, HashMap<u32, NewItem>>,
    n_bytes: usize,
}

/// Whether the inputs of a run are worth keeping: they are few, and none of them is to be continued.
pub(super) fn may_keep(items: &[NewItem]) -> bool {
    items.len() <= MAX_ITEMS && items.iter().all(|item| item.generation.is_none())
}

fn n_bytes(item: &NewItem) -> usize {
    let text = item.text.as_ref().map_or(0, String::len);
    let metadata = serde_json::to_vec(&item.metadata).map_or(MAX_BYTES, |json| json.len());
    ITEM_BYTES + item.token_ids.len() * TOKEN_BYTES + text + metadata
}

impl RecentItems {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the inputs of a newly committed run, in order, if there is room.
    pub(super) fn keep(&self, run: RunId, items: Vec<NewItem>) {
        let size: usize = items.iter().map(n_bytes).sum();
        let mut kept = self.kept();
        if kept.n_bytes + size <= MAX_BYTES {
            kept.n_bytes += size;
            kept.runs.insert(run, (0..).zip(items).collect());
        }
    }

    /// An input, if it is kept.
    pub(super) fn get(&self, (run, index): UnitId) -> Option<NewItem> {
        self.kept().runs.get(&run)?.get(&index).cloned()
    }

    /// Removes inputs that are now computed or answered.
    pub(super) fn forget(&self, ids: &[UnitId]) {
        let mut kept = self.kept();
        for (run, index) in ids {
            let Some(items) = kept.runs.get_mut(run) else { continue };
            let gone = items.remove(index);
            let is_empty = items.is_empty();
            if is_empty {
                kept.runs.remove(run);
            }
            kept.n_bytes -= gone.as_ref().map_or(0, n_bytes);
        }
    }

    /// Removes all inputs of a run.
    pub(super) fn forget_run(&self, run: RunId) {
        let mut kept = self.kept();
        if let Some(items) = kept.runs.remove(&run) {
            kept.n_bytes -= items.values().map(n_bytes).sum::<usize>();
        }
    }
}

#[cfg(test)]
mod tests {
    use residuum_domain::{Dtype, Generation, Positions};
    use residuum_store::testing::{capture, item};

    use super::*;

    fn input(n_tokens: u32) -> NewItem {
        let ids: Vec<u32> = (0..n_tokens).collect();
        item(&ids, capture(&["blocks.0.hook_resid_post"], Positions::Last, Dtype::Float32))
    }

    #[test]
    fn inputs_are_there_until_they_are_forgotten() {
        let (recent, run, other) = (RecentItems::default(), RunId::generate(), RunId::generate());
        recent.keep(run, vec![input(3), input(5)]);
        recent.keep(other, vec![input(7)]);
        assert_eq!(recent.get((run, 1)), Some(input(5)));
        recent.forget(&[(run, 1), (run, 9), (RunId::generate(), 0)]);
        assert_eq!((recent.get((run, 1)), recent.get((run, 0))), (None, Some(input(3))));
        recent.forget_run(run);
        recent.forget(&[(other, 0)]);
        assert_eq!((recent.get((run, 0)), recent.get((other, 0))), (None, None));
        let kept = recent.kept();
        assert_eq!((kept.n_bytes, kept.runs.len()), (0, 0));
    }

    #[test]
    fn inputs_that_find_no_room_are_not_kept() {
        let recent = RecentItems::default();
        let large = input(u32::try_from(MAX_BYTES / TOKEN_BYTES / 2).unwrap());
        let (first, second) = (RunId::generate(), RunId::generate());
        recent.keep(first, vec![large.clone()]);
        recent.keep(second, vec![large]);
        assert_eq!((recent.get((first, 0)).is_some(), recent.get((second, 0))), (true, None));
        recent.forget_run(first);
        assert_eq!(recent.kept().n_bytes, 0);
    }

    #[test]
    fn only_runs_of_few_inputs_without_generation_are_kept() {
        assert!(may_keep(&vec![input(1); MAX_ITEMS]) && !may_keep(&vec![input(1); MAX_ITEMS + 1]));
        let generation: Generation = serde_json::from_value(serde_json::json!({
            "max_new_tokens": 1, "temperature": 0.0, "top_k": null, "top_p": null, "seed": 0, "stop": []
        }))
        .unwrap();
        assert!(!may_keep(&[NewItem { generation: Some(generation), ..input(1) }]));
    }
}
