//! `/v1/caches`.

pub mod manage;
pub mod tensors;
