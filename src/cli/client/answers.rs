//! The parts of the server's answers that commands show. What is missing has a default, so that servers of other versions
//! can be asked too.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A page of a listing.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    #[serde(default)]
    pub(super) next_cursor: Option<String>,
}

/// An error of the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) title: String,
    pub(super) detail: String,
    pub(super) code: String,
    pub(super) errors: Vec<FieldError>,
}

/// A field at fault.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct FieldError {
    pub(super) pointer: String,
    pub(super) detail: String,
}

/// A run.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) model: String,
    #[serde(default)]
    pub(super) n_items: u64,
    #[serde(default)]
    pub(super) n_done: u64,
    #[serde(default)]
    pub(super) n_reused: u64,
    #[serde(default)]
    pub(super) n_failed: u64,
    #[serde(default)]
    pub(super) caches: Vec<String>,
    #[serde(default)]
    pub(super) error: Option<Problem>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
    #[serde(default)]
    pub(super) created_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) started_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) finished_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) queue_position: Option<u64>,
}

impl Run {
    /// Whether it has ended.
    pub(super) fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}

/// A stored cache.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Cache {
    pub(super) id: String,
    #[serde(default)]
    pub(super) run: String,
    #[serde(default)]
    pub(super) item_index: u64,
    #[serde(default)]
    pub(super) model: String,
    #[serde(default)]
    pub(super) label: Option<String>,
    #[serde(default)]
    pub(super) tags: Vec<String>,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) tokens: Vec<String>,
    #[serde(default)]
    pub(super) n_tokens: usize,
    #[serde(default)]
    pub(super) completion: Option<Completion>,
    #[serde(default)]
    pub(super) positions: Value,
    #[serde(default)]
    pub(super) hooks: Vec<CacheHook>,
    #[serde(default)]
    pub(super) provenance: Provenance,
    #[serde(default)]
    pub(super) reused: bool,
    #[serde(default)]
    pub(super) n_nan: u64,
    #[serde(default)]
    pub(super) n_inf: u64,
    #[serde(default)]
    pub(super) n_bytes: u64,
    #[serde(default)]
    pub(super) created_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) pinned: bool,
}

impl Cache {
    /// The text of the input, or its tokens joined if only ids were posted.
    pub(super) fn input(&self) -> String {
        match (&self.text, &self.completion) {
            (Some(text), _) => text.clone(),
            (None, Some(done)) => self.tokens.iter().take(done.first_position).map(String::as_str).collect(),
            (None, None) => self.tokens.concat(),
        }
    }
}

/// What was generated after an input.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Completion {
    #[serde(default)]
    pub(super) text: String,
    #[serde(default)]
    pub(super) token_ids: Vec<u32>,
    #[serde(default)]
    pub(super) first_position: usize,
    #[serde(default)]
    pub(super) finish_reason: String,
}

/// A captured hook.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct CacheHook {
    pub(super) hook: String,
    #[serde(default)]
    pub(super) shape: Vec<usize>,
    #[serde(default)]
    pub(super) axes: Vec<String>,
    #[serde(default)]
    pub(super) dtype: String,
}

/// What computed a cache.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Provenance {
    pub(super) architecture: Option<String>,
    pub(super) weights_dtype: Option<String>,
    pub(super) compute_dtype: Option<String>,
    pub(super) device: Option<String>,
    pub(super) interventions: Vec<Map<String, Value>>,
    pub(super) warnings: Vec<Warning>,
}

/// Something unusual that did not stop the server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Warning {
    pub(super) code: String,
    pub(super) detail: String,
}

/// A model of the server.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Model {
    pub(super) id: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) memory_bytes: Option<u64>,
    #[serde(default)]
    pub(super) progress: Option<LoadProgress>,
    #[serde(default)]
    pub(super) error: Option<Problem>,
    #[serde(default)]
    pub(super) architecture: Option<String>,
    #[serde(default)]
    pub(super) n_params: Option<u64>,
    #[serde(default)]
    pub(super) n_layers: Option<u64>,
    #[serde(default)]
    pub(super) d_model: Option<u64>,
    #[serde(default)]
    pub(super) n_heads: Option<u64>,
    #[serde(default)]
    pub(super) n_kv_heads: Option<u64>,
    #[serde(default)]
    pub(super) d_vocab: Option<u64>,
    #[serde(default)]
    pub(super) n_ctx: Option<u64>,
    #[serde(default)]
    pub(super) weights_dtype: Option<String>,
    #[serde(default)]
    pub(super) device: Option<String>,
    #[serde(default)]
    pub(super) has_chat_template: Option<bool>,
    #[serde(default)]
    pub(super) warnings: Vec<Warning>,
    #[serde(default)]
    pub(super) hooks: Vec<ModelHook>,
}

/// How far a load has come.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoadProgress {
    pub(super) stage: String,
    pub(super) bytes_done: u64,
    pub(super) bytes_total: u64,
}

/// A hook point of a model.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelHook {
    pub(super) hook: String,
    #[serde(default)]
    pub(super) shape: Vec<Option<usize>>,
    #[serde(default)]
    pub(super) axes: Vec<String>,
}
