//! Body and query parameters of `POST /v1/runs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    annotations::check_annotations,
    capture::{CaptureDto, PositionsRequestSchema},
    chat::{Message, chat_end},
    generate::GenerateDto,
    input::{Input, InputSchema, TokenIds},
};
use crate::api::interventions::InterventionDto;
use residuum_domain::{Code, PositionsRequest, Priority, Problem, TenantId};
use residuum_engine::{Content, GivenTemplate, InputSpec, RunRequest, Truncate};

/// A run to queue. Exactly one of `input`, `messages` and `items` holds the inputs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "model": "smollm2-135m", "input": "The Eiffel Tower is in the city of",
    "capture": {"hooks": ["resid_post"], "layers": "all", "positions": "last", "dtype": "float32"},
    "tags": ["demo"], "metadata": {"any": "json"}
}))]
pub struct CreateRun {
    /// Name of a served model.
    pub model: String,
    /// A string, strings, token ids, or arrays of token ids.
    #[schema(value_type = Option<InputSchema>)]
    pub input: Option<Input>,
    /// One chat, rendered with the model's template.
    #[schema(value_type = Option<Vec<Message>>)]
    pub messages: Option<Vec<Map<String, Value>>>,
    /// Whether to add the tokens that start the assistant's turn; by default true unless the last message is the
    /// assistant's.
    pub add_generation_prompt: Option<bool>,
    /// Whether to leave the last message open, so that the model continues it: what the template puts after it is left
    /// out.
    #[serde(default)]
    #[schema(default = false)]
    pub continue_final_message: bool,
    /// Further variables for the chat template.
    pub template_kwargs: Option<Map<String, Value>>,
    /// A chat template to use instead of the model's own, as Jinja source. If the model has several templates: also the
    /// name of one of them; by default `tool_use` if `template_kwargs` has `tools`.
    pub chat_template: Option<String>,
    /// Inputs, each with its own positions, metadata, tags and label.
    #[schema(value_type = Option<Vec<ItemDto>>)]
    pub items: Option<Vec<ItemDto>>,
    /// Continue every input before it is captured.
    #[schema(value_type = Option<GenerateDto>)]
    pub generate: Option<GenerateDto>,
    /// Changes to activations during the forward pass of every input, in order; also while the model generates.
    #[serde(default)]
    #[schema(value_type = Vec<InterventionDto>)]
    pub interventions: Vec<InterventionDto>,
    /// What to capture; the residual stream after every block at the final position if left out.
    #[serde(default)]
    #[schema(value_type = CaptureDto)]
    pub capture: CaptureDto,
    /// Beginning-of-sequence token (`[CLS]` for BERT): null leaves the decision to the tokenizer, true makes sure the
    /// input begins with one, false leaves out all special tokens that the tokenizer would add to text.
    pub prepend_bos: Option<bool>,
    /// What to do with inputs longer than the context.
    #[schema(value_type = Option<TruncateSchema>)]
    #[serde(default)]
    pub truncate: Truncate,
    /// Whether stored activations may be used instead of a forward pass; false forces the forward pass.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub reuse: bool,
    /// How urgent the run is. `interactive` runs get most of the workers' time and `bulk` runs least, but every run
    /// gets some.
    #[schema(value_type = Option<PrioritySchema>)]
    #[serde(default)]
    pub priority: Priority,
    /// Tags for every cache of the run.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Metadata for the run and each of its caches.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Seconds after which each cache of the run expires, counted from when it is stored; never if left out.
    #[schema(minimum = 1, maximum = 3_153_600_000_u64)]
    pub ttl_seconds: Option<u64>,
}

fn yes() -> bool {
    true
}

/// One input with its own settings. Exactly one of `text`, `token_ids` and `messages`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Item)]
pub struct ItemDto {
    /// Text for the tokenizer.
    pub text: Option<String>,
    /// Token ids.
    #[schema(value_type = Option<Vec<u32>>)]
    pub token_ids: Option<TokenIds>,
    /// A chat.
    #[schema(value_type = Option<Vec<Message>>)]
    pub messages: Option<Vec<Map<String, Value>>>,
    /// Positions to keep, instead of the run's.
    #[schema(value_type = Option<PositionsRequestSchema>)]
    pub positions: Option<PositionsRequest>,
    /// Metadata, added to the run's; for equal keys this one applies.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Tags, added to the run's.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Label of the cache.
    pub label: Option<String>,
    /// Changes to activations of this input, applied after the run's.
    #[serde(default)]
    #[schema(value_type = Vec<InterventionDto>)]
    pub interventions: Vec<InterventionDto>,
}

/// What to do with inputs longer than the context.
#[derive(Serialize, ToSchema)]
#[schema(as = Truncate)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Truncate for the specification")]
pub enum TruncateSchema {
    /// Refuse them.
    Error,
    /// Drop tokens from the start, keeping a BOS token there.
    Left,
    /// Drop tokens from the end, keeping the special tokens that the tokenizer adds there.
    Right,
}

/// How urgent a run is.
#[derive(Serialize, ToSchema)]
#[schema(as = Priority)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes Priority for the specification")]
pub enum PrioritySchema {
    /// Someone waits for the result. While runs of all priorities wait, 16 tokens of interactive runs are computed for
    /// 4 tokens of normal runs and 1 token of bulk runs.
    Interactive,
    /// Between the two.
    Normal,
    /// The result is not urgent.
    Bulk,
}

/// A hundred years, so that adding it to the current time cannot overflow.
const MAX_TTL_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// Checks the time after which caches expire.
///
/// # Errors
/// [`Code::InvalidValue`].
pub fn check_ttl(seconds: Option<u64>) -> Result<(), Problem> {
    if seconds.is_none_or(|ttl| (1..=MAX_TTL_SECONDS).contains(&ttl)) {
        return Ok(());
    }
    let detail = format!("ttl_seconds must lie between 1 and {MAX_TTL_SECONDS}; leave it out to keep the caches");
    Err(Problem::at(Code::InvalidValue, "/ttl_seconds", detail))
}

impl CreateRun {
    /// Converts the body to a request of the engine.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] if the inputs are missing or given twice; [`Code::TooManyItems`] for more than
    /// `max_items`; [`Code::EmptyInput`] for empty lists; [`Code::InvalidValue`] for oversized annotations.
    pub fn into_request(self, tenant: TenantId, max_items: usize) -> Result<RunRequest, Problem> {
        check_annotations(&self.tags, None, &self.metadata)?;
        check_ttl(self.ttl_seconds)?;
        let given = [self.input.is_some(), self.messages.is_some(), self.items.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return Err(Problem::at(Code::InvalidBody, "/input", "give exactly one of input, messages and items"));
        }
        if self.messages.is_none()
            && self.items.is_none()
            && (self.add_generation_prompt.is_some()
                || self.continue_final_message
                || self.template_kwargs.is_some()
                || self.chat_template.is_some())
        {
            return Err(Problem::at(
                Code::InvalidBody,
                "/messages",
                "add_generation_prompt, continue_final_message, template_kwargs and chat_template need messages",
            ));
        }
        let n = match (&self.input, &self.items) {
            (Some(input), _) => input.len(),
            (_, Some(items)) => items.len(),
            _ => 1,
        };
        if n > max_items {
            let detail = format!("the run has {n} items; a run may have {max_items}");
            return Err(Problem::new(Code::TooManyItems, detail));
        }
        let end = chat_end(self.add_generation_prompt, self.continue_final_message)?;
        // compiled once for all inputs
        let chat_template = self.chat_template.map(GivenTemplate::new);
        let chat = |messages: Vec<Map<String, Value>>| Content::Messages {
            messages: messages.into_iter().map(Value::Object).collect(),
            end,
            template_kwargs: self.template_kwargs.clone().unwrap_or_default(),
            chat_template: chat_template.clone(),
        };
        let inputs = match (self.input, self.messages, self.items) {
            (Some(input), _, _) => inputs_of(input, "/input"),
            (_, Some(messages), _) => vec![InputSpec::new(String::new(), chat(messages))],
            (_, _, Some(items)) => items_of(items, chat)?,
            _ => Vec::new(),
        };
        if inputs.is_empty() {
            return Err(Problem::at(Code::EmptyInput, "/input", "there is no input"));
        }
        Ok(RunRequest {
            tenant,
            model: self.model,
            inputs,
            generation: self.generate.map(GenerateDto::into_generation).transpose()?,
            interventions: None,
            capture: self.capture.into(),
            prepend_bos: self.prepend_bos,
            truncate: self.truncate,
            reuse: self.reuse,
            priority: self.priority,
            tags: self.tags,
            metadata: self.metadata,
            ttl_seconds: self.ttl_seconds,
            idempotency: None,
        })
    }
}

/// The inputs of a field, which stands at this pointer; none if there is an empty array.
pub fn inputs_of(input: Input, at: &str) -> Vec<InputSpec> {
    let one = |content| vec![InputSpec::new(at.to_owned(), content)];
    let each = |contents: &mut dyn Iterator<Item = Content>| {
        contents.enumerate().map(|(i, content)| InputSpec::new(format!("{at}/{i}"), content)).collect()
    };
    match input {
        Input::Text(text) => one(Content::Text(text)),
        Input::TokenIds(ids) if ids.is_empty() => Vec::new(),
        Input::TokenIds(ids) => one(Content::TokenIds(ids)),
        Input::Texts(texts) => each(&mut texts.into_iter().map(Content::Text)),
        Input::TokenIdLists(lists) => each(&mut lists.into_iter().map(Content::TokenIds)),
    }
}

fn items_of(items: Vec<ItemDto>, chat: impl Fn(Vec<Map<String, Value>>) -> Content) -> Result<Vec<InputSpec>, Problem> {
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| {
            let pointer = format!("/items/{i}");
            let ItemDto { text, token_ids, messages, positions, metadata, tags, label, interventions: _ } = item;
            check_annotations(&tags, label.as_deref(), &metadata).map_err(|p| p.under(&pointer))?;
            let content = match (text, token_ids, messages) {
                (Some(text), None, None) => Content::Text(text),
                (None, Some(TokenIds(ids)), None) => Content::TokenIds(ids),
                (None, None, Some(messages)) => chat(messages),
                _ => {
                    return Err(Problem::at(
                        Code::InvalidBody,
                        pointer,
                        "an item has exactly one of text, token_ids and messages",
                    ));
                }
            };
            Ok(InputSpec { pointer, content, positions, tags, metadata, label })
        })
        .collect()
}

/// Query parameters of a posted run.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CreateRunQuery {
    /// Seconds to wait for the run to end, at most 600: the status is 201 if it has ended, 202 otherwise.
    #[param(minimum = 0, maximum = 600, example = 30)]
    pub wait: Option<f64>,
    /// What the response includes besides the run, if the run has ended: `values`, `top_tokens`, or both (repeated, or
    /// with a comma between them).
    #[serde(default)]
    #[param(value_type = Option<Vec<Include>>, example = json!(["top_tokens"]))]
    pub include: Vec<String>,
    /// With `include=top_tokens`: how many tokens of each cache.
    #[param(minimum = 1, maximum = 100, default = 10)]
    pub top_k: Option<usize>,
    /// true: answer what the run would store, and do not queue it.
    pub dry_run: Option<bool>,
}

/// What a response includes besides the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// The captured tensors.
    Values,
    /// The most probable next tokens, from the captured `logits`.
    TopTokens,
}

/// What the description of a run's caches includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IncludeTopTokens {
    /// The most probable next tokens, from the captured `logits`.
    TopTokens,
}

/// What a response includes besides the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Included {
    /// Whether it includes the captured tensors.
    pub values: bool,
    /// How many of the most probable next tokens it includes.
    pub top_tokens: Option<usize>,
}

/// Default number of most probable tokens.
const DEFAULT_TOP_K: usize = 10;
/// Maximum number of most probable tokens.
const MAX_TOP_K: usize = 100;

impl Included {
    /// Reads `include` and `top_k`.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] for an unknown word, for `top_k` outside 1 to 100 or without `top_tokens`.
    pub fn read(include: &[String], top_k: Option<usize>) -> Result<Self, Problem> {
        let wrong = |name: &str, detail: String| Problem::at(Code::InvalidQuery, name, detail);
        let mut included = Self::default();
        for word in include.iter().flat_map(|words| words.split(',')) {
            match word.trim() {
                "values" => included.values = true,
                "top_tokens" => included.top_tokens = Some(top_k.unwrap_or(DEFAULT_TOP_K)),
                _ => return Err(wrong("include", "include is values, top_tokens, or both".to_owned())),
            }
        }
        match top_k {
            Some(k) if !(1..=MAX_TOP_K).contains(&k) => {
                Err(wrong("top_k", format!("top_k is {k}; it must lie between 1 and {MAX_TOP_K}")))
            }
            Some(_) if included.top_tokens.is_none() => {
                Err(wrong("top_k", "top_k needs include=top_tokens".to_owned()))
            }
            _ => Ok(included),
        }
    }

    /// Reads `include` and `top_k` where tensors cannot be included.
    ///
    /// # Errors
    /// As [`Self::read`], and for `values`.
    pub fn read_top_tokens(include: &[String], top_k: Option<usize>) -> Result<Option<usize>, Problem> {
        let included = Self::read(include, top_k)?;
        if included.values {
            let detail = "only top_tokens can be included here; fetch the tensors of each cache, or of the run";
            return Err(Problem::at(Code::InvalidQuery, "include", detail));
        }
        Ok(included.top_tokens)
    }
}
