//! `POST /openai/v1/chat/completions` and `POST /openai/v1/completions`: text from a model while the client waits.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{
    answer_parts::{Head, Usage},
    answering::Answering,
    asked::{Asked, Form},
    chat_answer::{ChatChoice, ChatChunk, ChatCompletion},
    chat_body::ChatBody,
    completion_answer::{Completion, CompletionChoice},
    completion_body::CompletionBody,
    completion_stream,
    pieces::{Piece, Pieces},
    sampling::{Delivery, relocated},
};
use crate::api::{
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query, Tenant},
    problems::OpenAiCompletionProblems,
    state::ApiState,
};
use residuum_domain::{Priority, Problem, TenantId};
use residuum_engine::CompletionRequest;

/// Answer a chat as OpenAI does
///
/// Renders the chat with the model's template and generates the next message. With `stream` the answer comes in chunks as
/// server-sent events, the last one `[DONE]`. Nothing is captured or stored, unless the request has the object `residuum`.
#[utoipa::path(
    post, path = "/openai/v1/chat/completions", operation_id = "openaiCreateChatCompletion", tag = "openai",
    request_body = ChatBody,
    responses(
        (status = 200, description = "The answers, or with `stream` chunks of them",
            content((ChatCompletion = "application/json"), (ChatChunk = "text/event-stream"))),
        OpenAiCompletionProblems
    )
)]
pub async fn create_chat_completion(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<ChatBody>,
) -> ApiResult<Response> {
    let JsonBody { value: body, memory, .. } = body;
    let answering = begin(state, tenant, body.into_asked(tenant)?).await?;
    drop(memory);
    Ok(answer(answering).await?)
}

/// Continue prompts as OpenAI does
///
/// The text that the model generates after each prompt, with log-probabilities if asked for. With `echo` it begins with
/// the prompt, whose tokens are then scored too. With `stream` the answer comes in chunks as server-sent events, the last
/// one `[DONE]`. Nothing is captured or stored, unless the request has the object `residuum`.
#[utoipa::path(
    post, path = "/openai/v1/completions", operation_id = "openaiCreateCompletion", tag = "openai",
    request_body = CompletionBody,
    responses(
        (status = 200, description = "The continuations, or with `stream` chunks of them",
            content((Completion = "application/json"), (Completion = "text/event-stream"))),
        OpenAiCompletionProblems
    )
)]
pub async fn create_completion(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<CompletionBody>,
) -> ApiResult<Response> {
    let JsonBody { value: body, memory, .. } = body;
    let answering = begin(state, tenant, body.into_asked(tenant)?).await?;
    drop(memory);
    Ok(answer(answering).await?)
}

/// Starts a generation.
async fn begin(state: ApiState, tenant: TenantId, asked: Asked) -> Result<(Answering, Delivery), Problem> {
    let Asked { mut run, scoring, form, delivery, echo, logprobs, limit_field, recording } = asked;
    // someone waits for the answer
    run.priority = Priority::Interactive;
    let (recorded, model) = (recording.is_some(), run.model.clone());
    let completing = async {
        if let Some(recording) = recording {
            recording.add_to(&mut run, &state).await?;
        }
        state.engine.complete(CompletionRequest { run, recorded, scoring }).await
    };
    let completing = completing.await.map_err(|problem| relocated(problem, limit_field))?;
    let kind = match form {
        Form::Text => "cmpl",
        Form::Chat => "chatcmpl",
    };
    let head = Head::new(kind, completing.run(), &model, completing.fingerprint());
    let pieces = Pieces::new(&completing, echo, logprobs);
    Ok((Answering { state, tenant, form, completing, pieces, head, logprobs, recorded }, delivery))
}

async fn answer((answering, delivery): (Answering, Delivery)) -> Result<Response, Problem> {
    match delivery {
        Delivery::Stream { include_usage } => Ok(completion_stream::respond(answering, include_usage)),
        Delivery::Whole => match answering.form {
            Form::Text => whole_text(answering).await,
            Form::Chat => whole_chat(answering).await,
        },
    }
}

async fn whole_text(mut answering: Answering) -> Result<Response, Problem> {
    let (n, logprobs) = (answering.completing.n_items(), answering.logprobs);
    let mut choices: Vec<CompletionChoice> = (0..n).map(|i| CompletionChoice::empty(i, logprobs)).collect();
    collect(&mut answering, |index, piece| choices[index].add(piece)).await?;
    let usage = Usage::of(answering.pieces.counts());
    let recorded = answering.recorded().await?;
    Ok(Json(Completion::new(&answering.head, choices, Some(Some(usage)), recorded)).into_response())
}

async fn whole_chat(mut answering: Answering) -> Result<Response, Problem> {
    let (n, logprobs) = (answering.completing.n_items(), answering.logprobs);
    let mut choices: Vec<ChatChoice> = (0..n).map(|i| ChatChoice::empty(i, logprobs)).collect();
    collect(&mut answering, |index, piece| choices[index].add(piece)).await?;
    let usage = Usage::of(answering.pieces.counts());
    let recorded = answering.recorded().await?;
    Ok(Json(ChatCompletion::new(&answering.head, choices, usage, recorded)).into_response())
}

/// Hands every piece of a generation to `add`, until its end.
async fn collect(answering: &mut Answering, mut add: impl FnMut(usize, Piece)) -> Result<(), Problem> {
    let n_items = answering.completing.n_items();
    answering.pieces.first(n_items).into_iter().for_each(|piece| add(piece.index, piece));
    while let Some(event) = answering.completing.next().await {
        let piece = answering.pieces.of(&event, &answering.completing)?;
        if piece.index < n_items {
            add(piece.index, piece);
        }
    }
    Ok(())
}
