//! What waits: items, what they can share a batch with, and what they take.

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

/// Whether activations of another item may answer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The forward pass was asked for.
    Never,
    /// They may, and nobody has looked yet.
    Unasked,
    /// They may, and there were none.
    Asked,
}

impl Reuse {
    /// Of a new item of a run.
    #[must_use]
    pub fn of(allowed: bool) -> Self {
        if allowed { Self::Unasked } else { Self::Never }
    }
}

/// An item of a run.
pub type UnitId = (RunId, u32);

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
    /// The run's priority.
    pub priority: Priority,
    /// Whether it must be computed.
    pub reuse: Reuse,
    /// Items of the largest batch that it may be one of: half as many after each batch with it that failed, and 1 for an
    /// item that was in flight when the server last died.
    pub max_batch_items: usize,
}

/// A batch of any size will do.
pub const UNLIMITED: usize = usize::MAX;

impl Unit {
    /// Which item it is.
    #[must_use]
    pub fn id(&self) -> UnitId {
        (self.run, self.index)
    }

    /// What it takes while it waits.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { items: 1, bytes: self.n_bytes }
    }

    /// Whether it waits to be looked for in the store, not to be computed.
    pub(super) fn is_unasked(&self) -> bool {
        self.reuse == Reuse::Unasked && !self.key.generates()
    }
}

/// Items, and the bytes that their captures will take.
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

/// What each tenant has waiting.
#[derive(Debug, Default)]
pub struct Loads(HashMap<TenantId, Load>);

impl Loads {
    /// That of one tenant.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Load {
        self.0.get(&tenant).copied().unwrap_or_default()
    }

    /// That of all.
    #[must_use]
    pub fn total(&self) -> Load {
        self.0.values().fold(Load::default(), |mut sum, one| {
            sum += *one;
            sum
        })
    }

    /// Counts in.
    pub fn add(&mut self, tenant: TenantId, load: Load) {
        *self.0.entry(tenant).or_default() += load;
    }

    /// Counts out what was counted in.
    pub fn sub(&mut self, tenant: TenantId, load: Load) {
        if let Some(left) = self.0.get_mut(&tenant) {
            *left -= load;
            if *left == Load::default() {
                self.0.remove(&tenant);
            }
        }
    }
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

/// What of one priority waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Items.
    pub items: usize,
    /// The run that was accepted first.
    pub oldest: Option<RunId>,
}

impl Depth {
    /// Counts further items of a run.
    pub fn add(&mut self, run: RunId, items: usize) {
        self.items += items;
        self.oldest = Some(self.oldest.map_or(run, |oldest| oldest.min(run)));
    }
}
