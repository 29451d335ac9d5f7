//! `/v1/runs`.

pub mod create_run;
pub mod events;
pub mod manage_runs;
pub mod run_tensors;
