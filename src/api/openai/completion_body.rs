//! The body of `POST /openai/v1/completions`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    asked::{Asked, Form},
    neutral_fields::{neutral, no_entries, no_penalty},
    recording::Recording,
    sampling::{Delivery, Sampling, StreamOptions, top_of},
};
use crate::api::dto::{
    generate::{Stop, StopSchema},
    input::{Input, InputSchema},
    run_body::{TruncateSchema, inputs_of},
};
use residuum_domain::{Code, Problem, Scoring, TenantId};
use residuum_engine::{RunRequest, Truncate};

/// Tokens that are generated if a request does not say how many: as OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;
/// The name of the field with the maximum number of tokens.
const LIMIT_FIELD: &str = "max_tokens";

/// Prompts to continue. Fields that are marked so are extensions to OpenAI's API.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAiCompletionRequest, example = json!({
    "model": "smollm2-135m", "prompt": "The Eiffel Tower is in the city of", "max_tokens": 8, "temperature": 0, "logprobs": 1
}))]
pub struct CompletionBody {
    /// Name of a served model.
    model: String,
    /// A string, strings, token ids, or arrays of token ids. Ids are used as they are.
    #[schema(value_type = InputSchema)]
    prompt: Input,
    /// Maximum number of tokens to generate; 16 if left out. 0 generates nothing: then the prompt is only scored.
    #[schema(minimum = 0)]
    max_tokens: Option<usize>,
    /// 0 always takes the most probable token; 1 if left out.
    #[schema(minimum = 0, maximum = 100)]
    temperature: Option<f64>,
    /// Samples from the smallest set of most probable tokens whose probabilities add up to at least this.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Samples from this many of the most probable tokens. An extension.
    #[schema(minimum = 1)]
    top_k: Option<usize>,
    /// How many continuations of each prompt.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<u32>,
    /// Whether to send the answer in parts, as server-sent events.
    #[serde(default)]
    #[schema(default = false)]
    stream: bool,
    /// Options of an answer in parts.
    stream_options: Option<StreamOptions>,
    /// How many of the most probable tokens to list beside each token. If given, also 0, log-probabilities are answered.
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<usize>,
    /// Whether the text, and the log-probabilities if asked for, begin with the prompt.
    #[serde(default)]
    #[schema(default = false)]
    echo: bool,
    /// One text or several that end a continuation; at most 16.
    #[serde(default)]
    #[schema(value_type = Option<StopSchema>)]
    stop: Stop,
    /// Seed of sampling, to repeat it; random if left out.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    seed: Option<u64>,
    /// Only as many as `n`: no continuation is left out.
    best_of: Option<u32>,
    /// Only empty.
    suffix: Option<String>,
    /// Only 0.
    presence_penalty: Option<f64>,
    /// Only 0.
    frequency_penalty: Option<f64>,
    /// Only empty.
    logit_bias: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted; nothing depends on it")]
    user: Option<String>,
    /// Beginning-of-sequence token, as in `POST /v1/runs`: if left out, the tokenizer's own rule for text, and none for ids.
    /// An extension.
    prepend_bos: Option<bool>,
    /// What to do with prompts longer than the context. An extension.
    #[serde(default)]
    #[schema(value_type = Option<TruncateSchema>)]
    truncate: Truncate,
    /// What to store of the generation; nothing if left out. An extension.
    #[schema(value_type = Option<Recording>)]
    residuum: Option<Recording>,
}

impl CompletionBody {
    /// Checks the fields and converts them to a request of the engine.
    ///
    /// # Errors
    /// Those of the fields, with a pointer into the body.
    pub fn into_asked(self, tenant: TenantId) -> Result<Asked, Problem> {
        self.check_neutral()?;
        let delivery = Delivery::of(self.stream, self.stream_options.as_ref())?;
        let top = self.logprobs.map(|top| top_of("logprobs", top)).transpose()?;
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        if max_tokens == 0 && self.residuum.is_some() {
            let detail = "a generation that is stored has at least one token; post a run to capture a prompt alone";
            return Err(Problem::at(Code::InvalidValue, "/max_tokens", detail));
        }
        let inputs = inputs_of(self.prompt, "/prompt");
        if inputs.is_empty() {
            return Err(Problem::at(Code::EmptyInput, "/prompt", "there is no prompt"));
        }
        let Self { n, temperature, top_k, top_p, seed, stop, .. } = self;
        let max_tokens = Some(max_tokens);
        let sampling = Sampling { limit_field: LIMIT_FIELD, max_tokens, n, temperature, top_k, top_p, seed, stop };
        let run = RunRequest {
            generation: Some(sampling.generation()?),
            prepend_bos: self.prepend_bos,
            truncate: self.truncate,
            ..RunRequest::new(tenant, &self.model, inputs)
        };
        Ok(Asked {
            run,
            scoring: Scoring { prompt: self.echo && top.is_some(), top: top.unwrap_or(0) },
            form: Form::Text,
            delivery,
            echo: self.echo,
            logprobs: top.is_some(),
            limit_field: LIMIT_FIELD,
            recording: self.residuum,
        })
    }

    /// Refuses unusual values of fields that nothing acts on.
    fn check_neutral(&self) -> Result<(), Problem> {
        neutral("best_of", self.best_of.is_none_or(|best| best == self.n.unwrap_or(1)), "the value of `n`")?;
        neutral("suffix", self.suffix.as_ref().is_none_or(String::is_empty), "null")?;
        no_penalty("presence_penalty", self.presence_penalty)?;
        no_penalty("frequency_penalty", self.frequency_penalty)?;
        no_entries("logit_bias", self.logit_bias.as_ref())
    }
}
