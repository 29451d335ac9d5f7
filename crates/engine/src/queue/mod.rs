//! The queue in memory and the planner: which items go through the model together next.
//!
//! A pure data structure without a clock. The durable queue is in the store; this one is rebuilt from it at start-up.
//!
//! Priorities share the workers by tokens ([`share`]). A priority with waiting items gets its share however busy the
//! higher ones are, so nothing waits for ever; a share that was not used is not saved up. Within a priority tenants
//! take turns, one batch each; within a tenant runs take turns item by item. So an interactive request waits for one
//! batch, never for a bulk run ahead of it.

mod unit;

use std::collections::{HashSet, VecDeque};

pub use unit::{BatchKey, Budget, Depth, Load, Loads, Reuse, UNLIMITED, Unit, UnitId};

use residuum_domain::{Priority, RunId, TenantId};

/// Tokens of each priority that are served for one token of [`Priority::Bulk`] while all priorities wait.
const fn share(priority: Priority) -> u64 {
    match priority {
        Priority::Interactive => 16,
        Priority::Normal => 4,
        Priority::Bulk => 1,
    }
}

struct QueuedRun {
    id: RunId,
    units: VecDeque<Unit>,
}

/// Runs of one tenant, in the order of their turns.
struct Client {
    tenant: TenantId,
    runs: VecDeque<QueuedRun>,
}

/// Tenants with waiting items of one priority, in the order of their turns.
#[derive(Default)]
struct Class {
    clients: VecDeque<Client>,
    /// Tokens served, weighted by the inverse of the class's share. The class with the least has the next turn.
    served: u64,
}

impl Class {
    fn client(&mut self, tenant: TenantId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|c| c.tenant == tenant)
    }

    /// Removes empty runs and tenants.
    fn tidy(&mut self) {
        self.clients.iter_mut().for_each(|c| c.runs.retain(|r| !r.units.is_empty()));
        self.clients.retain(|c| !c.runs.is_empty());
    }
}

/// A batch being filled.
struct Filling {
    units: Vec<Unit>,
    budget: Budget,
    tokens: usize,
    bytes: u64,
    max_batch_items: usize,
    full: bool,
}

impl Filling {
    fn of(first: Unit, budget: Budget) -> Self {
        let (tokens, bytes, max_batch_items) = (first.n_tokens, first.n_bytes, first.max_batch_items);
        Self { full: max_batch_items <= 1, units: vec![first], budget, tokens, bytes, max_batch_items }
    }

    /// Takes items of one tenant's runs in turn, as long as they fit.
    fn fill(&mut self, client: &mut Client) {
        while !self.full {
            let before = self.units.len();
            for run in &mut client.runs {
                let Some(next) = run.units.front() else { continue };
                let n = self.units.len() + 1;
                if *next.key != *self.units[0].key || next.max_batch_items < n {
                    continue;
                }
                let fits = self.tokens + next.n_tokens <= self.budget.tokens
                    && self.bytes + next.n_bytes <= self.budget.bytes
                    && n <= self.budget.items.min(self.max_batch_items);
                if !fits {
                    self.full = true;
                    break;
                }
                self.tokens += next.n_tokens;
                self.bytes += next.n_bytes;
                self.max_batch_items = self.max_batch_items.min(next.max_batch_items);
                self.units.extend(run.units.pop_front());
            }
            if self.units.len() == before {
                return;
            }
        }
    }
}

/// Items waiting.
#[derive(Default)]
pub struct Queue {
    /// By priority, the highest first.
    classes: [Class; Priority::ALL.len()],
    /// Items that have not been looked up in the store yet.
    to_look_up: VecDeque<Unit>,
    loads: Loads,
    /// `served` of the class that had the last turn, at the start of that turn.
    clock: u64,
}

impl Queue {
    /// Appends items: each to its run if the run is queued, else as a new run behind the others.
    pub fn push(&mut self, units: Vec<Unit>) {
        for unit in units {
            self.loads.add(unit.key.tenant, unit.load());
            if unit.needs_lookup() {
                self.to_look_up.push_back(unit);
                continue;
            }
            let class = &mut self.classes[unit.priority as usize];
            if class.clients.is_empty() {
                // A class does not save up the share of its idle time.
                class.served = class.served.max(self.clock);
            }
            let tenant = unit.key.tenant;
            if class.client(tenant).is_none() {
                class.clients.push_back(Client { tenant, runs: VecDeque::new() });
            }
            let Some(client) = class.client(tenant) else { continue };
            // Items come run by run, and a run that is pushed again was taken recently, so it is near the back.
            match client.runs.iter_mut().rev().find(|r| r.id == unit.run) {
                Some(run) => run.units.push_back(unit),
                None => client.runs.push_back(QueuedRun { id: unit.run, units: VecDeque::from([unit]) }),
            }
        }
    }

    /// Removes every item of a run. Returns how many there were.
    pub fn remove(&mut self, run: RunId) -> usize {
        self.take_where(|u| u.run == run).len()
    }

    /// Removes those of these items that wait here, and returns them.
    pub fn take(&mut self, ids: &HashSet<UnitId>) -> Vec<Unit> {
        if ids.is_empty() {
            return Vec::new();
        }
        let runs: HashSet<RunId> = ids.iter().map(|(run, _)| *run).collect();
        self.take_where(|u| runs.contains(&u.run) && ids.contains(&u.id()))
    }

    fn take_where(&mut self, mut wanted: impl FnMut(&Unit) -> bool) -> Vec<Unit> {
        let mut taken = Vec::new();
        let lists = self.classes.iter_mut().flat_map(|c| &mut c.clients).flat_map(|c| &mut c.runs);
        for list in lists.map(|r| &mut r.units).chain([&mut self.to_look_up]) {
            if !list.iter().any(&mut wanted) {
                continue;
            }
            let mut stay = VecDeque::with_capacity(list.len());
            for unit in list.drain(..) {
                if wanted(&unit) {
                    taken.push(unit);
                } else {
                    stay.push_back(unit);
                }
            }
            *list = stay;
        }
        self.classes.iter_mut().for_each(Class::tidy);
        self.count_out(&taken);
        taken
    }

    /// What waits, by tenant.
    #[must_use]
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// Adds what waits to `depths`, by priority.
    pub fn measure(&self, depths: &mut [Depth; Priority::ALL.len()]) {
        for (class, depth) in self.classes.iter().zip(&mut *depths) {
            let runs = class.clients.iter().flat_map(|c| &c.runs);
            runs.for_each(|r| depth.add(r.id, r.units.len()));
        }
        self.to_look_up.iter().for_each(|u| depths[u.priority as usize].add(u.run, 1));
    }

    /// The batch key of the next batch, and whether its first item must run alone; `None` if nothing waits.
    #[must_use]
    pub fn next_key(&self) -> Option<(&BatchKey, bool)> {
        let first = self.classes[self.turn()?].clients.front()?.runs.front()?.units.front()?;
        Some((&first.key, first.max_batch_items <= 1))
    }

    /// Number of runs whose turn comes before this one's, as far as it is known; `None` if nothing of this run waits.
    #[must_use]
    pub fn position(&self, run: RunId) -> Option<usize> {
        let mut before = 0;
        for class in &self.classes {
            let place = |(t, c): (usize, &Client)| Some((t, c.runs.iter().position(|r| r.id == run)?));
            if let Some((tenant, turn)) = class.clients.iter().enumerate().find_map(place) {
                let ahead =
                    class.clients.iter().enumerate().map(|(t, c)| c.runs.len().min(turn + usize::from(t < tenant)));
                return Some(before + ahead.sum::<usize>());
            }
            before += class.clients.iter().map(|c| c.runs.len()).sum::<usize>();
        }
        self.to_look_up.iter().any(|u| u.run == run).then_some(before)
    }

    /// Removes and returns up to `limit` items that have not been looked up in the store yet.
    pub fn take_to_look_up(&mut self, limit: usize) -> Vec<Unit> {
        let taken: Vec<Unit> = self.to_look_up.drain(..limit.min(self.to_look_up.len())).collect();
        self.count_out(&taken);
        taken
    }

    /// The next batch. The run whose turn it is decides the key; then runs of its tenant add one matching item each in
    /// turn until the budget is used. Runs of a lower priority add none, so that no item waits for less urgent ones.
    /// `None` if nothing waits.
    pub fn next_batch(&mut self, budget: Budget) -> Option<Vec<Unit>> {
        let lead = self.turn()?;
        let first = self.classes[lead].clients.front_mut()?.runs.front_mut()?.units.pop_front()?;
        let tenant = first.key.tenant;
        let mut batch = Filling::of(first, budget);
        for class in self.classes[..=lead].iter_mut().rev() {
            if let Some(client) = class.client(tenant) {
                batch.fill(client);
            }
        }
        let Filling { units, tokens, .. } = batch;
        self.end_turn(lead, tenant, &units);
        self.clock = self.classes[lead].served;
        let cost = tokens as u64 * (share(Priority::Interactive) / share(Priority::ALL[lead]));
        self.classes[lead].served = self.clock.saturating_add(cost.max(1));
        self.count_out(&units);
        Some(units)
    }

    /// The class that has the next turn.
    fn turn(&self) -> Option<usize> {
        let waiting = self.classes.iter().enumerate().filter(|(_, c)| !c.clients.is_empty());
        waiting.min_by_key(|(_, c)| c.served).map(|(i, _)| i)
    }

    /// Moves the tenant behind the others, and its runs that gave an item behind those that gave none.
    fn end_turn(&mut self, lead: usize, tenant: TenantId, batch: &[Unit]) {
        let gave: HashSet<RunId> = batch.iter().map(|u| u.run).collect();
        for class in &mut self.classes[..=lead] {
            if let Some(client) = class.client(tenant) {
                let (served, waiting): (VecDeque<_>, VecDeque<_>) =
                    client.runs.drain(..).partition(|r| gave.contains(&r.id));
                client.runs = waiting;
                client.runs.extend(served);
            }
            class.tidy();
        }
        let clients = &mut self.classes[lead].clients;
        if clients.front().is_some_and(|c| c.tenant == tenant) {
            clients.rotate_left(1);
        }
    }

    fn count_out(&mut self, units: &[Unit]) {
        units.iter().for_each(|u| self.loads.sub(u.key.tenant, u.load()));
    }
}

#[cfg(test)]
mod tests;
