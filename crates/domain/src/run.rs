//! Runs: one queued request, its items, and its status.

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

/// Where a run is in its life. The last three are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted and durable; no item has been started.
    Queued,
    /// At least one item has been started.
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

    /// Whether nothing will change any more.
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
    /// Somebody waits for it.
    Interactive,
    /// Neither.
    #[default]
    Normal,
    /// It may take as long as it takes.
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
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it is in its life.
    pub status: RunStatus,
    /// Name of the model it runs on.
    pub model: String,
    /// How urgent it is.
    pub priority: Priority,
    /// Inputs.
    pub n_items: u64,
    /// Items with a cache, reused ones among them.
    pub n_done: u64,
    /// Items answered from the store without a forward pass.
    pub n_reused: u64,
    /// Items that failed.
    pub n_failed: u64,
    /// Caches in input order, the first hundred that exist.
    pub caches: Vec<CacheId>,
    /// Why it failed: the problem of its first failed item.
    pub error: Option<Problem>,
    /// Tags every cache of it gets.
    pub tags: Vec<String>,
    /// Metadata of the run as posted.
    pub metadata: Map<String, Value>,
    /// Whether its inputs are continued before they are captured.
    pub generates: bool,
    /// Whether it stands for an import: its one cache was made elsewhere.
    pub imported: bool,
    /// Seconds after which its caches expire.
    pub ttl_seconds: Option<u64>,
    /// Accepted.
    pub created_at: Timestamp,
    /// First item started.
    pub started_at: Option<Timestamp>,
    /// Reached its final status.
    pub finished_at: Option<Timestamp>,
}

/// One input of a run, tokenised and checked: all that the worker and the index need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewItem {
    /// Token ids the model sees, never empty.
    pub token_ids: Vec<u32>,
    /// What each token stands for.
    pub tokens: Vec<String>,
    /// The text as posted or rendered from a chat; `None` when token ids were posted.
    pub text: Option<String>,
    /// What the item captures.
    pub capture: Capture,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDecision,
    /// Tokens cut from the left or right to fit the context.
    pub n_truncated: u64,
    /// Tags of its cache: the run's and its own.
    pub tags: Vec<String>,
    /// Metadata of its cache: the run's overlaid with its own.
    pub metadata: Map<String, Value>,
    /// Label of its cache.
    pub label: Option<String>,
    /// How to continue the tokens before anything is captured; `None` when they are complete.
    pub generation: Option<Generation>,
    /// Positions that take all tokens to settle, until there are all; `capture` then has the most they can be.
    pub unsettled: Option<Unsettled>,
    /// What was generated, once it has been: the tokens then hold it.
    pub completion: Option<TextCompletion>,
    /// Where its activations came from, when they are not computed here.
    pub origin: Option<ImportOrigin>,
    /// What each of the run's interventions means for it.
    pub interventions: Vec<Applied>,
}

impl NewItem {
    /// Tokens of the input once it is continued, at most.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.token_ids.len() + self.generation.as_ref().map_or(0, |g| g.max_new_tokens)
    }
}

/// A run ready to be queued: every name resolved, every input tokenised, nothing left that could be refused.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Whose it is.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Whether stored activations may answer instead of a forward pass.
    pub reuse: bool,
    /// How urgent it is.
    pub priority: Priority,
    /// Tags every cache of it gets.
    pub tags: Vec<String>,
    /// Metadata of the run.
    pub metadata: Map<String, Value>,
    /// Seconds after which its caches expire.
    pub ttl_seconds: Option<u64>,
    /// Inputs in order, never empty.
    pub items: Vec<NewItem>,
    /// Idempotency key with the blake3 of the request it came with.
    pub idempotency: Option<(String, [u8; 32])>,
    /// What is changed while its items go through the model.
    pub edits: Option<Arc<Edits>>,
}

impl NewRun {
    /// Whether inputs are continued before they are captured.
    #[must_use]
    pub fn generates(&self) -> bool {
        self.items.iter().any(|item| item.generation.is_some())
    }
}
