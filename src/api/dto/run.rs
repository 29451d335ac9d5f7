//! Runs in responses.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    capture::PositionsSchema,
    generate::{CompletionDto, FinishReasonSchema},
    next_tokens::NextTokensDto,
    run_body::PrioritySchema,
};
use crate::api::{error::ProblemDto, tensor::TensorDto};
use residuum_domain::{FinishReason, Positions, Priority, Run, RunStatus};

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run, example = json!({
    "object": "run", "id": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "status": "completed", "model": "smollm2-135m", "priority": "normal", "n_items": 1,
    "n_done": 1, "n_reused": 0, "n_failed": 0, "caches": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"], "error": null,
    "tags": ["demo"], "metadata": {}, "ttl_seconds": null, "imported": false, "created_at": "2026-11-23T12:00:00.000001Z",
    "started_at": "2026-11-23T12:00:00.002Z", "finished_at": "2026-11-23T12:00:00.05Z", "queue_position": null
}))]
pub struct RunDto {
    /// Always `run`. A problem has no `object`, and its `status` is a number: check this field before you poll
    /// `status`.
    #[schema(value_type = RunObject)]
    pub object: &'static str,
    /// Id of the run.
    pub id: String,
    /// `queued`, `running`, `completed`, `failed` or `cancelled`.
    #[schema(value_type = RunStatusSchema)]
    pub status: RunStatus,
    /// Name of the model.
    pub model: String,
    /// `interactive`, `normal` or `bulk`.
    #[schema(value_type = PrioritySchema)]
    pub priority: Priority,
    /// Number of inputs.
    pub n_items: u64,
    /// Number of inputs that have a cache.
    pub n_done: u64,
    /// Number of those that were answered from the store without a forward pass.
    pub n_reused: u64,
    /// Number of inputs that failed.
    pub n_failed: u64,
    /// The first hundred caches, in the order of the inputs; `/v1/runs/{id}/caches` lists all.
    pub caches: Vec<String>,
    /// Why it failed.
    pub error: Option<ProblemDto>,
    /// Tags of every cache.
    pub tags: Vec<String>,
    /// Metadata as posted.
    pub metadata: Map<String, Value>,
    /// Whether the run is an import: its only cache was computed elsewhere.
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
    /// Number of runs ahead of it in the queue; null if none of its inputs waits.
    pub queue_position: Option<usize>,
    /// What was generated, if the run continues its inputs and has ended: one entry for each cache of `caches`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<Vec<RunCompletion>>,
    /// With `include=values`: the tensors of each cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<CacheValues>>,
    /// With `include=top_tokens`: the most probable next tokens of each cache of `caches`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<Vec<NextTokensDto>>,
}

/// The word `run`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes `object` for the specification")]
pub enum RunObject {
    /// The object is a run.
    Run,
}

/// The word `dry_run`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes `object` for the specification")]
pub enum DryRunObject {
    /// Nothing was queued.
    DryRun,
}

/// A run, or what it would store. Some generators of clients take the schema of status 200 for all answers, so it is
/// one that they all fit.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = json!({
    "object": "dry_run", "n_items": 1, "n_tokens": 3, "n_bytes": 2304, "items": [{
        "token_ids": [504, 414, 46682], "tokens": ["The", " E", "iffel"],
        "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "n_truncated": 0, "n_bytes": 2304,
        "interventions": [], "positions": 2, "hooks": [{"hook": "blocks.12.hook_resid_post", "shape": [576]}]
    }]
}), discriminator(property_name = "object", mapping(
    ("run" = "#/components/schemas/Run"), ("dry_run" = "#/components/schemas/DryRun")
)))]
#[expect(dead_code, reason = "only describes the answer for the specification")]
pub enum CreatedRun {
    /// The run.
    Run(Box<RunDto>),
    /// With `dry_run`.
    DryRun(DryRun),
}

/// What was generated after one input.
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

/// Status of a run.
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
    /// A run with its position in the queue.
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
            top_tokens: None,
        }
    }
}

/// Progress of a run: the data of an event named `run`.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunSnapshot {
    /// The run.
    #[serde(flatten)]
    pub run: RunDto,
    /// Tokens per second of recent batches of this server.
    pub tokens_per_second: f64,
    /// Estimated seconds until the run ends, from its speed so far; null before any input is done.
    pub eta_seconds: Option<f64>,
}

/// A generated token: the data of an event named `token`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "item": 3, "index": 1, "sample": 1, "position": 9, "token_id": 7042, "token": " Paris", "text": " Paris", "logprob": -0.52
}))]
pub struct TokenEvent {
    /// The item of the run: `index × n + sample`.
    pub item: u32,
    /// The input, counted from 0. Where a list of strengths makes several of an input, each of these counts.
    pub index: u32,
    /// Which of the input's `n` samples, counted from 0.
    pub sample: u32,
    /// Position of the token in the text.
    pub position: usize,
    /// The token.
    pub token_id: u32,
    /// Its text by itself; bytes that are not UTF-8 are U+FFFD.
    pub token: String,
    /// Text that is certain now: empty while a character is incomplete or a stop text may have begun. The texts of all
    /// events of an item are the text of its completion.
    pub text: String,
    /// The natural logarithm of the token's probability, before temperature; null if it is not a number.
    pub logprob: Option<f32>,
}

/// The end of one continuation: the data of an event named `completion`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "item": 3, "index": 1, "sample": 1, "finish_reason": "length", "text": "", "error": null
}))]
pub struct CompletionEvent {
    /// The item of the run: `index × n + sample`.
    pub item: u32,
    /// The input, counted from 0. Where a list of strengths makes several of an input, each of these counts.
    pub index: u32,
    /// Which of the input's `n` samples, counted from 0.
    pub sample: u32,
    /// Why it ended; null if it failed.
    #[schema(value_type = Option<FinishReasonSchema>)]
    pub finish_reason: Option<FinishReason>,
    /// Text that was held back until now; empty unless the run was cancelled.
    pub text: String,
    /// Why it failed.
    pub error: Option<ProblemDto>,
}

/// An event of a run.
#[derive(Serialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the stream for the specification")]
pub enum RunEvent {
    /// The run has changed.
    Run(Box<RunSnapshot>),
    /// A token was chosen.
    Token(TokenEvent),
    /// A continuation has ended.
    Completion(CompletionEvent),
}

/// What a run would store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "object": "dry_run", "n_items": 1, "n_tokens": 3, "n_bytes": 2304, "items": [{
        "token_ids": [504, 414, 46682], "tokens": ["The", " E", "iffel"],
        "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "n_truncated": 0, "n_bytes": 2304,
        "interventions": [], "positions": 2, "hooks": [{"hook": "blocks.12.hook_resid_post", "shape": [576]}]
    }]
}))]
pub struct DryRun {
    /// Always `dry_run`.
    #[schema(value_type = DryRunObject)]
    pub object: &'static str,
    /// Number of inputs.
    pub n_items: usize,
    /// Number of tokens of all inputs.
    pub n_tokens: usize,
    /// Bytes that the captures would take.
    pub n_bytes: u64,
    /// The first hundred inputs, in order.
    pub items: Vec<DryRunItem>,
}

/// What a run would store for one input.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRunItem {
    /// Token ids that the model would get.
    pub token_ids: Vec<u32>,
    /// The text of each token.
    pub tokens: Vec<String>,
    /// Whether there is a beginning-of-sequence token, and why.
    pub bos: super::cache::BosDto,
    /// Number of tokens that would be cut.
    pub n_truncated: u64,
    /// Bytes that its capture would take.
    pub n_bytes: u64,
    /// Changes during the forward pass, as the provenance of the cache would show them.
    pub interventions: Vec<Map<String, Value>>,
    /// Positions that would be kept, as the cache would show them.
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
