//! `/v1/caches`.

pub mod attribution;
pub mod cache_tensors;
pub mod import_cache;
pub mod lens;
pub mod manage_caches;
