//! Errors in OpenAI's shape, for every answer under `/openai/`.

use axum::{
    Json,
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use residuum_domain::{Code, Problem};

/// Paths whose errors have OpenAI's shape.
pub const PREFIX: &str = "/openai/";

/// An error as OpenAI's API writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OpenAiError, example = json!({"error": {
    "message": "there is no model `gpt-4o` here; there is smollm2-135m", "type": "not_found_error", "param": "model",
    "code": "model_not_found"
}}))]
pub struct OpenAiErrorDto {
    error: OpenAiErrorBody,
}

/// What was wrong.
#[derive(Debug, Serialize, ToSchema)]
struct OpenAiErrorBody {
    /// What was wrong and what would be right.
    message: String,
    /// `invalid_request_error`, `authentication_error`, `permission_error`, `not_found_error`, `rate_limit_error` or
    /// `server_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field at fault, such as `messages[0].content`.
    param: Option<String>,
    /// Stable code for programs.
    code: &'static str,
}

impl OpenAiErrorDto {
    /// A problem in OpenAI's words.
    pub fn of(problem: &Problem) -> Self {
        let param = problem.errors.first().map(|error| param(&error.pointer)).filter(|param| !param.is_empty());
        let kind = kind(status(problem.code));
        Self { error: OpenAiErrorBody { message: problem.detail.clone(), kind, param, code: name(problem.code) } }
    }
}

/// The status of a problem: OpenAI's API has 400 where ours has 422, and 404 for a model that does not exist, also if the
/// body names it.
pub fn status(code: Code) -> u16 {
    match (code, code.status()) {
        (Code::UnknownModel, _) => 404,
        (_, 422) => 400,
        (_, status) => status,
    }
}

/// The code of a problem. Two are OpenAI's own, because clients look for them.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::UnknownModel => Code::ModelNotFound.name(),
        Code::TooManyTokens => "context_length_exceeded",
        code => code.name(),
    }
}

fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// A JSON pointer as OpenAI writes it: `/messages/0/content` becomes `messages[0].content`.
fn param(pointer: &str) -> String {
    let mut text = String::new();
    for step in pointer.split('/').filter(|step| !step.is_empty()) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if !text.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) {
            text.push_str(&format!("[{step}]"));
        } else {
            text.push_str(if text.is_empty() { "" } else { "." });
            text.push_str(&step);
        }
    }
    text
}

/// Middleware: writes errors under `/openai/` in OpenAI's shape, whichever part of the server found them.
pub async fn shape(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    shaped(&path, next.run(request).await)
}

/// The answer to a request for this path: an error under `/openai/` in OpenAI's shape, all others as they are.
pub fn shaped(path: &str, mut response: Response) -> Response {
    let problem = response.extensions_mut().remove::<Problem>().filter(|_| path.starts_with(PREFIX));
    let Some(problem) = problem else { return response };
    let status = StatusCode::from_u16(status(problem.code)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut shaped = (status, Json(OpenAiErrorDto::of(&problem))).into_response();
    let replaced = [header::CONTENT_TYPE, header::CONTENT_LENGTH];
    for (name, value) in response.headers().iter().filter(|(name, _)| !replaced.contains(name)) {
        shaped.headers_mut().append(name.clone(), value.clone());
    }
    shaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_become_params() {
        for (pointer, expected) in [
            ("/messages/0/content", "messages[0].content"),
            ("/model", "model"),
            ("", ""),
            ("/input/37", "input[37]"),
            ("/residuum/interventions/2/hook", "residuum.interventions[2].hook"),
            ("Host", "Host"),
            ("/logit_bias/50256", "logit_bias[50256]"),
            ("/a~1b/0/1", "a/b[0][1]"),
        ] {
            assert_eq!(param(pointer), expected);
        }
    }

    #[test]
    fn statuses_and_types_are_those_of_openai() {
        let known = |code: Code| (status(code), kind(status(code)), name(code));
        assert_eq!(known(Code::UnknownModel), (404, "not_found_error", "model_not_found"));
        assert_eq!(known(Code::TooManyTokens), (400, "invalid_request_error", "context_length_exceeded"));
        assert_eq!(known(Code::InvalidValue), (400, "invalid_request_error", "invalid_value"));
        assert_eq!(known(Code::ApiKeyInvalid), (401, "authentication_error", "api_key_invalid"));
        assert_eq!(known(Code::ScopeMissing), (403, "permission_error", "scope_missing"));
        assert_eq!(known(Code::QueueFull), (429, "rate_limit_error", "queue_full"));
        assert_eq!(known(Code::BodyTooLarge), (413, "invalid_request_error", "body_too_large"));
        assert_eq!(known(Code::StoreFull), (507, "server_error", "store_full"));
        assert!(Code::ALL.iter().all(|code| status(*code) != 422));
    }
}
