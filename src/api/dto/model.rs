//! Models and tokenisation in requests and responses.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    cache::BosDto,
    chat::Message,
    input::{Input, InputSchema, TokenIds},
    serving::{ReadyStatus, ServingDto, UnreadyStatus},
    warning::WarningDto,
};
use residuum_engine::questions::{
    served_models::{LoadedModel, ServedModel},
    tokenize::{self, TokenizeAnswer},
};

fn example() -> Value {
    json!({
        "id": "smollm2-135m", "status": "ready", "source": null, "at_run_time": false, "memory_bytes": null, "progress": null,
        "error": null, "architecture": "llama",
        "fingerprint": "d18fcfc1a1be850dc2dee03adf277d2a72baf4de46a48a9ede5add0976bdcc9e", "n_layers": 30, "d_model": 576,
        "n_heads": 9, "n_kv_heads": 3, "d_head": 64, "d_mlp": 1536, "d_vocab": 49152, "n_ctx": 8192,
        "n_experts": 0, "top_k": 0,
        "bidirectional": false, "n_params": 134515008, "weights_dtype": "Q4_1+Q8_0+float32",
        "compute_dtype": "float32", "device": "cpu",
        "bos": {"adds_bos": false, "token_id": 1, "token": "<|im_start|>", "transformer_lens_adds_bos": true},
        "has_chat_template": true, "warnings": [],
        "hooks": [{"hook": "blocks.0.hook_resid_post", "layer": 0, "shape": [null, 576], "axes": ["pos", "d_model"]}]
    })
}

fn example_of_several() -> Value {
    let mut listed = example();
    if let Some(fields) = listed.as_object_mut() {
        fields.shift_remove("hooks");
    }
    json!({"items": [listed], "next_cursor": null})
}

/// A model of this server; `status` decides what is known about it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Model, example = example, discriminator(property_name = "status", mapping(
    ("ready" = "#/components/schemas/ReadyModel"),
    ("loading" = "#/components/schemas/UnreadyModel"),
    ("unloading" = "#/components/schemas/UnreadyModel"),
    ("failed" = "#/components/schemas/UnreadyModel")
)))]
pub enum ModelDto {
    /// It computes runs.
    Ready(Box<ReadyModel>),
    /// It computes no new runs.
    Unready(Box<UnreadyModel>),
}

/// A model that is loaded and takes requests.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(example = example)]
pub struct ReadyModel {
    /// The name to use in requests.
    pub id: String,
    /// `ready`.
    #[schema(value_type = ReadyStatus)]
    pub status: &'static str,
    /// How it is served.
    #[serde(flatten)]
    pub serving: ServingDto,
    /// Its properties.
    #[serde(flatten)]
    pub details: ModelDetails,
}

/// A model that is being loaded or unloaded, or could not be loaded.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct UnreadyModel {
    /// The name to use in requests.
    pub id: String,
    /// `loading`, `unloading` (accepted work ends first) or `failed`.
    #[schema(value_type = UnreadyStatus)]
    pub status: &'static str,
    /// How it is served.
    #[serde(flatten)]
    pub serving: ServingDto,
}

/// Properties of a loaded model.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct ModelDetails {
    /// `model_type` of the checkpoint.
    pub architecture: String,
    /// blake3 of weights, config and tokenizer.
    pub fingerprint: String,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Hidden width of an MLP.
    pub d_mlp: usize,
    /// Size of the vocabulary.
    pub d_vocab: usize,
    /// Longest input in tokens.
    pub n_ctx: usize,
    /// Number of routed experts of a mixture-of-experts block; 0 if every MLP is dense.
    pub n_experts: usize,
    /// Number of experts that compute each token; 0 if every MLP is dense.
    pub top_k: usize,
    /// Whether each token also attends to later tokens, as in encoders; `positions` then default to the mean.
    pub bidirectional: bool,
    /// Number of parameters.
    pub n_params: u64,
    /// Type of the checkpoint's weights.
    pub weights_dtype: String,
    /// Type in which the forward pass computes.
    pub compute_dtype: String,
    /// Where it runs: `cpu`, `cuda:0`, or several devices, `cuda:0,cuda:1`, which compute different batches. The
    /// provenance of a cache names the one that computed it.
    pub device: String,
    /// What the tokenizer does at the beginning of a text.
    pub bos: BosDefault,
    /// Whether `messages` can be posted.
    pub has_chat_template: bool,
    /// What is unusual about the checkpoint, although it could be loaded.
    pub warnings: Vec<WarningDto>,
    /// Every hook point, in execution order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<HookDto>>,
}

/// The tokenizer's rule for the beginning of a text.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct BosDefault {
    /// Whether text gets a BOS token when `prepend_bos` is null.
    pub adds_bos: bool,
    /// The token's id.
    pub token_id: Option<u32>,
    /// The token.
    pub token: Option<String>,
    /// Whether TransformerLens adds BOS by default, if that differs: it prepends BOS to every text of a model that has
    /// one.
    pub transformer_lens_adds_bos: Option<bool>,
}

/// A hook point of a model.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = HookPoint)]
pub struct HookDto {
    /// Full name.
    pub hook: String,
    /// The block; null for a hook outside the blocks.
    pub layer: Option<usize>,
    /// Shape of the tensor of one input at all positions; null for an axis whose length depends on the input.
    pub shape: Vec<Option<usize>>,
    /// Names of the axes.
    pub axes: Vec<&'static str>,
}

impl ModelDto {
    /// The description of a model. Listings leave out the hooks, because they are many.
    pub fn of(served: ServedModel, with_hooks: bool) -> Self {
        let ServedModel { id, loaded, serving } = served;
        let (status, serving) = (serving.status, ServingDto::from(serving));
        let Some(LoadedModel { info, adds_bos, bos, has_chat_template, warnings }) = loaded else {
            return Self::Unready(Box::new(UnreadyModel { id, status, serving }));
        };
        let hooks = with_hooks.then(|| {
            info.catalogue()
                .into_iter()
                .map(|h| HookDto {
                    hook: h.hook.to_string(),
                    layer: h.hook.layer(),
                    shape: h.shape,
                    axes: h.axes.iter().map(|a| a.name()).collect(),
                })
                .collect()
        });
        let details = ModelDetails {
            architecture: info.architecture,
            fingerprint: info.fingerprint,
            n_layers: info.n_layers,
            d_model: info.d_model,
            n_heads: info.n_heads,
            n_kv_heads: info.n_kv_heads,
            d_head: info.d_head,
            d_mlp: info.d_mlp,
            d_vocab: info.d_vocab,
            n_ctx: info.n_ctx,
            n_experts: info.n_experts,
            top_k: info.top_k,
            bidirectional: info.bidirectional,
            n_params: info.n_params,
            weights_dtype: info.weights_dtype,
            compute_dtype: info.compute_dtype,
            device: info.device,
            bos: BosDefault {
                adds_bos,
                transformer_lens_adds_bos: (!adds_bos && bos.is_some() && !info.bidirectional).then_some(true),
                token_id: bos.as_ref().map(|(id, _)| *id),
                token: bos.map(|(_, token)| token),
            },
            has_chat_template,
            warnings: WarningDto::list(&warnings),
            hooks,
        };
        Self::Ready(Box::new(ReadyModel { id, status, serving, details }))
    }
}

/// An event of a model.
#[derive(Serialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the stream for the specification")]
pub enum ModelEvent {
    /// The model, now and after every change.
    Model(ModelDto),
}

/// A list of models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = example_of_several)]
pub struct Models {
    /// The models, by name.
    pub items: Vec<ModelDto>,
    /// Always null: all models fit on one page.
    pub next_cursor: Option<String>,
}

/// Something to tokenise: exactly one of `input`, `text`, `token_ids` and `messages`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "smollm2-135m", "text": "The Eiffel Tower"}))]
pub struct Tokenize {
    /// Name of a served model.
    pub model: String,
    /// A string, strings, token ids, or arrays of token ids, as a run takes them. For an array of strings, or of arrays,
    /// the answer has `items`.
    #[schema(value_type = Option<InputSchema>)]
    pub input: Option<Input>,
    /// Text.
    pub text: Option<String>,
    /// Token ids, to see their tokens.
    #[schema(value_type = Option<Vec<u32>>)]
    pub token_ids: Option<TokenIds>,
    /// A chat.
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
    /// Beginning-of-sequence token (`[CLS]` for BERT): null leaves the decision to the tokenizer, true makes sure the
    /// input begins with one, false leaves out all special tokens that the tokenizer would add to text.
    pub prepend_bos: Option<bool>,
}

/// The tokens of one input or, if several were posted as `input`, of each.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = json!({
    "model": "smollm2-135m", "token_ids": [504, 414, 46682, 18669], "tokens": ["The", " E", "iffel", " Tower"],
    "special": [false, false, false, false], "offsets": [[0, 3], [3, 5], [5, 10], [10, 16]], "n_tokens": 4,
    "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "rendered": null, "messages": null
}))]
pub enum Tokenized {
    /// Of the only input.
    One(Tokens),
    /// Of each input.
    Several(TokensOfInputs),
}

/// The tokens of several inputs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"model": "smollm2-135m", "items": [{
    "model": "smollm2-135m", "token_ids": [504, 414, 46682, 18669], "tokens": ["The", " E", "iffel", " Tower"],
    "special": [false, false, false, false], "offsets": [[0, 3], [3, 5], [5, 10], [10, 16]], "n_tokens": 4,
    "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "rendered": null, "messages": null
}]}))]
pub struct TokensOfInputs {
    /// The model.
    pub model: String,
    /// The tokens of each input, in order: what the request would answer for this input alone.
    pub items: Vec<Tokens>,
}

/// Tokens as a run of the same input would have them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tokenization, example = json!({
    "model": "smollm2-135m", "token_ids": [504, 414, 46682, 18669], "tokens": ["The", " E", "iffel", " Tower"],
    "special": [false, false, false, false], "offsets": [[0, 3], [3, 5], [5, 10], [10, 16]], "n_tokens": 4,
    "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "rendered": null, "messages": null
}))]
pub struct Tokens {
    /// The model.
    pub model: String,
    /// Token ids.
    pub token_ids: Vec<u32>,
    /// The text of each token.
    pub tokens: Vec<String>,
    /// Which tokens are special.
    pub special: Vec<bool>,
    /// Range of characters (Unicode scalar values) of the text or rendered chat that each token covers, `[start, end)`.
    /// If several tokens share a character, each of them covers all of it; whether a token includes the space before
    /// its word depends on the tokenizer. Null for a token that was added, such as BOS; null for posted ids.
    pub offsets: Option<Vec<Option<[usize; 2]>>>,
    /// Number of tokens.
    pub n_tokens: usize,
    /// Whether there is a beginning-of-sequence token, and why.
    pub bos: BosDto,
    /// The chat as the template rendered it.
    pub rendered: Option<String>,
    /// The tokens of each message of the chat; null for other inputs.
    pub messages: Option<Vec<MessageSpan>>,
}

impl Tokens {
    /// The response for the model `model`.
    pub fn of(model: String, answer: TokenizeAnswer) -> Self {
        let TokenizeAnswer { encoded, chat } = answer;
        let offsets = encoded.offsets.map(|o| o.into_iter().map(|o| o.map(|(start, end)| [start, end])).collect());
        let (rendered, messages) = chat.map(|chat| (chat.text, chat.messages)).unzip();
        let span = |m: tokenize::MessageSpan| MessageSpan {
            role: m.role,
            start: m.tokens.as_ref().map(|t| t.start),
            end: m.tokens.map(|t| t.end),
        };
        Self {
            model,
            n_tokens: encoded.ids.len(),
            token_ids: encoded.ids,
            tokens: encoded.tokens,
            special: encoded.special,
            offsets,
            bos: encoded.bos.into(),
            rendered,
            messages: messages.map(|messages| messages.into_iter().map(span).collect()),
        }
    }
}

/// The tokens of a message's content, without white space at its ends and without what the template puts around it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"role": "user", "start": 3, "end": 9}))]
pub struct MessageSpan {
    /// `system`, `user`, `assistant`, …
    pub role: Option<String>,
    /// Position of the first token; null if the rendered chat does not contain the message unchanged.
    pub start: Option<usize>,
    /// Position after the last token.
    pub end: Option<usize>,
}
