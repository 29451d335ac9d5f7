//! A list of what is served, by name, with the state of each. Models and autoencoders have one each.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use residuum_domain::Problem;
use residuum_model::{LoadProgress, LoadStage};

/// Who asked for something to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The flags of the server.
    Start,
    /// A request, now or before the last restart.
    Request,
}

/// A load under way; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// How far it has come.
    pub progress: LoadProgress,
    /// Cancelled when it is to end.
    pub(super) cancelled: CancellationToken,
}

impl Load {
    /// Ends it before the next tensor.
    pub(super) fn cancel(&self) {
        self.progress.cancel();
        self.cancelled.cancel();
    }

    fn is(&self, other: &Self) -> bool {
        self.progress.is(&other.progress)
    }
}

/// Whether something can be used.
#[derive(Debug)]
pub enum ServedState<T> {
    /// Being loaded.
    Loading(Load),
    /// Serving.
    Ready(Arc<T>),
    /// Takes no new work, and goes when accepted work has ended. `None`: its load is being cancelled, or it is being freed.
    Unloading(Option<Arc<T>>),
    /// It could not be loaded, and why.
    Failed(Problem),
}

impl<T> ServedState<T> {
    /// The stable name of the state.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Loading(_) => "loading",
            Self::Ready(_) => "ready",
            Self::Unloading(_) => "unloading",
            Self::Failed(_) => "failed",
        }
    }

    /// Whether it stays as it is until someone asks for a change.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::Failed(_))
    }

    /// What is served, if it takes new work.
    #[must_use]
    pub fn ready(&self) -> Option<&Arc<T>> {
        match self {
            Self::Ready(it) => Some(it),
            _ => None,
        }
    }
}

/// The names of all states, for metrics.
pub const STATES: [&str; 4] = ["loading", "ready", "unloading", "failed"];

impl<T> Clone for ServedState<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Loading(load) => Self::Loading(load.clone()),
            Self::Ready(it) => Self::Ready(Arc::clone(it)),
            Self::Unloading(it) => Self::Unloading(it.clone()),
            Self::Failed(problem) => Self::Failed(problem.clone()),
        }
    }
}

/// One thing of the list. `A` is what is known about it apart from its state.
#[derive(Debug)]
pub struct Served<T, A = ()> {
    /// Whether it can be used.
    pub state: ServedState<T>,
    /// Who asked for it.
    pub origin: Origin,
    /// Where it was loaded from, as the client named it.
    pub source: Option<String>,
    /// Estimated bytes of memory that it takes.
    pub memory_bytes: Option<u64>,
    /// What else is known about it.
    pub about: A,
}

impl<T, A: Clone> Clone for Served<T, A> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            origin: self.origin,
            source: self.source.clone(),
            memory_bytes: self.memory_bytes,
            about: self.about.clone(),
        }
    }
}

impl<T, A> Served<T, A> {
    /// Something that the server's flags name.
    pub(crate) fn at_start(about: A) -> Self {
        Self {
            state: ServedState::Loading(Load::default()),
            origin: Origin::Start,
            source: None,
            memory_bytes: None,
            about,
        }
    }

    /// Bytes of memory that its load will still take.
    fn outstanding_bytes(&self) -> u64 {
        let (ServedState::Loading(load), Some(bytes)) = (&self.state, self.memory_bytes) else { return 0 };
        let now = load.progress.now();
        match now.stage {
            LoadStage::Queued | LoadStage::Downloading | LoadStage::Reading => bytes,
            LoadStage::Weights if now.bytes_total > 0 => {
                let left = u128::from(now.bytes_total.saturating_sub(now.bytes_done));
                u64::try_from(u128::from(bytes) * left / u128::from(now.bytes_total)).unwrap_or(bytes)
            }
            LoadStage::Weights | LoadStage::Placing | LoadStage::Ready => 0,
        }
    }
}

type Entries<T, A> = BTreeMap<String, Served<T, A>>;

/// What is served, by name.
#[derive(Debug)]
pub struct Shelf<T, A = ()> {
    entries: RwLock<Entries<T, A>>,
    changes: watch::Sender<u64>,
}

impl<T, A> Default for Shelf<T, A> {
    fn default() -> Self {
        Self { entries: RwLock::default(), changes: watch::channel(0).0 }
    }
}

impl<T, A: Clone> Shelf<T, A> {
    /// A list of these.
    pub fn of(entries: impl IntoIterator<Item = (String, Served<T, A>)>) -> Self {
        Self { entries: RwLock::new(entries.into_iter().collect()), ..Self::default() }
    }

    /// Reads the list, which does not change meanwhile.
    pub fn read<R>(&self, f: impl FnOnce(&Entries<T, A>) -> R) -> R {
        f(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the list, and notifies those who wait for a change.
    pub fn change<R>(&self, f: impl FnOnce(&mut Entries<T, A>) -> R) -> R {
        let result = f(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|n| *n += 1);
        result
    }

    /// Notified of every change of a state; not of progress.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Everything, sorted by name.
    pub fn all(&self) -> Vec<(String, Served<T, A>)> {
        self.read(|entries| entries.iter().map(|(name, one)| (name.clone(), one.clone())).collect())
    }

    /// One of them.
    pub fn one(&self, name: &str) -> Option<Served<T, A>> {
        self.read(|entries| entries.get(name).cloned())
    }

    /// Whether nothing that the flags name is still being loaded.
    pub fn start_is_over(&self) -> bool {
        self.read(|entries| {
            !entries.values().any(|one| one.origin == Origin::Start && matches!(one.state, ServedState::Loading(_)))
        })
    }

    /// Whether the name is free, or that of something that could not be loaded.
    pub fn is_free(&self, name: &str) -> bool {
        self.read(|entries| entries.get(name).is_none_or(|one| matches!(one.state, ServedState::Failed(_))))
    }

    /// Adds something whose load begins. Returns whether the name was free.
    pub fn begin(&self, name: &str, new: Served<T, A>) -> bool {
        self.change(|entries| {
            let free = entries.get(name).is_none_or(|one| matches!(one.state, ServedState::Failed(_)));
            if free {
                entries.insert(name.to_owned(), new);
            }
            free
        })
    }

    /// Ends a load. A load that was cancelled meanwhile leaves nothing. Returns whether the entry has the new state.
    pub fn end_load(&self, name: &str, load: &Load, state: ServedState<T>) -> bool {
        self.change(|entries| match entries.get_mut(name) {
            Some(one) if matches!(&one.state, ServedState::Loading(own) if own.is(load)) => {
                one.state = state;
                true
            }
            Some(Served { state: ServedState::Unloading(None), .. }) => {
                entries.remove(name);
                false
            }
            _ => false,
        })
    }

    /// Notes the estimate of something that is being loaded.
    pub fn estimate(&self, name: &str, bytes: u64) {
        self.change(|entries| {
            if let Some(one) = entries.get_mut(name) {
                one.memory_bytes = Some(bytes);
            }
        });
    }

    /// Removes an entry.
    pub fn remove(&self, name: &str) {
        self.change(|entries| entries.remove(name));
    }

    /// Removes an entry that is being unloaded, and frees what it holds; blocks.
    pub fn free(&self, name: &str) {
        let held = self.change(|entries| {
            let one = entries.get_mut(name)?;
            match &mut one.state {
                ServedState::Unloading(held) => held.take(),
                _ => None,
            }
        });
        drop(held);
        self.remove(name);
    }

    /// Bytes of memory that the loads under way will still take, except that of `name`.
    pub fn outstanding_bytes(&self, name: &str) -> u64 {
        let others = |entries: &Entries<T, A>| {
            entries.iter().filter(|(other, _)| *other != name).map(|(_, one)| one.outstanding_bytes()).sum()
        };
        self.read(others)
    }

    /// Ends every load under way.
    pub fn cancel_loads(&self) {
        self.read(|entries| {
            for one in entries.values() {
                if let ServedState::Loading(load) = &one.state {
                    load.cancel();
                }
            }
        });
    }

    /// Number of entries in each state, in the order of [`STATES`].
    pub fn count(&self) -> [usize; STATES.len()] {
        self.read(|entries| STATES.map(|state| entries.values().filter(|one| one.state.name() == state).count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residuum_domain::Code;

    fn loading(load: &Load) -> Served<u32> {
        let state = ServedState::Loading(load.clone());
        Served { state, origin: Origin::Request, source: None, memory_bytes: Some(100), about: () }
    }

    #[test]
    fn a_name_is_free_until_it_is_used_and_again_after_a_failure() {
        let shelf = Shelf::<u32>::default();
        let (first, second) = (Load::default(), Load::default());
        assert!(shelf.begin("a", loading(&first)) && !shelf.begin("a", loading(&second)));
        assert!(!shelf.end_load("a", &second, ServedState::Ready(Arc::new(2))), "the end of another load");
        let failed = ServedState::Failed(Problem::new(Code::LoadFailed, "no"));
        assert!(shelf.end_load("a", &first, failed) && shelf.is_free("a"));
        assert!(shelf.begin("a", loading(&second)));
        assert!(shelf.end_load("a", &second, ServedState::Ready(Arc::new(2))));
        assert_eq!(shelf.count(), [0, 1, 0, 0]);
    }

    #[test]
    fn the_memory_of_a_load_is_counted_until_it_is_taken() {
        let (shelf, load) = (Shelf::<u32>::default(), Load::default());
        shelf.begin("a", loading(&load));
        let left = || shelf.outstanding_bytes("b");
        assert_eq!((left(), shelf.outstanding_bytes("a")), (100, 0));
        load.progress.begin(LoadStage::Weights, 8);
        assert_eq!(left(), 100);
        load.progress.begin(LoadStage::Placing, 0);
        assert_eq!(left(), 0);
    }

    #[test]
    fn only_what_the_flags_name_holds_up_the_start() {
        let shelf = Shelf::<u32>::of([("s".to_owned(), Served::at_start(()))]);
        assert!(!shelf.start_is_over());
        shelf.change(|entries| entries.get_mut("s").unwrap().state = ServedState::Ready(Arc::new(1)));
        shelf.begin("a", loading(&Load::default()));
        assert!(shelf.start_is_over());
    }
}
