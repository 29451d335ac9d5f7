//! Examples, and a property test against a plain map of the items that should be in the queue.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use residuum_domain::{Dtype, Hook, Site};

const T: TenantId = TenantId::DEFAULT;
const BUDGET: Budget = Budget { tokens: 100, bytes: 1000, items: 8 };

fn key_of(tenant: TenantId, layer: usize) -> Arc<BatchKey> {
    let hooks = [Hook::block(Site::ResidPost, layer)].into();
    Arc::new(BatchKey { model: "m".into(), tenant, hooks, dtype: Dtype::Float32 })
}

fn key(layer: usize) -> Arc<BatchKey> {
    key_of(T, layer)
}

fn units(run: RunId, n: u32, n_tokens: usize, key: &Arc<BatchKey>) -> Vec<Unit> {
    let unit = |index| Unit {
        run,
        index,
        n_tokens,
        n_bytes: 10,
        key: Arc::clone(key),
        edits: None,
        priority: Priority::Normal,
        reuse: Reuse::NotFound,
        max_batch_items: UNLIMITED,
    };
    (0..n).map(unit).collect()
}

fn at(priority: Priority, units: Vec<Unit>) -> Vec<Unit> {
    units.into_iter().map(|u| Unit { priority, ..u }).collect()
}

#[test]
fn an_interactive_run_waits_for_one_batch_not_for_the_bulk_run() {
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
    let mut q = Queue::default();
    q.push(units(RunId::generate(), 2, 5000, &key(0)));
    assert_eq!(q.next_batch(BUDGET).unwrap().len(), 1);
}

#[test]
fn possible_crashers_run_alone_and_items_of_a_failed_batch_in_smaller_batches() {
    let mut all = units(RunId::generate(), 3, 1, &key(0));
    all[1].max_batch_items = 1;
    let mut q = Queue::default();
    q.push(all);
    let sizes: Vec<_> = std::iter::from_fn(|| q.next_batch(BUDGET)).map(|b| b.len()).collect();
    assert_eq!(sizes, [1, 1, 1]);
    let mut all = units(RunId::generate(), 6, 1, &key(0));
    all[1].max_batch_items = 3;
    q.push(all);
    let sizes: Vec<_> = std::iter::from_fn(|| q.next_batch(BUDGET)).map(|b| b.len()).collect();
    assert_eq!(sizes, [3, 3]);
}

#[test]
fn removing_a_run_leaves_the_others() {
    let (a, b) = (RunId::generate(), RunId::generate());
    let mut q = Queue::default();
    q.push(units(a, 3, 1, &key(0)));
    q.push(units(b, 2, 1, &key(0)));
    assert_eq!((q.position(b), q.remove(a), q.position(b)), (Some(1), 3, Some(0)));
    assert_eq!(q.loads().total(), Load { items: 2, bytes: 20 });
}

#[test]
fn items_to_look_up_are_taken_up_to_the_limit_and_not_computed_before() {
    let run = RunId::generate();
    let mut all = units(run, 5, 1, &key(0));
    [0, 2, 4].into_iter().for_each(|i| all[i].reuse = Reuse::ToLookUp);
    let mut q = Queue::default();
    q.push(all);
    assert_eq!(q.take_to_look_up(2).iter().map(|u| u.index).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(q.next_batch(BUDGET).unwrap().iter().map(|u| u.index).collect::<Vec<_>>(), [1, 3]);
    assert_eq!((q.position(run), q.next_batch(BUDGET)), (Some(0), None));
    assert_eq!(q.take_to_look_up(9).iter().map(|u| u.index).collect::<Vec<_>>(), [4]);
    assert_eq!(q.loads().total(), Load::default());
}

#[test]
fn items_to_be_continued_are_never_looked_up() {
    let continuing = Arc::new(BatchKey::generating("m".into(), T));
    let mut q = Queue::default();
    q.push(
        units(RunId::generate(), 2, 1, &continuing).into_iter().map(|u| Unit { reuse: Reuse::ToLookUp, ..u }).collect(),
    );
    assert!(q.take_to_look_up(9).is_empty());
    assert_eq!(q.next_batch(BUDGET).unwrap().len(), 2);
}

#[test]
fn a_higher_priority_goes_first_and_a_lower_one_never_joins_its_batch() {
    let (bulk, quick) = (RunId::generate(), RunId::generate());
    let mut q = Queue::default();
    q.push(at(Priority::Bulk, units(bulk, 100, 30, &key(0))));
    assert_eq!(q.next_batch(BUDGET).unwrap().len(), 3);
    q.push(at(Priority::Interactive, units(quick, 1, 30, &key(0))));
    assert_eq!((q.position(quick), q.position(bulk)), (Some(0), Some(1)));
    let batch = q.next_batch(BUDGET).unwrap();
    assert_eq!((batch.len(), batch[0].run), (1, quick), "bulk items would only make it wait");
    // But a more urgent item joins a batch that goes anyway.
    q.push(at(Priority::Interactive, units(quick, 1, 30, &key(1))));
    assert_eq!(q.next_batch(BUDGET).unwrap()[0].run, quick);
}

#[test]
fn every_priority_gets_its_share_and_idle_time_is_not_saved_up() {
    let mut q = Queue::default();
    let mut served = BTreeMap::new();
    for (layer, priority) in Priority::ALL.into_iter().enumerate() {
        q.push(at(priority, units(RunId::generate(), 4000, 25, &key(layer))));
    }
    for _ in 0..210 {
        *served.entry(q.next_batch(BUDGET).unwrap()[0].priority as usize).or_insert(0) += 1;
    }
    assert_eq!(served.into_values().collect::<Vec<_>>(), [160, 40, 10]);
    // A bulk run that was alone for a long time owes nothing to later ones, and these have no credit beyond their
    // share.
    let mut q = Queue::default();
    q.push(at(Priority::Bulk, units(RunId::generate(), 400, 25, &key(0))));
    (0..50).for_each(|_| drop(q.next_batch(BUDGET)));
    q.push(at(Priority::Interactive, units(RunId::generate(), 4000, 25, &key(1))));
    let first: Vec<Priority> = (0..18).map(|_| q.next_batch(BUDGET).unwrap()[0].priority).collect();
    assert_eq!(first.iter().filter(|p| **p == Priority::Bulk).count(), 1, "{first:?}");
}

#[test]
fn tenants_take_turns_however_many_runs_they_have() {
    let mut q = Queue::default();
    let (a, b) = (key_of(TenantId(1), 0), key_of(TenantId(2), 0));
    (0..20).for_each(|_| q.push(units(RunId::generate(), 50, 30, &a)));
    q.push(units(RunId::generate(), 50, 30, &b));
    let turns: Vec<i64> = (0..6).map(|_| q.next_batch(BUDGET).unwrap()[0].key.tenant.0).collect();
    assert_eq!(turns, [1, 2, 1, 2, 1, 2]);
    assert_eq!(q.loads().of(TenantId(2)).items, 50 - 9);
}

#[test]
fn items_are_taken_by_id() {
    let run = RunId::generate();
    let mut q = Queue::default();
    q.push(units(run, 5, 1, &key(0)));
    let ids = HashSet::from([(run, 1), (run, 3), (run, 9), (RunId::generate(), 0)]);
    assert_eq!(q.take(&ids).iter().map(|u| u.index).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(q.next_batch(BUDGET).unwrap().iter().map(|u| u.index).collect::<Vec<_>>(), [0, 2, 4]);
}

#[test]
fn depths_say_how_much_waits_and_since_when() {
    let (first, second) = (RunId::generate(), RunId::generate());
    let mut q = Queue::default();
    q.push(at(Priority::Bulk, units(second, 3, 1, &key(0))));
    q.push(
        at(Priority::Bulk, units(first, 2, 1, &key(0)))
            .into_iter()
            .map(|u| Unit { reuse: Reuse::ToLookUp, ..u })
            .collect(),
    );
    let mut depths = [Depth::default(); 3];
    q.measure(&mut depths);
    assert_eq!(depths, [Depth::default(), Depth::default(), Depth { items: 5, oldest: Some(first) }]);
}

/// One operation on a queue.
#[derive(Debug, Clone)]
enum Step {
    Push {
        tenant: i64,
        n: u32,
        n_tokens: usize,
        layer: usize,
        priority: usize,
        max_batch_items: usize,
        to_look_up: bool,
    },
    Batch,
    LookUp(usize),
    /// Pushes again what was taken last.
    PutBack,
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let push = (1i64..4, 1u32..20, 1usize..150, 0usize..3, 0usize..3, 1usize..10, any::<bool>()).prop_map(
        |(tenant, n, n_tokens, layer, priority, max_batch_items, to_look_up)| Step::Push {
            tenant,
            n,
            n_tokens,
            layer,
            priority,
            max_batch_items,
            to_look_up,
        },
    );
    prop_oneof![
        3 => push,
        4 => Just(Step::Batch),
        2 => (1usize..40).prop_map(Step::LookUp),
        1 => Just(Step::PutBack),
        1 => (0usize..20).prop_map(Step::Remove),
    ]
}

fn check_batch(batch: &[Unit]) -> Result<(), TestCaseError> {
    let tokens: usize = batch.iter().map(|u| u.n_tokens).sum();
    let bytes: u64 = batch.iter().map(|u| u.n_bytes).sum();
    prop_assert!(batch.len() == 1 || (tokens <= BUDGET.tokens && bytes <= BUDGET.bytes && batch.len() <= BUDGET.items));
    prop_assert!(batch.iter().all(|u| u.key == batch[0].key && u.max_batch_items >= batch.len()));
    prop_assert!(batch.iter().all(|u| u.priority as usize <= batch[0].priority as usize));
    prop_assert!(batch.iter().all(|u| u.reuse != Reuse::ToLookUp));
    Ok(())
}

proptest! {
    #[test]
    fn the_queue_holds_what_it_should_after_any_operations(steps in proptest::collection::vec(step(), 1..60)) {
        let mut q = Queue::default();
        let mut waiting: BTreeMap<UnitId, Unit> = BTreeMap::new();
        let (mut runs, mut last): (Vec<RunId>, Vec<Unit>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Push { tenant, n, n_tokens, layer, priority, max_batch_items, to_look_up } => {
                    let run = RunId::generate();
                    runs.push(run);
                    let mut pushed = at(Priority::ALL[priority], units(run, n, n_tokens, &key_of(TenantId(tenant), layer)));
                    pushed[0].max_batch_items = max_batch_items;
                    if to_look_up {
                        pushed.iter_mut().for_each(|u| u.reuse = Reuse::ToLookUp);
                    }
                    waiting.extend(pushed.iter().map(|u| (u.id(), u.clone())));
                    q.push(pushed);
                }
                Step::Batch => {
                    let could = waiting.values().any(|u| u.reuse != Reuse::ToLookUp);
                    let batch = q.next_batch(BUDGET).unwrap_or_default();
                    prop_assert_eq!(could, !batch.is_empty(), "a batch whenever something waits for one");
                    check_batch(&batch)?;
                    for u in &batch {
                        let known = waiting.remove(&u.id());
                        prop_assert_eq!(known.as_ref(), Some(u));
                    }
                    last = batch;
                }
                Step::LookUp(limit) => {
                    let taken = q.take_to_look_up(limit);
                    let could = waiting.values().filter(|u| u.reuse == Reuse::ToLookUp).count();
                    prop_assert_eq!(taken.len(), limit.min(could));
                    taken.iter().for_each(|u| drop(waiting.remove(&u.id())));
                    last = taken.into_iter().map(|u| Unit { reuse: Reuse::NotFound, ..u }).collect();
                }
                Step::PutBack => {
                    waiting.extend(last.iter().map(|u| (u.id(), u.clone())));
                    q.push(std::mem::take(&mut last));
                }
                Step::Remove(i) => {
                    if let Some(run) = runs.get(i) {
                        let gone = waiting.values().filter(|u| u.run == *run).count();
                        prop_assert_eq!(q.remove(*run), gone);
                        waiting.retain(|_, u| u.run != *run);
                    }
                }
            }
            let mut sum = Loads::default();
            waiting.values().for_each(|u| sum.add(u.key.tenant, u.load()));
            prop_assert_eq!(q.loads().total(), sum.total());
            for tenant in 1..4 {
                prop_assert_eq!(q.loads().of(TenantId(tenant)), sum.of(TenantId(tenant)));
            }
            for run in &runs {
                prop_assert_eq!(q.position(*run).is_some(), waiting.values().any(|u| u.run == *run));
            }
        }
        while let Some(batch) = q.next_batch(BUDGET) {
            check_batch(&batch)?;
            batch.iter().for_each(|u| drop(waiting.remove(&u.id())));
        }
        q.take_to_look_up(usize::MAX).iter().for_each(|u| drop(waiting.remove(&u.id())));
        prop_assert!(waiting.is_empty() && q.loads().total() == Load::default());
    }
}
