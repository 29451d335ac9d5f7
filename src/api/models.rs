//! `/v1/models` and `/v1/tokenize`.

use std::ops::Range;

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::Value;

use super::{
    dto::{
        chat::chat_end,
        input::TokenIds,
        model::{MessageSpan, ModelDto, Models, Tokenize, Tokens},
    },
    error::{ApiError, ApiResult},
    extract::{JsonBody, NoQuery, Query},
    problems::{ModelProblems, QueryProblems, TokenizeProblems},
    state::ApiState,
};
use residuum_domain::{Code, Problem, positions::Spelled};
use residuum_engine::ModelState;
use residuum_model::{Encoded, GivenTemplate, TextTokenizer};

fn describe(id: String, state: &ModelState, with_hooks: bool) -> ModelDto {
    match state {
        ModelState::Loading => ModelDto::loading(id),
        ModelState::Ready(model) => ModelDto::ready(model, with_hooks),
    }
}

/// List models
///
/// What this server runs, without the hook catalogues.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "listModels", tag = "models",
    responses((status = 200, description = "The models", body = Models), QueryProblems)
)]
pub async fn list_models(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> Json<Models> {
    let items = state.engine.models().all().into_iter().map(|(id, model)| describe(id, &model, false)).collect();
    Json(Models { items, next_cursor: None })
}

/// Describe a model
///
/// Its sizes and every hook point with shape and axes.
#[utoipa::path(
    get, path = "/v1/models/{id}", operation_id = "getModel", tag = "models", params(("id" = String, Path, description = "Name of the model")),
    responses((status = 200, description = "The model", body = ModelDto), ModelProblems)
)]
pub async fn get_model(
    State(state): State<ApiState>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Json<ModelDto>> {
    let all = state.engine.models().all();
    let wanted = path.map(|Path(id)| id).unwrap_or_default();
    match all.iter().find(|(id, _)| *id == wanted) {
        Some((id, model)) => Ok(Json(describe(id.clone(), model, true))),
        None => {
            let names: Vec<&str> = all.iter().map(|(id, _)| id.as_str()).collect();
            Err(Problem::new(
                Code::ModelNotFound,
                format!("there is no such model here; there is {}", names.join(", ")),
            )
            .into())
        }
    }
}

/// Tokenise
///
/// What a run of the same input would feed the model: ids, strings, special tokens, character offsets, the BOS decision
/// and the rendered chat.
#[utoipa::path(
    post, path = "/v1/tokenize", operation_id = "tokenize", tag = "models", request_body = Tokenize,
    responses((status = 200, description = "The tokens", body = Tokens), TokenizeProblems)
)]
pub async fn tokenize(
    State(state): State<ApiState>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<Tokenize>,
) -> ApiResult<Json<Tokens>> {
    let request = body.value;
    let model = state.engine.models().get(&request.model)?;
    let work = tokio::task::spawn_blocking(move || tokens(request, model.tokenizer()));
    let done = work.await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "tokenising panicked");
        Err(Problem::new(Code::Internal, "the input could not be tokenised"))
    });
    done.map(Json).map_err(ApiError)
}

fn tokens(request: Tokenize, tokenizer: &TextTokenizer) -> Result<Tokens, Problem> {
    let Tokenize { model, text, token_ids, messages, prepend_bos, .. } = request;
    let at = |pointer: &'static str| move |p: Problem| p.under(pointer);
    let (encoded, chat) = match (text, token_ids, messages) {
        (Some(text), None, None) => (tokenizer.encode(&text, prepend_bos).map_err(at("/text"))?, None),
        (None, Some(TokenIds(ids)), None) => (tokenizer.from_ids(&ids, prepend_bos).map_err(at("/token_ids"))?, None),
        (None, None, Some(messages)) => {
            let end = chat_end(request.add_generation_prompt, request.continue_final_message)?;
            let messages: Vec<Value> = messages.into_iter().map(Value::Object).collect();
            let kwargs = request.template_kwargs.unwrap_or_default();
            let given = request.chat_template.map(GivenTemplate::new);
            let rendered = tokenizer.render_chat(&messages, end, &kwargs, given.as_ref())?;
            let encoded = tokenizer.encode_chat(&rendered, prepend_bos).map_err(at("/messages"))?;
            let spans = tokenizer.message_spans(&messages, end, &kwargs, given.as_ref(), &rendered);
            let messages = message_spans(&messages, spans, &rendered, &encoded);
            (encoded, Some((rendered, messages)))
        }
        _ => return Err(Problem::at(Code::InvalidBody, "/text", "give exactly one of text, token_ids and messages")),
    };
    let Encoded { ids, tokens, special, offsets, bos, .. } = encoded;
    let offsets = offsets.map(|o| o.into_iter().map(|offset| offset.map(|(start, end)| [start, end])).collect());
    let (rendered, messages) = chat.unzip();
    let bos = bos.into();
    Ok(Tokens { model, n_tokens: ids.len(), token_ids: ids, tokens, special, offsets, bos, rendered, messages })
}

/// The messages with their spans in tokens, from those in characters.
fn message_spans(
    messages: &[Value],
    spans: Vec<Option<Range<usize>>>,
    rendered: &str,
    encoded: &Encoded,
) -> Vec<MessageSpan> {
    let offsets = encoded.offsets.as_deref().unwrap_or_default();
    let spelled = Spelled { text: rendered.into(), offsets: offsets.into(), cut: 0..0 };
    messages
        .iter()
        .zip(spans)
        .map(|(message, span)| {
            let tokens = span.and_then(|span| spelled.tokens(&span));
            MessageSpan {
                role: message.get("role").and_then(Value::as_str).map(str::to_owned),
                start: tokens.as_ref().map(|t| t.start),
                end: tokens.map(|t| t.end),
            }
        })
        .collect()
}
