//! The body of `POST /openai/v1/chat/completions`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    asked::{Asked, Form},
    chat_messages::for_template,
    neutral_fields::{neutral, no_entries, no_penalty, one_of_words},
    recording::Recording,
    sampling::{Delivery, Sampling, StreamOptions, top_of},
};
use crate::api::dto::{
    chat::chat_end,
    generate::{Stop, StopSchema},
    run_body::TruncateSchema,
};
use residuum_domain::{Code, Problem, Scoring, TenantId};
use residuum_engine::{Content, GivenTemplate, InputSpec, RunRequest, Truncate};

/// A chat to continue. Fields that are marked so are extensions to OpenAI's API.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAiChatRequest, example = json!({
    "model": "smollm2-135m", "messages": [{"role": "user", "content": "Where is the Eiffel Tower?"}], "max_completion_tokens": 32
}))]
pub struct ChatBody {
    /// Name of a served model.
    model: String,
    /// The chat, rendered with the model's template. A content is a string, or parts of type `text`, which are joined.
    #[schema(value_type = Vec<ChatMessageSchema>)]
    messages: Vec<Map<String, Value>>,
    /// Maximum number of tokens to generate; what is left of the context if left out.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<usize>,
    /// An older name of `max_completion_tokens`.
    #[schema(minimum = 1)]
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
    /// How many answers to generate.
    #[schema(minimum = 1, maximum = 128)]
    n: Option<u32>,
    /// Whether to send the answer in parts, as server-sent events.
    #[serde(default)]
    #[schema(default = false)]
    stream: bool,
    /// Options of an answer in parts.
    stream_options: Option<StreamOptions>,
    /// One text or several that end the answer; at most 16.
    #[serde(default)]
    #[schema(value_type = Option<StopSchema>)]
    stop: Stop,
    /// Seed of sampling, to repeat it; random if left out.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    seed: Option<u64>,
    /// Whether to answer the log-probability of each generated token.
    #[serde(default)]
    #[schema(default = false)]
    logprobs: bool,
    /// How many of the most probable tokens to list beside each token; needs `logprobs`.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<usize>,
    /// Tools for the template, which decides how the model gets to know them. Answers are text: calls in it are not parsed.
    tools: Option<Vec<Map<String, Value>>>,
    /// `auto`, or `none`: then the template gets no tools.
    tool_choice: Option<Value>,
    /// Accepted: answers are text.
    #[expect(dead_code, reason = "accepted; nothing depends on it")]
    parallel_tool_calls: Option<bool>,
    /// Only `{"type": "text"}`.
    response_format: Option<Map<String, Value>>,
    /// Only 0.
    presence_penalty: Option<f64>,
    /// Only 0.
    frequency_penalty: Option<f64>,
    /// Only empty.
    logit_bias: Option<Map<String, Value>>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted; nothing depends on it")]
    user: Option<String>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted; nothing depends on it")]
    safety_identifier: Option<String>,
    /// Accepted and not used.
    #[expect(dead_code, reason = "accepted; nothing depends on it")]
    prompt_cache_key: Option<String>,
    /// Only false: `residuum` stores a generation.
    store: Option<bool>,
    /// Only empty: metadata of what is stored is in `residuum`.
    metadata: Option<Map<String, Value>>,
    /// Only `auto` or `default`.
    service_tier: Option<String>,
    /// Only `none`.
    reasoning_effort: Option<String>,
    /// Only `medium`.
    verbosity: Option<String>,
    /// Only `["text"]`.
    modalities: Option<Vec<String>>,
    /// Only null.
    audio: Option<Map<String, Value>>,
    /// Only null.
    prediction: Option<Map<String, Value>>,
    /// Only null.
    web_search_options: Option<Map<String, Value>>,
    /// A chat template to use instead of the model's own, as in `POST /v1/runs`. An extension.
    chat_template: Option<String>,
    /// Further variables for the template. An extension.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether to add the tokens that start the assistant's turn; by default true unless the last message is the
    /// assistant's. An extension.
    add_generation_prompt: Option<bool>,
    /// Whether to leave the last message open, so that the model continues it. An extension.
    #[serde(default)]
    #[schema(default = false)]
    continue_final_message: bool,
    /// Beginning-of-sequence token, as in `POST /v1/runs`. An extension.
    prepend_bos: Option<bool>,
    /// What to do with a chat longer than the context. An extension.
    #[serde(default)]
    #[schema(value_type = Option<TruncateSchema>)]
    truncate: Truncate,
    /// What to store of the generation; nothing if left out. An extension.
    #[schema(value_type = Option<Recording>)]
    residuum: Option<Recording>,
}

/// A message of a chat; the model's template may know further fields.
#[derive(serde::Serialize, ToSchema)]
#[schema(as = OpenAiMessage, example = json!({"role": "user", "content": "Where is the Eiffel Tower?"}))]
pub struct ChatMessageSchema {
    /// `system`, `developer`, `user`, `assistant`, `tool`, …
    pub role: String,
    /// The text; may be null in a message that calls tools.
    pub content: Option<ContentSchema>,
}

/// The text of a message.
#[derive(serde::Serialize, ToSchema)]
#[schema(as = OpenAiContent)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes messages for the specification")]
pub enum ContentSchema {
    /// As a string.
    Text(String),
    /// In parts.
    Parts(Vec<ContentPartSchema>),
}

/// A part of a text.
#[derive(serde::Serialize, ToSchema)]
#[schema(as = OpenAiContentPart)]
pub struct ContentPartSchema {
    /// Always `text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: String,
}

impl ChatBody {
    /// Checks the fields and converts them to a request of the engine.
    ///
    /// # Errors
    /// Those of the fields, with a pointer into the body.
    pub fn into_asked(mut self, tenant: TenantId) -> Result<Asked, Problem> {
        self.check_neutral()?;
        let delivery = Delivery::of(self.stream, self.stream_options.as_ref())?;
        let top = self.top()?;
        let (limit_field, max_tokens) = match (self.max_completion_tokens, self.max_tokens) {
            (Some(n), Some(other)) if n != other => {
                let detail = "max_tokens is an older name of max_completion_tokens; give one of them";
                return Err(Problem::at(Code::InvalidBody, "/max_tokens", detail));
            }
            (None, Some(n)) => ("max_tokens", Some(n)),
            (n, _) => ("max_completion_tokens", n),
        };
        if max_tokens == Some(0) {
            let detail = format!("{limit_field} is at least 1");
            return Err(Problem::at(Code::InvalidValue, format!("/{limit_field}"), detail));
        }
        let template_kwargs = self.template_variables()?;
        let content = Content::Messages {
            messages: for_template(self.messages)?,
            end: chat_end(self.add_generation_prompt, self.continue_final_message)?,
            template_kwargs,
            chat_template: self.chat_template.map(GivenTemplate::new),
        };
        let Self { n, temperature, top_k, top_p, seed, stop, .. } = self;
        let sampling = Sampling { limit_field, max_tokens, n, temperature, top_k, top_p, seed, stop };
        let run = RunRequest {
            generation: Some(sampling.generation()?),
            prepend_bos: self.prepend_bos,
            truncate: self.truncate,
            ..RunRequest::new(tenant, &self.model, vec![InputSpec::new(String::new(), content)])
        };
        let scoring = Scoring { prompt: false, top: top.unwrap_or(0) };
        let (form, logprobs) = (Form::Chat, top.is_some());
        Ok(Asked { run, scoring, form, delivery, echo: false, logprobs, limit_field, recording: self.residuum })
    }

    /// Refuses unusual values of fields that nothing acts on.
    fn check_neutral(&self) -> Result<(), Problem> {
        no_penalty("presence_penalty", self.presence_penalty)?;
        no_penalty("frequency_penalty", self.frequency_penalty)?;
        no_entries("logit_bias", self.logit_bias.as_ref())?;
        neutral("store", self.store != Some(true), "false; `residuum` stores a generation")?;
        no_entries("metadata", self.metadata.as_ref())?;
        one_of_words("service_tier", self.service_tier.as_deref(), &["auto", "default"])?;
        one_of_words("reasoning_effort", self.reasoning_effort.as_deref(), &["none"])?;
        one_of_words("verbosity", self.verbosity.as_deref(), &["medium"])?;
        neutral("modalities", self.modalities.as_ref().is_none_or(|m| *m == ["text"]), "[\"text\"]")?;
        neutral("audio", self.audio.is_none(), "null")?;
        neutral("prediction", self.prediction.is_none(), "null")?;
        neutral("web_search_options", self.web_search_options.is_none(), "null")?;
        let is_text =
            |format: &Map<String, Value>| format.get("type").is_some_and(|t| t == "text") && format.len() == 1;
        neutral("response_format", self.response_format.as_ref().is_none_or(is_text), "{\"type\": \"text\"}")?;
        let chosen = self.tool_choice.as_ref();
        neutral("tool_choice", chosen.is_none_or(|c| c == "auto" || c == "none"), "\"auto\" or \"none\"")
    }

    /// How many of the most probable tokens to list; `None` if no log-probabilities are wanted.
    fn top(&self) -> Result<Option<usize>, Problem> {
        match (self.logprobs, self.top_logprobs) {
            (true, top) => top_of("top_logprobs", top.unwrap_or(0)).map(Some),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => {
                let detail = "top_logprobs needs `logprobs`: set it to true";
                Err(Problem::at(Code::InvalidValue, "/top_logprobs", detail))
            }
        }
    }

    /// Variables for the template: those of the body, and the tools.
    fn template_variables(&mut self) -> Result<Map<String, Value>, Problem> {
        let mut variables = self.chat_template_kwargs.take().unwrap_or_default();
        let tools = self.tools.take().filter(|tools| !tools.is_empty());
        let Some(tools) = tools.filter(|_| self.tool_choice.as_ref().is_none_or(|choice| choice != "none")) else {
            return Ok(variables);
        };
        let tools = tools.into_iter().map(Value::Object).collect();
        if variables.insert("tools".to_owned(), tools).is_some() {
            let detail = "tools are given twice: in `tools` and in `chat_template_kwargs`";
            return Err(Problem::at(Code::InvalidBody, "/tools", detail));
        }
        Ok(variables)
    }
}
