//! `/v1/caches`.

pub mod attribution;
pub mod cache_file;
pub mod cache_tensors;
pub mod import_cache;
mod import_receiver;
pub mod lens;
mod lens_answer;
pub mod manage_caches;
