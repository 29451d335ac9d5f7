//! A configuration with the keys of `config.json`, while it is built from the metadata of a GGUF file.

use serde_json::{Map, Value};

/// A configuration that is being built.
#[derive(Debug, Default)]
pub struct Draft {
    /// Its keys.
    pub config: Map<String, Value>,
    /// The keys of its rope parameters.
    pub rope: Map<String, Value>,
}

impl Draft {
    /// A count that has been translated already; 0 if it is missing.
    pub fn count(&self, key: &str) -> u64 {
        self.config.get(key).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Width of a head.
    pub fn d_head(&self) -> u64 {
        match self.count("head_dim") {
            0 => self.count("hidden_size").checked_div(self.count("num_attention_heads")).unwrap_or_default(),
            given => given,
        }
    }
}
