//! Queued items: the key that items of a batch share, and the load that items put on the queue.

use std::{
    collections::HashMap,
    ops::{AddAssign, SubAssign},
    sync::Arc,
};

use residuum_domain::{Dtype, Edits, Hook, Priority, RunId, TenantId};

/// What items must share to go through one forward pass into one pack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BatchKey {
    /// Name of the model.
    pub model: String,
    /// Tenant of the items: packs never mix tenants.
    pub tenant: TenantId,
    /// Hooks to capture.
    pub hooks: Arc<[Hook]>,
    /// Type of the captured values.
    pub dtype: Dtype,
}

impl BatchKey {
    /// The key of items that are to be continued. Nothing is captured meanwhile.
    #[must_use]
    pub fn generating(model: String, tenant: TenantId) -> Self {
        Self { model, tenant, hooks: Arc::new([]), dtype: Dtype::Float32 }
    }

    /// Whether this is the key of items to be continued.
    #[must_use]
    pub fn generates(&self) -> bool {
        self.hooks.is_empty()
    }
}

/// Whether an item may be answered with stored activations, and whether they have been looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// They must not be used: the request forces the forward pass.
    Never,
    /// They may be used, and have not been looked up yet.
    ToLookUp,
    /// They may be used, but the lookup found none.
    NotFound,
}

impl Reuse {
    /// For a new item of a run.
    #[must_use]
    pub fn of(allowed: bool) -> Self {
        if allowed { Self::ToLookUp } else { Self::Never }
    }
}

/// Identifies an item: its run, and its index there.
pub type UnitId = (RunId, u32);

/// One item that waits.
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
    /// What it must share with the other items of a batch.
    pub key: Arc<BatchKey>,
    /// Interventions during its forward pass.
    pub edits: Option<Arc<Edits>>,
    /// The run's priority.
    pub priority: Priority,
    /// Whether stored activations may answer it.
    pub reuse: Reuse,
    /// Size of the largest batch that it may be part of: halved after each batch with it that failed, and 1 for an item
    /// that was in flight when the server last died.
    pub max_batch_items: usize,
}

/// `max_batch_items` of an item that may be part of a batch of any size.
pub const UNLIMITED: usize = usize::MAX;

impl Unit {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> UnitId {
        (self.run, self.index)
    }

    /// The load it puts on the queue while it waits.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { items: 1, bytes: self.n_bytes }
    }

    /// Whether it waits to be looked up in the store, not to be computed.
    pub(super) fn needs_lookup(&self) -> bool {
        self.reuse == Reuse::ToLookUp && !self.key.generates()
    }
}

/// Number of items, and the bytes that their captures will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Items.
    pub items: usize,
    /// Bytes in the store.
    pub bytes: u64,
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.items -= other.items;
        self.bytes -= other.bytes;
    }
}

/// The load of each tenant.
#[derive(Debug, Default)]
pub struct Loads(HashMap<TenantId, Load>);

impl Loads {
    /// The load of one tenant.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Load {
        self.0.get(&tenant).copied().unwrap_or_default()
    }

    /// The load of all tenants.
    #[must_use]
    pub fn total(&self) -> Load {
        self.0.values().fold(Load::default(), |mut sum, one| {
            sum += *one;
            sum
        })
    }

    /// Adds to the load of a tenant.
    pub fn add(&mut self, tenant: TenantId, load: Load) {
        *self.0.entry(tenant).or_default() += load;
    }

    /// Subtracts from the load of a tenant what was added before.
    pub fn sub(&mut self, tenant: TenantId, load: Load) {
        if let Some(left) = self.0.get_mut(&tenant) {
            *left -= load;
            if *left == Load::default() {
                self.0.remove(&tenant);
            }
        }
    }
}

/// How much one batch may hold. The first item is taken even if it is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens of all inputs.
    pub tokens: usize,
    /// Captured bytes of all inputs.
    pub bytes: u64,
    /// Inputs.
    pub items: usize,
}

/// Items of one priority that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Number of items.
    pub items: usize,
    /// Of their runs, the one that was accepted first.
    pub oldest: Option<RunId>,
}

impl Depth {
    /// Adds items of a run.
    pub fn add(&mut self, run: RunId, items: usize) {
        self.items += items;
        self.oldest = Some(self.oldest.map_or(run, |oldest| oldest.min(run)));
    }
}
