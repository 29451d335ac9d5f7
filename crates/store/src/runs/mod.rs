//! Runs: accepting, queueing and completing them, and reusing what is stored. All of it is statements on the index;
//! only imports write a blob.

pub(crate) mod accept;
pub(crate) mod answered;
pub(crate) mod complete;
pub(crate) mod ending;
pub(crate) mod import;
pub(crate) mod interventions;
pub(crate) mod listing;
pub(crate) mod queue;
pub(crate) mod reuse;
