//! `/v1/runs`: queueing, following and managing runs, and their tensors.

pub mod create_run;
pub mod events;
pub mod manage_runs;
mod run_answer;
pub mod run_tensors;
