//! Parts that all answers to completions have.

use serde::Serialize;
use utoipa::ToSchema;

use residuum_domain::RunId;

/// OpenAI's number for a log-probability that is not a finite number, which JSON does not have.
const LOWEST: f32 = -9999.0;

/// A log-probability as a number that JSON has.
pub fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LOWEST }
}

/// Counts of tokens.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = OpenAiUsage, example = json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}))]
pub struct Usage {
    /// Tokens of all prompts; each prompt counts once, however many samples it has.
    prompt_tokens: usize,
    /// Generated tokens of all choices, with those that ended a text.
    completion_tokens: usize,
    /// The sum of both.
    total_tokens: usize,
}

impl Usage {
    pub fn of((prompt_tokens, completion_tokens): (usize, usize)) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// What the answer and all its chunks begin with.
#[derive(Debug, Clone)]
pub struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub system_fingerprint: String,
}

/// Digits of a model's fingerprint in an answer.
const FINGERPRINT_DIGITS: usize = 16;

impl Head {
    /// `kind` is the beginning of the id.
    pub fn new(kind: &str, run: RunId, model: &str, fingerprint: &str) -> Self {
        let since = run.made_at().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let digits: String = fingerprint.chars().take(FINGERPRINT_DIGITS).collect();
        Self {
            id: format!("{kind}-{run}"),
            created: since.as_secs(),
            model: model.to_owned(),
            system_fingerprint: format!("fp_{digits}"),
        }
    }
}

/// Reasons why a choice ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = OpenAiFinishReason)]
#[expect(dead_code, reason = "only describes finish_reason for the specification")]
pub enum FinishReasonName {
    /// The model ended its text, or a stop text appeared.
    Stop,
    /// The maximum number of tokens was reached.
    Length,
    /// The run was cancelled.
    Cancelled,
}
