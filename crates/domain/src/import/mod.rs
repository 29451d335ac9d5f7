//! Imports: turns the description of a safetensors file that was made elsewhere into that of a cache.
//!
//! A file is described by its tensors ([`super::tensor_file`]), and by facts in its `__metadata__` or in the request
//! ([`ImportSpec`]). [`ImportPlan`] checks one against the other. Nothing here reads the data of tensors.

mod plan;
mod spec;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use plan::{ImportPlan, TensorSource};
pub use spec::{Given, ImportSpec};

/// Placeholder for a token whose id is unknown. No vocabulary has it.
pub const UNKNOWN_TOKEN: u32 = u32::MAX;

/// Largest number of tokens of an imported input.
pub const MAX_TOKENS: usize = 1 << 20;

/// The source of an imported cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportOrigin {
    /// blake3 of the file, in hex.
    pub file_hash: String,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Types of its activations in safetensors' spelling, each once.
    pub file_dtypes: Vec<String>,
    /// The keys of its `__metadata__` for which the cache has no field.
    pub metadata: Map<String, Value>,
}
