//! The queue in memory and the planner: which items go through the model together next.
//!
//! A pure data structure: what is durable lies in the store, and this is rebuilt from it at start-up. Runs take
//! turns item by item, so an interactive request waits for one batch, never for a bulk run ahead of it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use crate::domain::{Dtype, Edits, Hook, RunId, TenantId};

/// What items must share to go through one forward pass into one pack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// Name of the model.
    pub model: String,
    /// Whose items: packs never mix tenants.
    pub tenant: TenantId,
    /// What is captured.
    pub hooks: Arc<[Hook]>,
    /// In which type.
    pub dtype: Dtype,
}

impl BatchKey {
    /// The key of items that are to be continued: nothing is captured while they are.
    #[must_use]
    pub fn generating(model: String, tenant: TenantId) -> Self {
        Self { model, tenant, hooks: Arc::new([]), dtype: Dtype::Float32 }
    }

    /// Whether it is the key of items to be continued.
    #[must_use]
    pub fn generates(&self) -> bool {
        self.hooks.is_empty()
    }
}

/// One item waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its run.
    pub run: RunId,
    /// Its index in the run.
    pub index: u32,
    /// Tokens of the input.
    pub n_tokens: usize,
    /// Bytes its capture takes in the store.
    pub n_bytes: u64,
    /// What it can share a batch with.
    pub key: Arc<BatchKey>,
    /// What is changed while it goes through the model.
    pub edits: Option<Arc<Edits>>,
    /// Whether the store may hold its activations already and has not been asked.
    pub check_store: bool,
    /// Whether it must run alone, because it was in flight when the server last died or a batch with it failed.
    pub alone: bool,
}

/// How much one batch may hold. The first item is taken whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of all inputs.
    pub tokens: usize,
    /// Captured bytes of all inputs.
    pub bytes: u64,
    /// Inputs.
    pub items: usize,
}

struct QueuedRun {
    id: RunId,
    units: VecDeque<Unit>,
}

/// Runs with waiting items, in the order of their turns.
#[derive(Default)]
pub struct Queue {
    runs: VecDeque<QueuedRun>,
    n_items: usize,
    n_bytes: u64,
}

impl Queue {
    /// Appends items, behind those of the same run or as the last run in turn.
    pub fn push(&mut self, units: Vec<Unit>) {
        for unit in units {
            self.n_items += 1;
            self.n_bytes += unit.n_bytes;
            // Items come run by run, and a run that is pushed again was taken recently: it is near the back.
            match self.runs.iter_mut().rev().find(|r| r.id == unit.run) {
                Some(run) => run.units.push_back(unit),
                None => self.runs.push_back(QueuedRun { id: unit.run, units: VecDeque::from([unit]) }),
            }
        }
    }

    /// Takes every item of a run out; how many there were.
    pub fn remove(&mut self, run: RunId) -> usize {
        let Some(place) = self.runs.iter().position(|r| r.id == run) else { return 0 };
        let units = self.runs.remove(place).map(|r| r.units).unwrap_or_default();
        units.iter().for_each(|u| self.count_out(u));
        units.len()
    }

    /// Items waiting.
    #[must_use]
    pub fn n_items(&self) -> usize {
        self.n_items
    }

    /// Bytes that the waiting captures will take.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// What the next batch shares, and whether its first item must run alone; `None` when nothing waits.
    #[must_use]
    pub fn next_key(&self) -> Option<(&BatchKey, bool)> {
        let first = self.runs.front()?.units.front()?;
        Some((&first.key, first.alone))
    }

    /// Runs whose turn comes before this one's; `None` when it has nothing waiting.
    #[must_use]
    pub fn position(&self, run: RunId) -> Option<usize> {
        self.runs.iter().position(|r| r.id == run)
    }

    /// Up to `limit` items that the store has not been asked for yet. They leave the queue.
    pub fn take_unchecked(&mut self, limit: usize) -> Vec<Unit> {
        let mut taken = Vec::new();
        for run in &mut self.runs {
            if taken.len() == limit {
                break;
            }
            let (unchecked, rest): (Vec<_>, Vec<_>) = run.units.drain(..).partition(|u| u.check_store);
            let (now, later): (Vec<_>, Vec<_>) = {
                let room = limit - taken.len();
                let mut unchecked = unchecked;
                let later = unchecked.split_off(room.min(unchecked.len()));
                (unchecked, later)
            };
            taken.extend(now);
            run.units.extend(rest);
            run.units.extend(later);
        }
        self.runs.retain(|r| !r.units.is_empty());
        taken.iter().for_each(|u| self.count_out(u));
        taken
    }

    /// The next batch: the run whose turn it is decides the key, then runs give one matching item each in turn until
    /// the budget is used. `None` when nothing waits.
    pub fn next_batch(&mut self, budget: Budget) -> Option<Vec<Unit>> {
        let first = self.runs.front_mut()?.units.pop_front()?;
        let (key, alone) = (Arc::clone(&first.key), first.alone);
        let (mut tokens, mut bytes) = (first.n_tokens, first.n_bytes);
        let mut batch = vec![first];
        let mut full = alone;
        while !full {
            let before = batch.len();
            for run in &mut self.runs {
                let Some(next) = run.units.front() else { continue };
                if next.alone || *next.key != *key {
                    continue;
                }
                let fits = tokens + next.n_tokens <= budget.tokens
                    && bytes + next.n_bytes <= budget.bytes
                    && batch.len() < budget.items;
                if !fits {
                    full = true;
                    break;
                }
                tokens += next.n_tokens;
                bytes += next.n_bytes;
                batch.extend(run.units.pop_front());
            }
            full |= batch.len() == before;
        }
        batch.iter().for_each(|u| self.count_out(u));
        self.end_turns(&batch);
        Some(batch)
    }

    /// Runs that gave an item go behind those that gave none.
    fn end_turns(&mut self, batch: &[Unit]) {
        let gave: HashSet<RunId> = batch.iter().map(|u| u.run).collect();
        let (served, waiting): (VecDeque<_>, VecDeque<_>) =
            self.runs.drain(..).filter(|r| !r.units.is_empty()).partition(|r| gave.contains(&r.id));
        self.runs = waiting;
        self.runs.extend(served);
    }

    fn count_out(&mut self, unit: &Unit) {
        self.n_items -= 1;
        self.n_bytes -= unit.n_bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Site;

    fn key(layer: usize) -> Arc<BatchKey> {
        let hooks = [Hook::block(Site::ResidPost, layer)].into();
        Arc::new(BatchKey { model: "m".into(), tenant: TenantId::DEFAULT, hooks, dtype: Dtype::Float32 })
    }

    fn units(run: RunId, n: u32, n_tokens: usize, key: &Arc<BatchKey>) -> Vec<Unit> {
        (0..n)
            .map(|index| Unit {
                run,
                index,
                n_tokens,
                n_bytes: 10,
                key: Arc::clone(key),
                edits: None,
                check_store: false,
                alone: false,
            })
            .collect()
    }

    const BUDGET: Budget = Budget { tokens: 100, bytes: 1000, items: 8 };

    #[test]
    fn an_interactive_run_waits_for_one_batch_not_for_the_bulk() {
        let (bulk, quick) = (RunId::generate(), RunId::generate());
        let mut q = Queue::default();
        q.push(units(bulk, 1000, 30, &key(0)));
        assert_eq!(q.next_batch(BUDGET).unwrap().len(), 3);
        q.push(units(quick, 1, 30, &key(0)));
        assert!(q.next_batch(BUDGET).unwrap().iter().any(|u| u.run == quick));
        q.push(units(quick, 1, 30, &key(1)));
        let next: Vec<_> = (0..2).map(|_| q.next_batch(BUDGET).unwrap()[0].run).collect();
        assert!(next.contains(&quick), "another key takes its turn too");
    }

    #[test]
    fn an_item_over_the_budget_goes_alone() {
        let run = RunId::generate();
        let mut q = Queue::default();
        q.push(units(run, 2, 5000, &key(0)));
        assert_eq!(q.next_batch(BUDGET).unwrap().len(), 1);
    }

    #[test]
    fn suspects_run_alone() {
        let run = RunId::generate();
        let mut all = units(run, 3, 1, &key(0));
        all[1].alone = true;
        let mut q = Queue::default();
        q.push(all);
        let sizes: Vec<_> = std::iter::from_fn(|| q.next_batch(BUDGET)).map(|b| b.len()).collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[test]
    fn removing_a_run_leaves_the_others() {
        let (a, b) = (RunId::generate(), RunId::generate());
        let mut q = Queue::default();
        q.push(units(a, 3, 1, &key(0)));
        q.push(units(b, 2, 1, &key(0)));
        assert_eq!((q.position(b), q.remove(a), q.position(b)), (Some(1), 3, Some(0)));
        assert_eq!((q.n_items(), q.n_bytes()), (2, 20));
    }

    #[test]
    fn unchecked_items_are_taken_up_to_the_limit() {
        let run = RunId::generate();
        let mut all = units(run, 5, 1, &key(0));
        all[0].check_store = true;
        all[2].check_store = true;
        all[4].check_store = true;
        let mut q = Queue::default();
        q.push(all);
        assert_eq!(q.take_unchecked(2).iter().map(|u| u.index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(q.take_unchecked(9).iter().map(|u| u.index).collect::<Vec<_>>(), [4]);
        assert_eq!(q.n_items(), 2);
    }

    proptest! {
        #[test]
        fn every_item_comes_out_once_and_batches_keep_their_budget(
            runs in proptest::collection::vec((1u32..20, 1usize..150, 0usize..3, any::<bool>()), 1..8),
        ) {
            let mut q = Queue::default();
            let mut expected = HashSet::new();
            for (n, n_tokens, layer, alone) in runs {
                let id = RunId::generate();
                let mut u = units(id, n, n_tokens, &key(layer));
                u[0].alone = alone;
                expected.extend(u.iter().map(|u| (u.run, u.index)));
                q.push(u);
            }
            while let Some(batch) = q.next_batch(BUDGET) {
                let tokens: usize = batch.iter().map(|u| u.n_tokens).sum();
                prop_assert!(batch.len() == 1 || (tokens <= BUDGET.tokens && batch.len() <= BUDGET.items));
                prop_assert!(batch.iter().all(|u| u.key == batch[0].key));
                for u in batch {
                    prop_assert!(expected.remove(&(u.run, u.index)));
                }
            }
            prop_assert!(expected.is_empty() && q.n_items() == 0 && q.n_bytes() == 0);
        }
    }
}
