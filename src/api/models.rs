//! `/v1/models` and `/v1/tokenize`: the loaded models and their tokenizers.

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::Value;

use super::{
    dto::{
        chat::chat_end,
        input::{Input, TokenIds},
        model::{ModelDto, Models, Tokenize, Tokenized, Tokens, TokensOfInputs},
        run_body::inputs_of,
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
/// whether there is a BOS token, and the rendered chat. For several inputs (`input` as an array of strings, or of arrays
/// of token ids) the answer has them as `items`.
#[utoipa::path(
    post, path = "/v1/tokenize", operation_id = "tokenize", tag = "models", request_body = Tokenize,
    responses((status = 200, description = "The tokens", body = Tokenized), TokenizeProblems)
)]
pub async fn tokenize(
    State(state): State<ApiState>,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<Tokenize>,
) -> ApiResult<Json<Tokenized>> {
    let is_list = matches!(body.value.input, Some(Input::Texts(_) | Input::TokenIdLists(_)));
    let question = question(body.value, state.engine.limits().max_run_items)?;
    let model = question.model.clone();
    let answers = state.questions.tokenize(question).await?;
    let mut items = answers.into_iter().map(|answer| Tokens::of(model.clone(), answer));
    Ok(Json(match items.next() {
        Some(only) if !is_list => Tokenized::One(only),
        first => Tokenized::Several(TokensOfInputs { items: first.into_iter().chain(items).collect(), model }),
    }))
}

/// Reads the question; at most `max_inputs` are tokenised in one request.
fn question(request: Tokenize, max_inputs: usize) -> Result<TokenizeQuestion, Problem> {
    let Tokenize { model, input, text, token_ids, messages, prepend_bos, .. } = request;
    let one = |at: &str, content| vec![(at.to_owned(), content)];
    let inputs = match (input, text, token_ids, messages) {
        (Some(input), None, None, None) => {
            inputs_of(input, "/input").into_iter().map(|i| (i.pointer, i.content)).collect()
        }
        (None, Some(text), None, None) => one("/text", Content::Text(text)),
        (None, None, Some(TokenIds(ids)), None) => one("/token_ids", Content::TokenIds(ids)),
        (None, None, None, Some(messages)) => {
            let chat = Content::Messages {
                messages: messages.into_iter().map(Value::Object).collect(),
                end: chat_end(request.add_generation_prompt, request.continue_final_message)?,
                template_kwargs: request.template_kwargs.unwrap_or_default(),
                chat_template: request.chat_template.map(GivenTemplate::new),
            };
            one("/messages", chat)
        }
        _ => {
            let detail = "give exactly one of input, text, token_ids and messages";
            return Err(Problem::at(Code::InvalidBody, "/input", detail));
        }
    };
    if inputs.len() > max_inputs {
        let detail = format!("the request has {} inputs; at most {max_inputs} are allowed", inputs.len());
        return Err(Problem::at(Code::TooManyItems, "/input", detail));
    }
    Ok(TokenizeQuestion { model, inputs, prepend_bos })
}
