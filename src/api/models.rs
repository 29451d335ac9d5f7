//! `/v1/models` and `/v1/tokenize`: the loaded models and their tokenizers.

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::Value;

use super::{
    dto::{
        chat::chat_end,
        input::TokenIds,
        model::{ModelDto, Models, Tokenize, Tokens},
    },
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query},
    problems::{ModelProblems, QueryProblems, TokenizeProblems},
    state::ApiState,
};
use residuum_domain::{Code, Problem};
use residuum_engine::{Content, GivenTemplate, questions::tokenize::TokenizeQuestion};

/// List models
///
/// The models of this server, without their hooks.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "listModels", tag = "models",
    responses((status = 200, description = "The models", body = Models), QueryProblems)
)]
pub async fn list_models(State(state): State<ApiState>, Query(NoQuery {}): Query<NoQuery>) -> Json<Models> {
    let items = state.questions.served_models().into_iter().map(|model| ModelDto::of(model, false)).collect();
    Json(Models { items, next_cursor: None })
}

/// Describe a model
///
/// Its dimensions, and every hook point with shape and axes.
#[utoipa::path(
    get, path = "/v1/models/{id}", operation_id = "getModel", tag = "models", params(("id" = String, Path, description = "Name of the model")),
    responses((status = 200, description = "The model", body = ModelDto), ModelProblems)
)]
pub async fn get_model(
    State(state): State<ApiState>,
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
    Query(NoQuery {}): Query<NoQuery>,
) -> ApiResult<Json<ModelDto>> {
    let wanted = path.map(|Path(id)| id).unwrap_or_default();
    Ok(Json(ModelDto::of(state.questions.served_model(&wanted)?, true)))
}

/// Tokenise
///
/// The tokens that a run with the same input would give the model: ids, strings, special tokens, character offsets,
/// whether there is a BOS token, and the rendered chat.
#[utoipa::path(
    post, path = "/v1/tokenize", operation_id = "tokenize", tag = "models", request_body = Tokenize,
    responses((status = 200, description = "The tokens", body = Tokens), TokenizeProblems)
)]
pub async fn tokenize(
    State(state): State<ApiState>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<Tokenize>,
) -> ApiResult<Json<Tokens>> {
    let (question, model) = question(body.value)?;
    Ok(Json(Tokens::of(model, state.questions.tokenize(question).await?)))
}

fn question(request: Tokenize) -> Result<(TokenizeQuestion, String), Problem> {
    let Tokenize { model, text, token_ids, messages, prepend_bos, .. } = request;
    let content = match (text, token_ids, messages) {
        (Some(text), None, None) => Content::Text(text),
        (None, Some(TokenIds(ids)), None) => Content::TokenIds(ids),
        (None, None, Some(messages)) => Content::Messages {
            messages: messages.into_iter().map(Value::Object).collect(),
            end: chat_end(request.add_generation_prompt, request.continue_final_message)?,
            template_kwargs: request.template_kwargs.unwrap_or_default(),
            chat_template: request.chat_template.map(GivenTemplate::new),
        },
        _ => return Err(Problem::at(Code::InvalidBody, "/text", "give exactly one of text, token_ids and messages")),
    };
    Ok((TokenizeQuestion { model: model.clone(), content, prepend_bos }, model))
}
