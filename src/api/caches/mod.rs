//! `/v1/caches`: managing and importing caches, their tensors, and analyses of one cache.

pub mod attribution;
pub mod cache_tensors;
pub mod import_cache;
pub mod lens;
pub mod manage_caches;
