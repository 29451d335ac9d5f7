//! The answer of `POST /openai/v1/chat/completions`, whole or in chunks.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer_parts::{FinishReasonName, Head, Usage, finite},
    pieces::{Piece, ScoredToken, WrittenForm},
    recording::Recorded,
};

/// Answers to a chat.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChatCompletion, example = json!({
    "id": "chatcmpl-0198c5a0-5b3f-7d51-8a3e-0242ac120002", "object": "chat.completion", "created": 1_795_000_000,
    "model": "smollm2-135m", "system_fingerprint": "fp_d18fcfc1a1be850d",
    "choices": [{
        "index": 0, "message": {"role": "assistant", "content": "In Paris.", "refusal": null}, "logprobs": null,
        "finish_reason": "stop"
    }],
    "usage": {"prompt_tokens": 36, "completion_tokens": 4, "total_tokens": 40}
}))]
pub struct ChatCompletion {
    /// `chatcmpl-` and the id of the run, if it is stored.
    id: String,
    /// Always `chat.completion`.
    object: &'static str,
    /// When the generation began, in seconds since 1970.
    created: u64,
    /// Name of the model.
    model: String,
    /// `fp_` and the first digits of the model's fingerprint.
    system_fingerprint: String,
    /// The answers, by their index.
    choices: Vec<ChatChoice>,
    /// Counts of tokens.
    usage: Usage,
    /// Where the generation is stored, if the request had `residuum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    residuum: Option<Recorded>,
}

/// One answer.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiChatChoice)]
pub struct ChatChoice {
    /// Its index.
    index: usize,
    /// The message.
    message: AnswerMessage,
    /// Log-probabilities, if asked for.
    logprobs: Option<ChatLogprobs>,
    /// Why it ended: `stop`, `length` or `cancelled`.
    #[schema(value_type = FinishReasonName)]
    finish_reason: &'static str,
}

/// The message of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiAnswerMessage)]
struct AnswerMessage {
    /// Always `assistant`.
    role: &'static str,
    /// The text.
    content: String,
    /// Always null.
    refusal: Option<String>,
}

/// Log-probabilities of an answer's tokens, with those of the end of the text or a stop text if there was one.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiChatLogprobs)]
pub struct ChatLogprobs {
    /// One for each generated token.
    content: Vec<ChatToken>,
    /// Always null.
    refusal: Option<String>,
}

/// A generated token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChatToken)]
struct ChatToken {
    /// Its text; `bytes:\xNN…` if its bytes are no whole characters.
    token: String,
    /// Its log-probability, before temperature.
    logprob: f32,
    /// Its bytes.
    bytes: Vec<u8>,
    /// The most probable tokens in its place, most probable first.
    top_logprobs: Vec<TopToken>,
}

/// A token in the place of another.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiTopToken)]
struct TopToken {
    /// Its text.
    token: String,
    /// Its log-probability.
    logprob: f32,
    /// Its bytes.
    bytes: Vec<u8>,
}

/// A part of answers to a chat.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChatChunk, example = json!({
    "id": "chatcmpl-0198c5a0-5b3f-7d51-8a3e-0242ac120002", "object": "chat.completion.chunk", "created": 1_795_000_000,
    "model": "smollm2-135m", "system_fingerprint": "fp_d18fcfc1a1be850d",
    "choices": [{"index": 0, "delta": {"content": " Paris"}, "logprobs": null, "finish_reason": null}]
}))]
pub struct ChatChunk {
    /// As in a whole answer, the same for all chunks.
    id: String,
    /// Always `chat.completion.chunk`.
    object: &'static str,
    /// When the generation began, in seconds since 1970.
    created: u64,
    /// Name of the model.
    model: String,
    /// `fp_` and the first digits of the model's fingerprint.
    system_fingerprint: String,
    /// One choice; none in the last chunk with counts or `residuum`.
    choices: Vec<ChunkChoice>,
    /// Counts of tokens, only with `include_usage`; null until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    usage: Option<Option<Usage>>,
    /// Where the generation is stored, in the last chunk, if the request had `residuum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    residuum: Option<Recorded>,
}

/// What is new of one answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiChunkChoice)]
pub struct ChunkChoice {
    /// Its index.
    index: usize,
    /// What to append to the message.
    delta: Delta,
    /// Log-probabilities of the new tokens, if asked for.
    logprobs: Option<ChatLogprobs>,
    /// Why it ended, in its last chunk.
    #[schema(value_type = Option<FinishReasonName>)]
    finish_reason: Option<&'static str>,
}

/// What to append to a message.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiDelta)]
struct Delta {
    /// `assistant`, in the first chunk of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// New text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

impl From<ScoredToken> for ChatToken {
    fn from(token: ScoredToken) -> Self {
        let ScoredToken { token, logprob, top, .. } = token;
        let top_logprobs = top
            .into_iter()
            .map(|(WrittenForm { text, bytes }, logprob)| TopToken { token: text, logprob: finite(logprob), bytes })
            .collect();
        let logprob = finite(logprob.unwrap_or(f32::NEG_INFINITY));
        Self { token: token.text, logprob, bytes: token.bytes, top_logprobs }
    }
}

impl ChatChoice {
    /// An answer of which nothing is there yet.
    pub fn empty(index: usize, logprobs: bool) -> Self {
        let message = AnswerMessage { role: "assistant", ..AnswerMessage::default() };
        Self { index, message, logprobs: logprobs.then(ChatLogprobs::default), finish_reason: "" }
    }

    /// Appends what came.
    pub fn add(&mut self, piece: Piece) {
        let Piece { text, tokens, finish_reason, .. } = piece;
        self.message.content.push_str(&text);
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.content.extend(tokens.into_iter().map(ChatToken::from));
        }
        self.finish_reason = finish_reason.unwrap_or(self.finish_reason);
    }
}

impl ChatCompletion {
    /// A whole answer.
    pub fn new(head: &Head, choices: Vec<ChatChoice>, usage: Usage, residuum: Option<Recorded>) -> Self {
        let Head { id, created, model, system_fingerprint } = head.clone();
        Self { id, object: "chat.completion", created, model, system_fingerprint, choices, usage, residuum }
    }
}

impl ChunkChoice {
    /// The first chunk of an answer.
    pub fn opening(index: usize) -> Self {
        let delta = Delta { role: Some("assistant"), content: Some(String::new()) };
        Self { index, delta, logprobs: None, finish_reason: None }
    }

    /// What came.
    pub fn of(piece: Piece) -> Self {
        let Piece { index, text, tokens, finish_reason } = piece;
        let logprobs = (!tokens.is_empty())
            .then(|| ChatLogprobs { content: tokens.into_iter().map(ChatToken::from).collect(), refusal: None });
        let is_text = !text.is_empty() || logprobs.is_some();
        Self { index, delta: Delta { role: None, content: is_text.then_some(text) }, logprobs, finish_reason }
    }
}

impl ChatChunk {
    /// A chunk.
    pub fn new(
        head: &Head,
        choices: Vec<ChunkChoice>,
        usage: Option<Option<Usage>>,
        residuum: Option<Recorded>,
    ) -> Self {
        let Head { id, created, model, system_fingerprint } = head.clone();
        Self { id, object: "chat.completion.chunk", created, model, system_fingerprint, choices, usage, residuum }
    }
}
