//! Runs: a queued request, its items, and its status.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    cache::BosDecision,
    capture::Capture,
    generation::{Generation, TextCompletion},
    ids::{CacheId, RunId, TenantId},
    import::ImportOrigin,
    intervention::{Applied, Edits},
    positions::Unsettled,
    problem::Problem,
};

/// The status of a run. The last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted and durable; no item has started.
    Queued,
    /// At least one item has started.
    Running,
    /// Every item has its cache.
    Completed,
    /// At least one item failed; the others have their caches.
    Failed,
    /// Stopped on request; items finished before that have their caches.
    Cancelled,
}

impl RunStatus {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether the status is final.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The spelling in the API and the index.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the spelling back.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How urgent a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// For requests that somebody waits for.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// For requests that may wait.
    Bulk,
}

impl Priority {
    /// Every priority, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Bulk];

    /// The spelling in the API and the index.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }

    /// Reads the spelling back.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// A run as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Its status.
    pub status: RunStatus,
    /// Name of the model.
    pub model: String,
    /// Its priority.
    pub priority: Priority,
    /// Number of inputs.
    pub n_items: u64,
    /// Number of items with a cache, including reused ones.
    pub n_done: u64,
    /// Number of items that were reused from the store, without a forward pass.
    pub n_reused: u64,
    /// Number of items that failed.
    pub n_failed: u64,
    /// The first hundred caches, in input order.
    pub caches: Vec<CacheId>,
    /// Why it failed: the problem of its first failed item.
    pub error: Option<Problem>,
    /// Tags of all its caches.
    pub tags: Vec<String>,
    /// Metadata of the run as posted.
    pub metadata: Map<String, Value>,
    /// Whether its inputs are continued before they are captured.
    pub generates: bool,
    /// Whether it is an import: its only cache was computed elsewhere.
    pub imported: bool,
    /// Seconds after which its caches expire.
    pub ttl_seconds: Option<u64>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its first item started.
    pub started_at: Option<Timestamp>,
    /// When it reached its final status.
    pub finished_at: Option<Timestamp>,
}

/// One input of a run, tokenised and checked: everything that the worker and the index need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewItem {
    /// The token ids; never empty.
    pub token_ids: Vec<u32>,
    /// The text of each token.
    pub tokens: Vec<String>,
    /// The text as posted or rendered from a chat; `None` when token ids were posted.
    pub text: Option<String>,
    /// What the item captures.
    pub capture: Capture,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDecision,
    /// Number of tokens that were truncated on the left or right to fit the context.
    pub n_truncated: u64,
    /// Tags of its cache: the run's and its own.
    pub tags: Vec<String>,
    /// Metadata of its cache: the run's, overridden by its own.
    pub metadata: Map<String, Value>,
    /// Label of its cache.
    pub label: Option<String>,
    /// How to continue the tokens before the capture; `None` if they are complete.
    pub generation: Option<Generation>,
    /// Positions that depend on tokens that are not generated yet. Until they are, `capture` has an upper bound of them.
    pub unsettled: Option<Unsettled>,
    /// What was generated, once it is; it is then part of the tokens.
    pub completion: Option<TextCompletion>,
    /// The source of its activations, if they are imported.
    pub origin: Option<ImportOrigin>,
    /// The run's interventions, resolved for this input.
    pub interventions: Vec<Applied>,
}

impl NewItem {
    /// Number of tokens for which a place is planned.
    #[must_use]
    pub fn planned_tokens(&self) -> usize {
        let n_new = self.generation.as_ref().map_or(0, |g| g.max_new_tokens.min(PLANNED_NEW_TOKENS));
        self.token_ids.len() + n_new
    }

    /// Largest number of tokens once it is continued.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.token_ids.len() + self.generation.as_ref().map_or(0, |g| g.max_new_tokens)
    }
}

/// Tokens of a continuation that are planned for: many end long before their limit.
const PLANNED_NEW_TOKENS: usize = 256;

/// A run that is ready to be queued: names are resolved, inputs are tokenised, and nothing can be refused any more.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Whether stored activations may be reused instead of a forward pass.
    pub reuse: bool,
    /// Its priority.
    pub priority: Priority,
    /// Tags of all its caches.
    pub tags: Vec<String>,
    /// Metadata of the run.
    pub metadata: Map<String, Value>,
    /// Seconds after which its caches expire.
    pub ttl_seconds: Option<u64>,
    /// Inputs in order, never empty.
    pub items: Vec<NewItem>,
    /// The idempotency key, with the blake3 of the request.
    pub idempotency: Option<(String, [u8; 32])>,
    /// Its interventions.
    pub edits: Option<Arc<Edits>>,
}

impl NewRun {
    /// Whether inputs are continued before the capture.
    #[must_use]
    pub fn generates(&self) -> bool {
        self.items.iter().any(|item| item.generation.is_some())
    }
}
