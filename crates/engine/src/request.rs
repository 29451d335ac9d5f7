//! A run as a client requests it, and its preparation: tokenising, truncating and resolving every name.
//!
//! Everything that can be refused is refused here, before anything is queued. The first bad item refuses the whole
//! request.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Limits,
    input::{Content, InputSpec, check_list},
    interventions::{Interventions, Subject},
    positions::{Conversation, in_conversation, settle},
    token_cache::{TokenCache, Tokenising},
};
use residuum_domain::{
    Capture, CaptureRequest, Code, Generation, Hook, NewItem, NewRun, PackLayout, Positions, PositionsRequest,
    Priority, Problem, TenantId,
    capture::{Layers, refuse_mean_of_indices, stored_shape},
    generation::REST_OF_CONTEXT,
    positions::Unsettled,
};
use residuum_model::{Encoded, Model};

/// Limits for [`is_quick`]: bytes of a text in the token cache, token ids, and entries of each other list.
pub(super) const QUICK_BYTES: usize = 4096;
pub(super) const QUICK_IDS: usize = 512;
pub(super) const QUICK_NAMES: usize = 64;

/// What to do with an input longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncate {
    /// Refuse it.
    #[default]
    Error,
    /// Drop tokens from the start, keeping a BOS token there.
    Left,
    /// Drop tokens from the end, keeping those that the tokenizer's own rule puts there.
    Right,
}

/// A run as posted.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// The tenant of the request.
    pub tenant: TenantId,
    /// Name of the model.
    pub model: String,
    /// Inputs in order.
    pub inputs: Vec<InputSpec>,
    /// How to continue every input before it is captured; `None`: not at all.
    pub generation: Option<Generation>,
    /// Changes to make during the forward pass.
    pub interventions: Option<Interventions>,
    /// What to capture.
    pub capture: CaptureRequest,
    /// Beginning-of-sequence token: `None` for the tokenizer's own rule, else always or never.
    pub prepend_bos: Option<bool>,
    /// What to do with inputs longer than the context.
    pub truncate: Truncate,
    /// Whether stored activations may answer it.
    pub reuse: bool,
    /// How urgent the run is.
    pub priority: Priority,
    /// Tags of every cache.
    pub tags: Vec<String>,
    /// Metadata of the run and of every cache.
    pub metadata: Map<String, Value>,
    /// Seconds after which the caches expire.
    pub ttl_seconds: Option<u64>,
    /// Idempotency key, and the hash of the request.
    pub idempotency: Option<(String, [u8; 32])>,
}

impl RunRequest {
    /// How often each input is continued, each time with other random numbers; 1 if it is not continued. The items of an
    /// input follow each other.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.generation.as_ref().map_or(1, |generation| generation.n.max(1))
    }

    /// A run with these inputs and the defaults of every other field.
    #[must_use]
    pub fn new(tenant: TenantId, model: &str, inputs: Vec<InputSpec>) -> Self {
        Self {
            tenant,
            model: model.to_owned(),
            inputs,
            generation: None,
            interventions: None,
            capture: CaptureRequest::default(),
            prepend_bos: None,
            truncate: Truncate::Error,
            reuse: true,
            priority: Priority::Normal,
            tags: Vec::new(),
            metadata: Map::new(),
            ttl_seconds: None,
            idempotency: None,
        }
    }

    /// Number of items that its inputs become.
    #[must_use]
    pub fn n_items(&self) -> usize {
        let n = self.inputs.len();
        let n = self.interventions.as_ref().map_or(n, |i| i.variants.n_items(n));
        n.saturating_mul(self.samples() as usize)
    }
}

/// A run that is ready to be queued.
pub struct Prepared {
    /// The run.
    pub run: NewRun,
    /// Bytes that each item's capture takes in the store, in the order of the inputs.
    pub item_bytes: Vec<u64>,
    /// The model that the run uses.
    pub model: Arc<Model>,
}

/// Tokenises and checks every input.
///
/// # Errors
/// The [`Problem`] of the first bad input or name, with its pointer into the request body.
pub fn prepare(
    request: RunRequest,
    model: Arc<Model>,
    limits: &Limits,
    token_cache: &TokenCache,
) -> Result<Prepared, Problem> {
    // a continuation needs no capture
    let hooks = match request.capture.hooks.is_empty() && request.generation.is_some() {
        true => Arc::new([]),
        false => request.capture.resolve(model.info()).map_err(|p| p.under("/capture"))?,
    };
    refuse_mean_of_indices(&hooks, &request.capture.positions(model.info())).map_err(|p| p.under("/capture"))?;
    if let Some(generation) = &request.generation {
        check_generation(generation, &model).map_err(|p| p.under("/generate"))?;
    }
    let mut items = Vec::with_capacity(request.n_items());
    let mut sizes = Vec::with_capacity(request.n_items());
    let (mut tokens, mut bytes) = (0usize, 0u64);
    let Limits { max_run_tokens, max_run_bytes, .. } = *limits;
    for (i, input) in request.inputs.iter().enumerate() {
        for item in items_of(i, input, &request, &hooks, &model, token_cache)? {
            let item = item?;
            let size = item_bytes(&item, &model);
            let n = request.samples();
            tokens = tokens.saturating_add(item.max_tokens().saturating_mul(n as usize));
            bytes = bytes.saturating_add(size.saturating_mul(u64::from(n)));
            let at = format!("{}{}", input.pointer, input.content.pointer());
            if tokens > max_run_tokens {
                let detail = format!("with this input the run has {tokens} tokens; a run may have {max_run_tokens}");
                return Err(Problem::at(Code::TooManyRunTokens, at, detail));
            }
            if bytes > max_run_bytes {
                return Err(Problem::at(
                    Code::ResultTooLarge,
                    at,
                    format!(
                        "with this input the run would store {bytes} bytes; a run may store {max_run_bytes}. Capture fewer hooks or positions"
                    ),
                ));
            }
            items.extend(samples_of(item, n));
            sizes.extend(std::iter::repeat_n(size, n as usize));
        }
    }
    let RunRequest {
        tenant,
        model: name,
        reuse,
        priority,
        tags,
        metadata,
        ttl_seconds,
        idempotency,
        interventions,
        ..
    } = request;
    let edits = interventions.map(|i| i.edits);
    let run = NewRun { tenant, model: name, reuse, priority, tags, metadata, ttl_seconds, items, idempotency, edits };
    Ok(Prepared { run, item_bytes: sizes, model })
}

/// The items of an input that is continued `n` times.
fn samples_of(item: NewItem, n: u32) -> impl Iterator<Item = NewItem> {
    let sample = move |sample| {
        let mut item = item.clone();
        if let Some(generation) = &mut item.generation {
            generation.sample = sample;
        }
        item
    };
    (0..n).map(sample)
}

/// Whether [`prepare`] takes less time than handing it to another thread: one short input whose tokens are known, and
/// no long list.
#[must_use]
pub fn is_quick(request: &RunRequest, model: &Model, token_cache: &TokenCache) -> bool {
    let [input] = request.inputs.as_slice() else { return false };
    let how = Tokenising { prepend_bos: request.prepend_bos, chat: false };
    let positions = [request.capture.positions.as_ref(), input.positions.as_ref()];
    let layers = match &request.capture.layers {
        Layers::List(layers) => layers.len(),
        _ => 1,
    };
    request.interventions.is_none()
        && layers.max(request.capture.hooks.len()).max(request.tags.len()).max(input.tags.len()) <= QUICK_NAMES
        && positions.into_iter().flatten().all(is_one_or_a_range)
        && match &input.content {
            Content::Text(text) => text.len() <= QUICK_BYTES && token_cache.knows(request.tenant, model, text, how),
            Content::TokenIds(ids) => ids.len() <= QUICK_IDS,
            Content::Messages { .. } => false,
        }
}

/// Whether positions can be resolved without going through a list or the text.
fn is_one_or_a_range(positions: &PositionsRequest) -> bool {
    matches!(positions, PositionsRequest::Known(known) if !matches!(known, Positions::List(_) | Positions::MeanOf(_)))
}

/// Checks that the model can continue inputs, by as many tokens as requested.
fn check_generation(generation: &Generation, model: &Model) -> Result<(), Problem> {
    model.check_generates()?;
    let n_ctx = model.info().n_ctx;
    if generation.max_new_tokens != REST_OF_CONTEXT && generation.max_new_tokens >= n_ctx {
        let detail = format!("{} new tokens leave no room in a context of {n_ctx}", generation.max_new_tokens);
        return Err(Problem::at(Code::TooManyTokens, "/max_new_tokens", detail));
    }
    Ok(())
}

/// Bytes that one item's capture takes in the store; an upper bound if the item is continued first.
#[must_use]
pub fn item_bytes(item: &NewItem, model: &Model) -> u64 {
    let n_tokens = item.max_tokens();
    let Ok(rows) = item.capture.positions.resolve(n_tokens) else { return 0 };
    layout_of(&item.capture, model, &[(n_tokens, &rows)]).total_bytes()
}

/// The layout of a pack with these items.
#[must_use]
pub fn layout_of(capture: &Capture, model: &Model, items: &[(usize, &residuum_domain::Rows)]) -> PackLayout {
    let row_shapes = capture.hooks.iter().map(|h| model.info().row_shape(h.site())).collect();
    PackLayout::new(capture.hooks.clone(), row_shapes, capture.dtype, items)
}

/// Shape of what an item stores for each hook, for dry runs. For an item to be continued, the shape of its longest
/// continuation.
#[must_use]
pub fn item_shapes(item: &NewItem, model: &Model) -> Vec<(String, Vec<usize>)> {
    let n_tokens = item.max_tokens();
    let Ok(rows) = item.capture.positions.resolve(n_tokens) else { return Vec::new() };
    let keep = item.capture.positions.keeps_axis();
    let shape = |h: &Hook| stored_shape(h.site(), &model.info().row_shape(h.site()), &rows, keep, n_tokens).0;
    item.capture.hooks.iter().map(|h| (h.to_string(), shape(h))).collect()
}

/// An input's tokens, how many of them were cut off, and its text as posted or rendered.
type Tokenised = (Encoded, u64, Option<String>);

/// The one item of an input without interventions.
const UNCHANGED: &[Vec<u32>] = &[Vec::new()];

/// The items that input `i` of a run becomes: one, or one for each strength of its interventions. Each is made when it is
/// asked for, so that the limits of the run hold before all are in memory.
fn items_of<'a>(
    i: usize,
    input: &'a InputSpec,
    request: &'a RunRequest,
    hooks: &'a Arc<[Hook]>,
    model: &'a Model,
    token_cache: &TokenCache,
) -> Result<impl Iterator<Item = Result<NewItem, Problem>>, Problem> {
    let tokenised = tokenise(input, request, model, token_cache).map_err(|p| in_input(p, input))?;
    let changes = request.interventions.as_ref();
    let variants = changes.map_or(UNCHANGED, |changes| changes.variants.of(i));
    let copies = std::iter::repeat_n(tokenised, variants.len());
    Ok(variants.iter().zip(copies).map(move |(variant, tokenised)| {
        let subject = Subject {
            content: &input.content,
            pointer: &input.pointer,
            encoded: &tokenised.0,
            text: tokenised.2.as_deref(),
            tokenizer: model.tokenizer(),
            generates: request.generation.is_some(),
        };
        let interventions = changes.map(|c| c.settle(variant, &subject)).transpose()?.unwrap_or_default();
        let item = item(input, request, hooks, model, tokenised).map_err(|p| p.under(&input.pointer))?;
        Ok(NewItem { interventions, ..item })
    }))
}

/// Lets a problem with an input point into the request. How chats are rendered is set once for all inputs.
fn in_input(problem: Problem, input: &InputSpec) -> Problem {
    let of_all = ["/chat_template", "/template_kwargs", "/continue_final_message"];
    let outside = |pointer: &str| of_all.iter().any(|field| pointer.starts_with(field));
    if problem.errors.iter().any(|e| outside(&e.pointer)) { problem } else { problem.under(&input.pointer) }
}

fn tokenise(
    input: &InputSpec,
    request: &RunRequest,
    model: &Model,
    token_cache: &TokenCache,
) -> Result<Tokenised, Problem> {
    let (tokenizer, prepend_bos) = (model.tokenizer(), request.prepend_bos);
    let n_new = n_reserved(request);
    let encode = |text: &str, chat| {
        check_length(text, request.truncate, model, n_new)?;
        token_cache.encode(request.tenant, model, text, Tokenising { prepend_bos, chat })
    };
    let (encoded, text) = match &input.content {
        Content::Text(text) => (encode(text, false), Some(text.clone())),
        Content::TokenIds(ids) => (tokenizer.from_ids(ids, prepend_bos), None),
        Content::Messages { messages, end, template_kwargs, chat_template } => {
            let rendered = tokenizer.render_chat(messages, *end, template_kwargs, chat_template.as_ref())?;
            (encode(&rendered, true), Some(rendered))
        }
    };
    let at = input.content.pointer();
    let cut = |encoded| truncate(encoded, request.truncate, model.info().n_ctx, n_new);
    let (encoded, n_truncated) = encoded.and_then(cut).map_err(|p| p.under(at))?;
    Ok((encoded, n_truncated, text))
}

/// Tokens of the context that an input has to leave free for new ones.
fn n_reserved(request: &RunRequest) -> usize {
    match request.generation.as_ref().map_or(0, |g| g.max_new_tokens) {
        REST_OF_CONTEXT => 1,
        n => n,
    }
}

/// The generation after an input that leaves `room` tokens of the context.
fn fitting(generation: Generation, room: usize) -> Generation {
    Generation { max_new_tokens: generation.max_new_tokens.min(room), ..generation }
}

/// Refuses a text that is certainly too long, before it is encoded.
fn check_length(text: &str, how: Truncate, model: &Model, n_new: usize) -> Result<(), Problem> {
    let room = model.info().n_ctx - n_new;
    match model.tokenizer().longest_text_that_fits(room) {
        Some(most) if how == Truncate::Error && text.len() > most => {
            let detail = format!(
                "the text has {} bytes, and the {room} tokens that fit the model's context stand for at most {most}; \
                 shorten it or set truncate to left or right",
                text.len()
            );
            Err(Problem::at(Code::TooManyTokens, "", detail))
        }
        _ => Ok(()),
    }
}

fn item(
    input: &InputSpec,
    request: &RunRequest,
    hooks: &Arc<[Hook]>,
    model: &Model,
    (encoded, n_truncated, text): Tokenised,
) -> Result<NewItem, Problem> {
    let generation = request.generation.clone().map(|g| fitting(g, model.info().n_ctx - encoded.ids.len()));
    let n_new = generation.as_ref().map_or(0, |g| g.max_new_tokens);
    let at = input.content.pointer();
    let (asked, at) = match &input.positions {
        Some(own) => (own.clone(), "/positions"),
        None => (request.capture.positions(model.info()), at),
    };
    refuse_mean_of_indices(hooks, &asked)?;
    check_list(&asked, model.info().n_ctx).map_err(|p| Problem::at(p.code, at, p.detail))?;
    let (positions, unsettled) = positions_of(asked, input, (&encoded, text.as_deref()), n_new, model)
        .map_err(|p| Problem::at(p.code, at, p.detail))?;
    let capture = Capture { hooks: Arc::clone(hooks), positions, dtype: request.capture.dtype };
    let mut metadata = request.metadata.clone();
    metadata.extend(input.metadata.clone());
    let mut tags = request.tags.clone();
    tags.extend(input.tags.iter().filter(|t| !request.tags.contains(t)).cloned());
    Ok(NewItem {
        token_ids: encoded.ids,
        tokens: encoded.tokens,
        text,
        capture,
        bos: encoded.bos,
        n_truncated,
        tags,
        metadata,
        label: input.label.clone(),
        generation,
        unsettled,
        completion: None,
        origin: None,
        interventions: Vec::new(),
    })
}

/// The positions of an input that `n_new` tokens may follow. If they can only be resolved once all tokens are there,
/// the positions are the most that are possible, and the second value says how to resolve them then.
fn positions_of(
    asked: PositionsRequest,
    input: &InputSpec,
    (encoded, text): (&Encoded, Option<&str>),
    n_new: usize,
    model: &Model,
) -> Result<(Positions, Option<Unsettled>), Problem> {
    let asked = asked.with_parts(encoded.ids.len(), n_new > 0)?;
    let later = |unsettled: Unsettled| Ok((unsettled.most(), Some(unsettled)));
    if n_new > 0 && asked.names_kind() {
        return later(Unsettled::Asked(asked));
    }
    let tokenizer = model.tokenizer();
    let asked = match asked {
        asked if n_new > 0 => match in_conversation(&asked, &input.content, encoded, text, tokenizer)? {
            Conversation::Posted(asked) => asked,
            Conversation::Reply(reply_from, which) => {
                return later(Unsettled::Reply { reply_from, which, mean: asked.is_mean() });
            }
        },
        asked => asked,
    };
    match asked {
        PositionsRequest::Known(positions) => {
            positions.resolve(encoded.ids.len() + n_new)?;
            Ok((positions, None))
        }
        asked => Ok((settle(&asked, &input.content, encoded, text, tokenizer)?, None)),
    }
}

/// Cuts an input down to the context, less the room for `n_new` tokens. Returns how many tokens were cut off.
fn truncate(mut encoded: Encoded, how: Truncate, n_ctx: usize, n_new: usize) -> Result<(Encoded, u64), Problem> {
    let n = encoded.ids.len();
    let room = n_ctx - n_new;
    if n <= room {
        return Ok((encoded, 0));
    }
    let excess = n - room;
    match how {
        Truncate::Error => {
            let new = if n_new > 0 { format!(" with room for {n_new} new ones") } else { String::new() };
            let detail = format!(
                "the input has {n} tokens and the model's context {n_ctx}{new}; shorten it or set truncate to left or right"
            );
            return Err(Problem::at(Code::TooManyTokens, "", detail));
        }
        Truncate::Right => {
            let end = n - encoded.n_suffix.min(room);
            encoded.cut(end - excess..end);
        }
        Truncate::Left => {
            // A BOS token at the start is kept: the model expects it.
            let from = usize::from(encoded.bos.present);
            encoded.cut(from..from + excess);
        }
    }
    Ok((encoded, excess as u64))
}
