//! `/v1/runs`.

pub mod create;
pub mod events;
pub mod manage;
pub mod tensors;
