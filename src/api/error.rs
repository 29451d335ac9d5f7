//! Problems as HTTP responses: all errors have one shape, whichever part of the server found them.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use residuum_domain::{Code, FieldError, Problem};
use residuum_store::StoreError;

/// An RFC 9457 problem object.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "urn:residuum:problem:layer_out_of_range", "title": "The model has no such layer", "status": 422,
    "detail": "layer 30 does not exist: the model has 30 layers, 0 to 29", "code": "layer_out_of_range",
    "errors": [{"pointer": "/capture/layers", "detail": "layer 30 does not exist: the model has 30 layers, 0 to 29"}]
}))]
pub struct ProblemDto {
    /// URN of the kind of problem; ends in the code.
    #[serde(rename = "type")]
    kind: String,
    /// Short title, the same for every occurrence.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong here and what would be right.
    detail: String,
    /// Stable code for programs.
    #[schema(value_type = ErrorCode)]
    code: &'static str,
    /// The fields at fault, if any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldErrorDto>,
}

/// The codes of problems.
struct ErrorCode;

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let names = Code::ALL.iter().map(|code| code.name());
        let codes = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        codes.description(Some("Stable code of a problem. Later versions may add codes.")).into()
    }
}

impl ToSchema for ErrorCode {}

/// One field at fault.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct FieldErrorDto {
    /// JSON pointer into the body, or the name of a query parameter.
    pointer: String,
    /// What is wrong with it.
    detail: String,
}

impl From<Problem> for ProblemDto {
    fn from(p: Problem) -> Self {
        Self {
            kind: format!("urn:residuum:problem:{}", p.code),
            title: p.code.title(),
            status: p.code.status(),
            detail: p.detail,
            code: p.code.name(),
            errors: p
                .errors
                .into_iter()
                .map(|FieldError { pointer, detail }| FieldErrorDto { pointer, detail })
                .collect(),
        }
    }
}

/// The error type of handlers.
#[derive(Debug)]
pub struct ApiError(pub Problem);

/// A handler's result.
pub type ApiResult<T> = Result<T, ApiError>;

impl From<Problem> for ApiError {
    fn from(p: Problem) -> Self {
        Self(p)
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        Self(e.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        metrics::counter!("residuum_errors_total", "code" => problem.code.name()).increment(1);
        let status = StatusCode::from_u16(problem.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = problem.retry_after;
        let mut response = (status, Json(ProblemDto::from(problem.clone()))).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // for routes that write errors in another shape
        response.extensions_mut().insert(problem);
        response
    }
}

/// The answer if no route matches the path.
pub async fn route_not_found() -> ApiError {
    Problem::new(
        Code::RouteNotFound,
        "there is nothing at this path; the routes are listed at /docs and in /openapi.json",
    )
    .into()
}

/// The answer if the path has routes only for other methods, which the `Allow` header lists.
pub async fn method_not_allowed() -> ApiError {
    Problem::new(Code::MethodNotAllowed, "this path does not take this method; the Allow header lists those it takes")
        .into()
}

/// The answer if a handler panicked. Details go to the log only.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer wants")]
pub fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text, "a handler panicked");
    ApiError(Problem::new(Code::Internal, "an internal error; the log of the server has the details")).into_response()
}
