//! Activations that were made elsewhere: what a file holds and says, checked and brought into the terms of a cache.
//!
//! A file is described twice: by its tensors ([`super::tensor_file`]) and by facts that stand in its `__metadata__` or were
//! given beside it ([`ImportSpec`]). [`ImportPlan`] holds one against the other; nothing here reads the data itself.

mod plan;
mod spec;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use plan::{ImportPlan, TensorSource};
pub use spec::{Given, ImportSpec};

/// Stands for a token of which nothing is known but that it is there. No vocabulary has it.
pub const UNKNOWN_TOKEN: u32 = u32::MAX;

/// Most tokens of an imported input.
pub const MAX_TOKENS: usize = 1 << 20;

/// Where an imported cache came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportOrigin {
    /// blake3 of the file, in hex.
    pub file_hash: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Types of its activations, as safetensors spells them, each once.
    pub file_dtypes: Vec<String>,
    /// What its `__metadata__` says beyond what the cache has a field for.
    pub metadata: Map<String, Value>,
}
