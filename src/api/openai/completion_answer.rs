//! The answer of `POST /openai/v1/completions`, whole or in chunks.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    answer_parts::{FinishReasonName, Head, Usage, finite},
    pieces::{Piece, ScoredToken},
    recording::Recorded,
};

/// Continuations of prompts. In a stream, each chunk has this form: a choice has the text and the tokens since the chunk
/// before.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiCompletion, example = json!({
    "id": "cmpl-0198c5a0-5b3f-7d51-8a3e-0242ac120002", "object": "text_completion", "created": 1_795_000_000, "model": "smollm2-135m",
    "system_fingerprint": "fp_d18fcfc1a1be850d",
    "choices": [{"index": 0, "text": " Paris.", "finish_reason": "length", "logprobs": {
        "tokens": [" Paris", "."], "token_logprobs": [-0.52, -1.9], "top_logprobs": [{" Paris": -0.52}, {",": -0.4, ".": -1.9}],
        "text_offset": [0, 6]
    }}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
}))]
pub struct Completion {
    /// `cmpl-` and the id of the run, if it is stored.
    id: String,
    /// Always `text_completion`.
    object: &'static str,
    /// When the generation began, in seconds since 1970.
    created: u64,
    /// Name of the model.
    model: String,
    /// `fp_` and the first digits of the model's fingerprint.
    system_fingerprint: String,
    /// Choice `i × n + s` is sample `s` of prompt `i`.
    choices: Vec<CompletionChoice>,
    /// Counts of tokens. In a stream only with `include_usage`; null until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    usage: Option<Option<Usage>>,
    /// Where the generation is stored, if the request had `residuum`. In a stream in the last chunk, which has no choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    residuum: Option<Recorded>,
}

/// One continuation.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiCompletionChoice)]
pub struct CompletionChoice {
    /// Its index.
    index: usize,
    /// Its text, after the prompt if `echo` is set.
    text: String,
    /// Log-probabilities, if asked for.
    logprobs: Option<TextLogprobs>,
    /// Why it ended: `stop`, `length` or `cancelled`; null before its last chunk.
    #[schema(value_type = Option<FinishReasonName>)]
    finish_reason: Option<&'static str>,
}

/// The tokens of a continuation, with those of the prompt if `echo` is set, and of the end of the text or a stop text if
/// there was one.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = OpenAiTextLogprobs)]
pub struct TextLogprobs {
    /// The tokens; `bytes:\xNN…` if the bytes of one are no whole characters.
    tokens: Vec<String>,
    /// Their log-probabilities, before temperature; null for the first token of a prompt.
    token_logprobs: Vec<Option<f32>>,
    /// For each token the most probable ones in its place, and itself; null for the first token of a prompt.
    #[schema(value_type = Vec<Option<std::collections::BTreeMap<String, f32>>>)]
    top_logprobs: Vec<Option<TopLogprobs>>,
    /// Where each token begins in the text, in code points.
    text_offset: Vec<usize>,
}

/// Tokens with their log-probabilities, an object in JSON.
#[derive(Debug)]
struct TopLogprobs(Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl TextLogprobs {
    fn push(&mut self, token: ScoredToken) {
        let ScoredToken { token, logprob, top, offset } = token;
        self.top_logprobs.push(logprob.map(|own| {
            let mut listed: Vec<(String, f32)> = Vec::with_capacity(top.len() + 1);
            for (other, logprob) in top {
                // of two tokens with the same text, the more probable one; but the token itself has its own
                if other.text != token.text && listed.iter().all(|(text, _)| *text != other.text) {
                    listed.push((other.text, finite(logprob)));
                }
            }
            let place = listed.partition_point(|(_, logprob)| *logprob >= finite(own));
            listed.insert(place, (token.text.clone(), finite(own)));
            TopLogprobs(listed)
        }));
        self.tokens.push(token.text);
        self.token_logprobs.push(logprob.map(finite));
        self.text_offset.push(offset);
    }
}

impl CompletionChoice {
    /// A choice of which nothing is there yet.
    pub fn empty(index: usize, logprobs: bool) -> Self {
        Self { index, logprobs: logprobs.then(TextLogprobs::default), ..Self::default() }
    }

    /// Appends what came.
    pub fn add(&mut self, piece: Piece) {
        let Piece { text, tokens, finish_reason, .. } = piece;
        self.text.push_str(&text);
        if let Some(logprobs) = &mut self.logprobs {
            tokens.into_iter().for_each(|token| logprobs.push(token));
        }
        self.finish_reason = finish_reason.or(self.finish_reason);
    }

    /// What came, as the choice of a chunk.
    pub fn chunk(piece: Piece) -> Self {
        let mut choice = Self::empty(piece.index, !piece.tokens.is_empty());
        choice.add(piece);
        choice
    }
}

impl Completion {
    /// An answer or a chunk.
    pub fn new(
        head: &Head,
        choices: Vec<CompletionChoice>,
        usage: Option<Option<Usage>>,
        residuum: Option<Recorded>,
    ) -> Self {
        let Head { id, created, model, system_fingerprint } = head.clone();
        Self { id, object: "text_completion", created, model, system_fingerprint, choices, usage, residuum }
    }
}
