//! Runs: from the queue to completed caches.

pub(crate) mod accept;
pub(crate) mod answered;
pub(crate) mod complete;
pub(crate) mod ending;
pub(crate) mod import;
pub(crate) mod interventions;
pub(crate) mod listing;
pub(crate) mod queue;
pub(crate) mod reuse;
