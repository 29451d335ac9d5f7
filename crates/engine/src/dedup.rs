//! In-flight deduplication: of several items that need the same forward pass, one is computed and the others wait.
//!
//! A pure data structure. The item that is computed is the leader, those that wait for it are its followers. When a
//! batch is put together, each of its items becomes a leader, and the queued items that its activations will answer
//! leave the queue and follow it. However a leader ends, its followers are looked up in the store again: they find what
//! it stored, or the first of them becomes a leader. Items that may not reuse activations can lead, but never follow. A
//! forward key includes the tenant, so no item follows one of another tenant.

use std::collections::{HashMap, HashSet};

use super::queue::{Depth, Loads, Unit, UnitId};
use residuum_domain::{Priority, RunId};
use residuum_store::Wanted;

type Key = [u8; 32];

struct Leading {
    wanted: Wanted,
    followers: Vec<(Unit, Wanted)>,
}

/// Leaders, their followers, and queued items that may become either.
#[derive(Default)]
pub struct InFlightDedup {
    /// Queued items that were looked up in the store and not found.
    queued: HashMap<Key, Vec<(UnitId, Wanted)>>,
    /// The forward key of each queued item.
    queued_keys: HashMap<UnitId, Key>,
    /// The leaders: items being computed.
    leading: HashMap<UnitId, Leading>,
    leading_by_key: HashMap<Key, Vec<UnitId>>,
    loads: Loads,
}

impl InFlightDedup {
    /// Makes an item follow a leader whose activations will answer it; returns the item if there is none.
    pub fn follow(&mut self, unit: Unit, wanted: &Wanted, may_copy: bool) -> Result<(), Box<Unit>> {
        let ids = self.leading_by_key.get(&wanted.forward_key).into_iter().flatten();
        let leader = ids.copied().find(|id| self.leading.get(id).is_some_and(|l| answers(&l.wanted, wanted, may_copy)));
        match leader.and_then(|id| self.leading.get_mut(&id)) {
            Some(leading) => {
                self.loads.add(unit.key.tenant, unit.load());
                leading.followers.push((unit, wanted.clone()));
                Ok(())
            }
            None => Err(Box::new(unit)),
        }
    }

    /// Notes that an item waits in the queue.
    pub fn queued(&mut self, id: UnitId, wanted: Wanted) {
        self.unqueue(id);
        self.queued_keys.insert(id, wanted.forward_key);
        // Most keys have one item, and there may be very many keys.
        self.queued.entry(wanted.forward_key).or_insert_with(|| Vec::with_capacity(1)).push((id, wanted));
    }

    /// Notes that an item is being computed. Returns the queued items that it will answer.
    pub fn lead(&mut self, id: UnitId, wanted: Wanted) -> Vec<(UnitId, Wanted)> {
        self.unqueue(id);
        let key = wanted.forward_key;
        let waiting = self.queued.remove(&key).unwrap_or_default();
        // An item that would need rows copied stays in the queue: its own turn may come before the copy could be made.
        let (answered, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, w)| answers(&wanted, w, false));
        for (id, _) in &answered {
            self.queued_keys.remove(id);
        }
        if !rest.is_empty() {
            self.queued.insert(key, rest);
        }
        self.leading.insert(id, Leading { wanted, followers: Vec::new() });
        self.leading_by_key.entry(key).or_default().push(id);
        answered
    }

    /// Forgets an item that left the queue without being computed.
    pub fn unqueue(&mut self, id: UnitId) {
        let Some(key) = self.queued_keys.remove(&id) else { return };
        if let Some(same) = self.queued.get_mut(&key) {
            same.retain(|(other, _)| *other != id);
            if same.is_empty() {
                self.queued.remove(&key);
            }
        }
    }

    /// Notes that an item is no longer being computed. Returns its followers, to be looked up in the store again.
    #[must_use]
    pub fn end(&mut self, id: UnitId) -> Vec<Unit> {
        let Some(Leading { wanted, followers }) = self.leading.remove(&id) else { return Vec::new() };
        if let Some(ids) = self.leading_by_key.get_mut(&wanted.forward_key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.leading_by_key.remove(&wanted.forward_key);
            }
        }
        let followers: Vec<Unit> = followers.into_iter().map(|(unit, _)| unit).collect();
        followers.iter().for_each(|u| self.loads.sub(u.key.tenant, u.load()));
        followers
    }

    /// Forgets all items of a run. Returns the followers of its leaders that belong to other runs.
    #[must_use]
    pub fn remove(&mut self, run: RunId) -> Vec<Unit> {
        let queued: Vec<UnitId> = self.queued_keys.keys().filter(|(r, _)| *r == run).copied().collect();
        queued.into_iter().for_each(|id| self.unqueue(id));
        let Self { leading, loads, .. } = self;
        for leader in leading.values_mut() {
            leader.followers.retain(|(unit, _)| {
                if unit.run == run {
                    loads.sub(unit.key.tenant, unit.load());
                }
                unit.run != run
            });
        }
        let leaders: HashSet<UnitId> = self.leading.keys().filter(|(r, _)| *r == run).copied().collect();
        leaders.into_iter().flat_map(|id| self.end(id)).collect()
    }

    /// Whether an item of the run follows a leader.
    #[must_use]
    pub fn is_following(&self, run: RunId) -> bool {
        self.leading.values().any(|l| l.followers.iter().any(|(u, _)| u.run == run))
    }

    /// Items and bytes of the followers, by tenant.
    #[must_use]
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Adds the followers to `depths`, by priority.
    pub fn measure(&self, depths: &mut [Depth; Priority::ALL.len()]) {
        let followers = self.leading.values().flat_map(|l| &l.followers);
        followers.for_each(|(u, _)| depths[u.priority as usize].add(u.run, 1));
    }
}

/// Whether the stored activations of `leader` will answer `wanted`, as they are or by copying rows.
fn answers(leader: &Wanted, wanted: &Wanted, may_copy: bool) -> bool {
    use residuum_domain::capture::Answer;
    match leader.capture.answer(&wanted.capture, wanted.n_tokens) {
        Some(Answer::AsStored) => true,
        Some(Answer::Copied) => may_copy,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::queue::{BatchKey, Reuse, UNLIMITED};
    use residuum_domain::{Capture, Dtype, Hook, Positions, Site, TenantId};

    fn wanted(key: u8, layers: &[usize], positions: Positions) -> Wanted {
        let hooks: Vec<Hook> = layers.iter().map(|l| Hook::block(Site::ResidPost, *l)).collect();
        let capture = Capture { hooks: hooks.into(), positions, dtype: Dtype::Float32 };
        Wanted { forward_key: [key; 32], capture, n_tokens: 5 }
    }

    fn unit(run: RunId, index: u32) -> Unit {
        let key = BatchKey { model: "m".into(), tenant: TenantId::DEFAULT, hooks: Arc::new([]), dtype: Dtype::Float32 };
        Unit {
            run,
            index,
            n_tokens: 5,
            n_bytes: 3,
            key: Arc::new(key),
            edits: None,
            priority: Priority::Normal,
            reuse: Reuse::NotFound,
            max_batch_items: UNLIMITED,
        }
    }

    #[test]
    fn an_item_follows_a_leader_that_will_answer_it_and_no_other() {
        let (run, mut dedup) = (RunId::generate(), InFlightDedup::default());
        assert!(dedup.lead((run, 0), wanted(1, &[0, 1], Positions::Last)).is_empty());
        for (other, copy, follows) in [
            (wanted(1, &[1], Positions::Last), false, true),
            (wanted(1, &[0, 1], Positions::One(4)), false, true),
            (wanted(1, &[2], Positions::Last), true, false),
            (wanted(1, &[0], Positions::All), true, false),
            (wanted(2, &[0], Positions::Last), true, false),
        ] {
            assert_eq!(dedup.follow(unit(run, 9), &other, copy).is_ok(), follows, "{other:?}");
        }
        assert_eq!((dedup.loads().total().items, dedup.is_following(run)), (2, true));
        assert_eq!(dedup.end((run, 0)).len(), 2);
        assert_eq!((dedup.loads().total().items, dedup.is_following(run)), (0, false));
        assert!(
            dedup.follow(unit(run, 9), &wanted(1, &[1], Positions::Last), true).is_err(),
            "there is no leader any more"
        );
        assert!(dedup.lead((run, 1), wanted(1, &[0], Positions::All)).is_empty());
        let last = wanted(1, &[0], Positions::Last);
        assert!(dedup.follow(unit(run, 9), &last, false).is_err() && dedup.follow(unit(run, 9), &last, true).is_ok());
    }

    #[test]
    fn the_first_leader_takes_the_items_it_answers_out_of_the_queue() {
        let (run, mut dedup) = (RunId::generate(), InFlightDedup::default());
        dedup.queued((run, 0), wanted(1, &[0], Positions::Last));
        dedup.queued((run, 1), wanted(1, &[0], Positions::Last));
        dedup.queued((run, 2), wanted(1, &[0, 1], Positions::Last));
        dedup.queued((run, 3), wanted(2, &[0], Positions::Last));
        let answered = dedup.lead((run, 1), wanted(1, &[0], Positions::Last));
        assert_eq!(answered.iter().map(|(id, _)| id.1).collect::<Vec<_>>(), [0]);
        assert!(dedup.lead((run, 2), wanted(1, &[0, 1], Positions::Last)).is_empty(), "taken out once");
    }

    #[test]
    fn removing_a_run_releases_the_followers_of_other_runs() {
        let (gone, other, mut dedup) = (RunId::generate(), RunId::generate(), InFlightDedup::default());
        let want = wanted(1, &[0], Positions::Last);
        dedup.lead((gone, 0), want.clone());
        dedup.lead((other, 0), wanted(2, &[0], Positions::Last));
        for (run, index, want) in [(gone, 1, &want), (other, 1, &want), (gone, 2, &wanted(2, &[0], Positions::Last))] {
            dedup.follow(unit(run, index), want, false).unwrap();
        }
        assert_eq!(dedup.remove(gone).iter().map(Unit::id).collect::<Vec<_>>(), [(other, 1)]);
        assert!(dedup.end((other, 0)).is_empty(), "followers of the removed run are removed too");
        assert_eq!(dedup.loads().total().items, 0);
    }

    proptest! {
        #[test]
        fn no_follower_is_lost(steps in proptest::collection::vec((0u8..5, 0usize..4, 0u32..6, 1u8..3), 1..80)) {
            let runs: Vec<RunId> = (0..4).map(|_| RunId::generate()).collect();
            let mut dedup = InFlightDedup::default();
            let mut following: HashSet<UnitId> = HashSet::new();
            let mut leading: HashSet<UnitId> = HashSet::new();
            for (what, run, index, key) in steps {
                let id = (runs[run], index);
                let want = wanted(key, &[0], Positions::Last);
                match what {
                    0 if !following.contains(&id) && leading.insert(id) => {
                        let answered = dedup.lead(id, want);
                        prop_assert!(answered.iter().all(|(other, _)| *other != id));
                    }
                    1 if !following.contains(&id) && !leading.contains(&id) => {
                        following.extend(dedup.follow(unit(id.0, id.1), &want, true).is_ok().then_some(id));
                    }
                    2 if !following.contains(&id) && !leading.contains(&id) => dedup.queued(id, want),
                    3 => {
                        leading.remove(&id);
                        dedup.end(id).iter().for_each(|u| assert!(following.remove(&u.id())));
                    }
                    4 => {
                        let released = dedup.remove(runs[run]);
                        prop_assert!(released.iter().all(|u| u.run != runs[run] && following.remove(&u.id())));
                        following.retain(|(r, _)| *r != runs[run]);
                        leading.retain(|(r, _)| *r != runs[run]);
                    }
                    _ => {}
                }
                prop_assert_eq!(dedup.loads().total().items, following.len());
            }
            for id in leading {
                dedup.end(id).iter().for_each(|u| assert!(following.remove(&u.id())));
            }
            prop_assert!(following.is_empty());
        }
    }
}
