//! Errors as clients see them: RFC 9457 problem details with a stable `code`.
//!
//! [`Code`] is the only place that defines the spelling, status and title of an error. A failed run stores the same
//! [`Problem`] that the API would have answered.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $status:literal $name:literal $title:literal;)*) => {
        /// What went wrong, for programs. The names are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl Code {
            /// Every code, in the order of their statuses.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable spelling.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status of the answer.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// A short title, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson = 400 "invalid_json" "The body is not valid JSON";
    /// A field has a value of a wrong type.
    InvalidField = 400 "invalid_field" "A field has a value of the wrong type";
    /// A field is unknown or missing, or fields do not go together.
    InvalidBody = 400 "invalid_body" "The body does not have the documented form";
    /// The body is not a safetensors file.
    InvalidSafetensors = 400 "invalid_safetensors" "The body is not a valid safetensors file";
    /// A query parameter is unknown or malformed.
    InvalidQuery = 400 "invalid_query" "A query parameter is unknown or malformed";
    /// Caches are to be deleted without a condition that selects them.
    FilterMissing = 400 "filter_missing" "At least one condition is needed";
    /// A header is malformed.
    InvalidHeader = 400 "invalid_header" "A header is malformed";
    /// A cursor was not made by this server.
    InvalidCursor = 400 "invalid_cursor" "The cursor is not one this server gave out";
    /// The request shows no API key.
    ApiKeyRequired = 401 "api_key_required" "An API key is required";
    /// The API key is unknown, revoked or expired.
    ApiKeyInvalid = 401 "api_key_invalid" "The API key is not valid";
    /// The API key may not do this.
    ScopeMissing = 403 "scope_missing" "The API key lacks a scope";
    /// The server was started without a place to load from.
    LoadingOff = 403 "loading_off" "This server loads nothing at run time";
    /// The request comes from a page of another origin.
    OriginNotAllowed = 403 "origin_not_allowed" "Pages of this origin may not send requests";
    /// No such route.
    RouteNotFound = 404 "route_not_found" "There is no such route";
    /// No such run.
    RunNotFound = 404 "run_not_found" "There is no such run";
    /// No such cache.
    CacheNotFound = 404 "cache_not_found" "There is no such cache";
    /// No such direction.
    DirectionNotFound = 404 "direction_not_found" "There is no such direction";
    /// No such sparse autoencoder is loaded.
    SaeNotFound = 404 "sae_not_found" "There is no such sparse autoencoder";
    /// The direction lacks this layer or component.
    VectorNotInDirection = 404 "vector_not_in_direction" "The direction does not have this vector";
    /// No such model is served.
    ModelNotFound = 404 "model_not_found" "There is no such model";
    /// The cache lacks this layer.
    LayerNotInCache = 404 "layer_not_in_cache" "The cache does not have this layer";
    /// The cache lacks this hook.
    HookNotInCache = 404 "hook_not_in_cache" "The cache does not have this hook";
    /// The route exists, the method does not.
    MethodNotAllowed = 405 "method_not_allowed" "The route does not take this method";
    /// None of the accepted media types can be produced.
    NotAcceptable = 406 "not_acceptable" "No acceptable representation";
    /// The request took too long to arrive.
    RequestTimeout = 408 "request_timeout" "The request took too long to arrive";
    /// The state of the resource does not allow it.
    Conflict = 409 "conflict" "The resource is in a state that does not allow this";
    /// A condition of the request does not hold.
    PreconditionFailed = 412 "precondition_failed" "A condition of the request does not hold";
    /// The body is larger than this server takes.
    BodyTooLarge = 413 "body_too_large" "The body is too large";
    /// The request asks for more items than a run may have.
    TooManyItems = 413 "too_many_items" "The run has too many items";
    /// The inputs of a run have more tokens than it may have.
    TooManyRunTokens = 413 "too_many_run_tokens" "The run has too many tokens";
    /// The answer or the capture is larger than this server allows.
    ResultTooLarge = 413 "result_too_large" "The result would be too large";
    /// The media type of the body is not taken here.
    UnsupportedMediaType = 415 "unsupported_media_type" "The media type of the body is not supported";
    /// The byte range lies outside the representation.
    RangeNotSatisfiable = 416 "range_not_satisfiable" "The range lies outside the representation";
    /// The request is addressed to a host that this server does not answer for.
    HostNotAllowed = 421 "host_not_allowed" "The server does not answer for this host";
    /// The model is not one this server runs.
    UnknownModel = 422 "unknown_model" "The model is not served here";
    /// What is to be loaded is not where the server may load from, or is no model or autoencoder.
    UnknownSource = 422 "unknown_source" "There is nothing to load at this source";
    /// A model or autoencoder could not be loaded.
    LoadFailed = 422 "load_failed" "It could not be loaded";
    /// The body names a cache that does not exist.
    UnknownCache = 422 "unknown_cache" "There is no such cache";
    /// The body names a direction that does not exist, or a vector that it lacks.
    UnknownDirection = 422 "unknown_direction" "There is no such direction";
    /// The body names a sparse autoencoder that is not loaded, or a feature that it lacks.
    UnknownSae = 422 "unknown_sae" "There is no such sparse autoencoder or feature";
    /// The cache begins with a BOS token and the autoencoder was trained without, or the other way round.
    BosMismatch = 422 "bos_mismatch" "The cache and the autoencoder differ in their BOS token";
    /// The body asks for something a cache did not capture.
    HookNotStored = 422 "hook_not_stored" "A cache did not capture this hook";
    /// The model has no such hook point.
    UnknownHook = 422 "unknown_hook" "The model has no such hook point";
    /// The model has no such layer.
    LayerOutOfRange = 422 "layer_out_of_range" "The model has no such layer";
    /// The input has no such position.
    PositionOutOfRange = 422 "position_out_of_range" "The input has no such position";
    /// The text that positions look for is not in the input.
    TextNotFound = 422 "text_not_found" "The text is not in the input";
    /// The input has no tokens.
    EmptyInput = 422 "empty_input" "The input is empty";
    /// A token id is outside the vocabulary.
    TokenOutOfVocabulary = 422 "token_out_of_vocabulary" "A token id is outside the vocabulary";
    /// The input is longer than the model's context.
    TooManyTokens = 422 "too_many_tokens" "The input is longer than the model's context";
    /// The tokenizer has no beginning-of-sequence token.
    NoBosToken = 422 "no_bos_token" "The tokenizer has no beginning-of-sequence token";
    /// The model has no chat template.
    NoChatTemplate = 422 "no_chat_template" "The model has no chat template";
    /// The chat template refused the messages.
    ChatTemplateFailed = 422 "chat_template_failed" "The chat template refused the messages";
    /// The model cannot continue a text.
    CannotGenerate = 422 "cannot_generate" "The model cannot generate text";
    /// The model's residual stream is not the sum of what is added to it, or there is no unembedding.
    NotReadable = 422 "not_readable" "The model's residual stream cannot be read as logits";
    /// A field's value is understood and impossible.
    InvalidValue = 422 "invalid_value" "A value is understood but not possible";
    /// The idempotency key was used with another body.
    IdempotencyKeyReused = 422 "idempotency_key_reused" "The idempotency key was used with another body";
    /// The tensors cannot be compared or stacked.
    ShapeMismatch = 422 "shape_mismatch" "The tensors have incompatible shapes";
    /// The client has as much in the queue as one may have.
    ClientQueueFull = 429 "client_queue_full" "The client's part of the queue is full";
    /// The queue has no room now.
    QueueFull = 429 "queue_full" "The queue is full";
    /// The headers are larger than this server takes.
    HeadersTooLarge = 431 "headers_too_large" "The headers are too large";
    /// A mistake in the server.
    Internal = 500 "internal_error" "The server made a mistake";
    /// The stored data could not be read back.
    BlobDamaged = 500 "blob_damaged" "Stored activations could not be read back";
    /// The worker failed on this unit repeatedly.
    WorkerFailed = 500 "worker_failed" "The worker failed while computing this";
    /// The server is starting or stopping.
    Unavailable = 503 "unavailable" "The server is not taking requests now";
    /// What is to be loaded needs more memory than is free.
    NotEnoughMemory = 503 "not_enough_memory" "There is not enough memory to load this";
    /// Requests under way take all the memory that requests may take.
    ServerBusy = 503 "server_busy" "Other requests take all the memory there is for requests";
    /// The answer took longer than this server allows.
    TimedOut = 503 "timed_out" "The answer took too long";
    /// The store has no room.
    StoreFull = 507 "store_full" "The store is full";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON pointer into the body (`/input/37`), or the name of a query parameter.
    pub pointer: String,
    /// What is wrong with it and what would be right.
    pub detail: String,
}

/// An error with everything a client needs to act on it. Never carries paths, SQL or backtraces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// For people: what was wrong and what would be right.
    pub detail: String,
    /// The fields at fault, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Seconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem without fields at fault.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after: None }
    }

    /// A problem with one field, whose detail it shares.
    pub fn at(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let field = FieldError { pointer: pointer.into(), detail: detail.clone() };
        Self { code, detail, errors: vec![field], retry_after: None }
    }

    /// Prepends `prefix` to every pointer, for a problem that was found in a part of the body.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for e in &mut self.errors {
            e.pointer.insert_str(0, prefix);
        }
        self
    }

    /// Sets the seconds after which a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_serialise_as_their_names() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for c in Code::ALL {
            assert_eq!(serde_json::to_value(c).unwrap(), c.name());
            assert!((400..600).contains(&c.status()));
        }
    }

    #[test]
    fn pointers_are_seen_from_outside() {
        let p = Problem::at(Code::EmptyInput, "/text", "no tokens").under("/items/3");
        assert_eq!(p.errors[0].pointer, "/items/3/text");
    }
}
