//! `/v1/caches`.

pub mod attribution;
pub mod import;
pub mod lens;
pub mod manage;
pub mod tensors;
