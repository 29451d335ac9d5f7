//! Runs in answers.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{capture::PositionsSchema, generate::CompletionDto, run_body::PrioritySchema};
use crate::api::{error::ProblemDto, tensor::TensorDto};
use residuum_domain::{Positions, Priority, Run, RunStatus};

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run, example = json!({
    "object": "run", "id": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "status": "completed", "model": "smollm2-135m", "priority": "normal", "n_items": 1,
    "n_done": 1, "n_reused": 0, "n_failed": 0, "caches": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"], "error": null,
    "tags": ["demo"], "metadata": {}, "ttl_seconds": null, "imported": false, "created_at": "2026-11-23T12:00:00.000001Z",
    "started_at": "2026-11-23T12:00:00.002Z", "finished_at": "2026-11-23T12:00:00.05Z", "queue_position": null
}))]
pub struct RunDto {
    /// Always `run`. A problem has none, and a `status` of its own, which is a number: look here before the status is polled.
    #[schema(value_type = RunObject)]
    pub object: &'static str,
    /// Its id.
    pub id: String,
    /// `queued`, `running`, `completed`, `failed` or `cancelled`.
    #[schema(value_type = RunStatusSchema)]
    pub status: RunStatus,
    /// Name of the model.
    pub model: String,
    /// `interactive`, `normal` or `bulk`.
    #[schema(value_type = PrioritySchema)]
    pub priority: Priority,
    /// Inputs.
    pub n_items: u64,
    /// Inputs with a cache.
    pub n_done: u64,
    /// Of these, answered from the store without a forward pass.
    pub n_reused: u64,
    /// Inputs that failed.
    pub n_failed: u64,
    /// Caches in input order, the first hundred; the rest are at `/v1/runs/{id}/caches`.
    pub caches: Vec<String>,
    /// Why it failed.
    pub error: Option<ProblemDto>,
    /// Tags of every cache.
    pub tags: Vec<String>,
    /// Metadata as posted.
    pub metadata: Map<String, Value>,
    /// Whether it stands for an import: its one cache was made elsewhere.
    pub imported: bool,
    /// Seconds after which its caches expire.
    pub ttl_seconds: Option<u64>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When its first item was started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<jiff::Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<jiff::Timestamp>,
    /// Runs whose turn comes first, while something of it waits.
    pub queue_position: Option<usize>,
    /// What was generated, where the run continues its inputs: one for each cache of `caches`, once the run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<Vec<RunCompletion>>,
    /// With `include=values`: the tensors of each cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<CacheValues>>,
}

/// The word `run`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes `object` for the specification")]
pub enum RunObject {
    /// The object is a run.
    Run,
}

/// What was generated behind one input.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunCompletion {
    /// The cache.
    pub cache: String,
    /// The continuation.
    #[serde(flatten)]
    pub completion: CompletionDto,
}

/// The tensors of one cache.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheValues {
    /// The cache.
    pub cache: String,
    /// Every hook it captured.
    pub tensors: Vec<TensorDto>,
}

/// Where a run is in its life.
#[derive(Serialize, ToSchema)]
#[schema(as = RunStatus)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes RunStatus for the specification")]
pub enum RunStatusSchema {
    /// Accepted and durable.
    Queued,
    /// At least one item was started.
    Running,
    /// Every item has its cache.
    Completed,
    /// At least one item failed.
    Failed,
    /// Stopped on request.
    Cancelled,
}

impl RunDto {
    /// A run with its place in the queue.
    pub fn new(run: Run, queue_position: Option<usize>) -> Self {
        Self {
            object: "run",
            id: run.id.to_string(),
            status: run.status,
            model: run.model,
            priority: run.priority,
            n_items: run.n_items,
            n_done: run.n_done,
            n_reused: run.n_reused,
            n_failed: run.n_failed,
            caches: run.caches.iter().map(ToString::to_string).collect(),
            error: run.error.map(Into::into),
            tags: run.tags,
            metadata: run.metadata,
            imported: run.imported,
            ttl_seconds: run.ttl_seconds,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            queue_position,
            completions: None,
            values: None,
        }
    }
}

/// A run while it goes on: the data of an event named `run`.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunSnapshot {
    /// The run.
    #[serde(flatten)]
    pub run: RunDto,
    /// Tokens per second of recent batches of this server.
    pub tokens_per_second: f64,
    /// Seconds until the run ends, if it goes on as it went; null before anything is done.
    pub eta_seconds: Option<f64>,
}

/// A server-sent event.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"event": "progress", "data": "{\"done\":12,\"total\":420}"}))]
#[expect(dead_code, reason = "describes the text of a stream, which axum writes")]
pub struct ServerSentEvent {
    /// What the data is.
    pub event: String,
    /// JSON, on one line.
    pub data: String,
}

/// What a run would make.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "n_items": 1, "n_tokens": 3, "n_bytes": 2304, "items": [{
        "token_ids": [504, 414, 46682], "tokens": ["The", " E", "iffel"],
        "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "n_truncated": 0, "n_bytes": 2304,
        "interventions": [], "positions": 2, "hooks": [{"hook": "blocks.12.hook_resid_post", "shape": [576]}]
    }]
}))]
pub struct DryRun {
    /// Inputs.
    pub n_items: usize,
    /// Tokens of all inputs.
    pub n_tokens: usize,
    /// Bytes the captures would take.
    pub n_bytes: u64,
    /// The inputs in order, the first hundred.
    pub items: Vec<DryRunItem>,
}

/// What one input of a run would make.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRunItem {
    /// Token ids the model would see.
    pub token_ids: Vec<u32>,
    /// What each token stands for.
    pub tokens: Vec<String>,
    /// Whether a BOS token was added.
    pub bos: super::cache::BosDto,
    /// Tokens that were cut.
    pub n_truncated: u64,
    /// Bytes its capture would take.
    pub n_bytes: u64,
    /// What would be changed, as the cache's provenance would say it.
    pub interventions: Vec<Map<String, Value>>,
    /// Positions it would keep, as the cache would name them.
    #[schema(value_type = PositionsSchema)]
    pub positions: Positions,
    /// Shape of each hook.
    pub hooks: Vec<DryRunHook>,
}

/// Shape of a hook of a dry run.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRunHook {
    /// Full name.
    pub hook: String,
    /// Shape.
    pub shape: Vec<usize>,
}
