//! Extractors of bodies, queries, path parameters and headers. If they refuse a request, the answer is a problem
//! object.

use std::str::FromStr;

use axum::{
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{error::ApiError, json, key_ring::Caller, memory::Memory, pace::TooSlow, state::ApiState};
use residuum_domain::{CacheId, Code, Problem, RunId, TenantId};

/// The tenant of the request, as [`super::access::check`] found it.
pub struct Tenant(pub TenantId);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // never guess a tenant: without a caller, the access check did not run for this route
        let unchecked = || Problem::new(Code::Internal, "the server does not know whose request this is");
        parts.extensions.get::<Caller>().map(|caller| Self(caller.tenant)).ok_or_else(|| unchecked().into())
    }
}

/// A JSON body as posted, with the memory reserved for it.
pub struct JsonText {
    bytes: Vec<u8>,
    memory: Memory,
}

/// Bodies of at most this many bytes are parsed in place: handing them to another thread would take longer.
const INLINE_BYTES: usize = 64 << 10;

impl JsonText {
    /// Receives a body. Reserves memory for its bytes as they arrive, and then, before it is parsed, for parsing it.
    async fn receive(request: Request, state: &ApiState) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let most = state.config.max_body_bytes;
        let too_large = || {
            let detail =
                format!("the body is larger than {most} bytes, which this server takes; post fewer inputs at once");
            Problem::new(Code::BodyTooLarge, detail)
        };
        let said = request.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|n| n > most) {
            return Err(too_large());
        }
        let mut memory = state.memory.for_request();
        let mut bytes = Vec::with_capacity(said.unwrap_or(0));
        let mut chunks = request.into_body().into_data_stream();
        let (mut refused, mut n_bytes) = (None, 0);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| match TooSlow::caused(&error) {
                true => Problem::new(Code::RequestTimeout, "the body arrived too slowly; send it again"),
                false => Problem::new(Code::InvalidBody, "the body could not be read to its end"),
            })?;
            n_bytes += chunk.len();
            if n_bytes > most {
                return Err(too_large());
            }
            if refused.is_some() {
                continue;
            }
            match memory.reserve_received(chunk.len()) {
                Ok(()) => bytes.extend_from_slice(&chunk),
                // a client that is still sending does not read the answer: receive and discard the rest first
                Err(busy) => {
                    refused = Some(busy);
                    (bytes, memory) = (Vec::new(), state.memory.for_request());
                }
            }
        }
        if let Some(busy) = refused {
            return Err(busy);
        }
        memory.reserve_parsing(json::max_parsing_memory(bytes.len())).await?;
        Ok(Self { bytes, memory })
    }

    /// Parses the text, on another thread if it is large.
    async fn read<T: Send + 'static>(
        self,
        read: impl FnOnce(json::Text<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<JsonBody<T>, Problem> {
        let Self { bytes, memory } = self;
        let is_small = bytes.len() <= INLINE_BYTES;
        let work = move || {
            let value = read(json::Text::new(&bytes)?)?;
            Ok(JsonBody { value, hash: blake3::hash(&bytes), memory })
        };
        if is_small {
            return work();
        }
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "reading a body panicked");
            Err(Problem::new(Code::Internal, "the body could not be read"))
        })
    }
}

/// A parsed JSON body, with the hash of its bytes for idempotency.
pub struct JsonBody<T> {
    /// The parsed body.
    pub value: T,
    /// blake3 of the bytes as posted.
    pub hash: blake3::Hash,
    /// The memory reserved for it, released when this is dropped.
    pub memory: Memory,
}

/// A type that can be parsed from a JSON body: any type with `Deserialize`, or one with its own rules.
pub trait Body: Sized + Send + 'static {
    /// Parses the body.
    ///
    /// # Errors
    /// The [`Problem`] that says what is wrong with it.
    fn read(text: json::Text<'_>) -> Result<Self, Problem>;
}

impl<T: DeserializeOwned + Send + 'static> Body for T {
    fn read(text: json::Text<'_>) -> Result<Self, Problem> {
        text.read()
    }
}

impl<T: Body> FromRequest<ApiState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let text = JsonText::receive(request, state).await?;
        Ok(text.read(T::read).await?)
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, "the body must be sent with Content-Type: application/json"))
}

/// Maximum length of an idempotency key.
const MAX_KEY_CHARS: usize = 255;

/// The idempotency key of a request.
///
/// # Errors
/// [`Code::InvalidHeader`].
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|k| !k.is_empty() && k.len() <= MAX_KEY_CHARS);
    let detail = format!("Idempotency-Key takes 1 to {MAX_KEY_CHARS} visible ASCII characters");
    key.map(|k| Some(k.to_owned())).ok_or_else(|| Problem::at(Code::InvalidHeader, "Idempotency-Key", detail))
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

/// Query parameters; unknown ones are refused, lists are repeated keys.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(read_query(parts.uri.query().unwrap_or(""))?))
    }
}

fn read_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let deserializer = serde_html_form::Deserializer::new(pairs);
    serde_path_to_error::deserialize(deserializer).map_err(|e| {
        Problem::at(Code::InvalidQuery, pointer(e.path()).trim_start_matches('/'), plain(&e.inner().to_string()))
    })
}

/// Rewrites an error of serde for clients: no names of Rust types.
fn plain(error: &str) -> String {
    match error {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "must be a whole number".to_owned()
        }
        "invalid float literal" | "cannot parse float from empty string" => "must be a number".to_owned(),
        "provided string was not `true` or `false`" => "must be true or false".to_owned(),
        "number too large to fit in target type" => "the number is too large".to_owned(),
        "number too small to fit in target type" => "the number is too small".to_owned(),
        other => other
            .replace("unknown field", "unknown parameter")
            .replace("missing field", "missing parameter")
            .replace("duplicate field", "given twice: parameter")
            .replace("unknown variant", "unknown value"),
    }
}

/// Query parameters, with those named `metadata[KEY]` or `metadata.KEY` collected separately. Their values are parsed as
/// JSON if they are valid JSON, else taken as text.
pub struct QueryWithMetadata<T>(pub T, pub Map<String, Value>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryWithMetadata<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or("");
        let mut metadata = Map::new();
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(key) = metadata_key(&name) else {
                rest.append_pair(&name, &value);
                continue;
            };
            let value = serde_json::from_str(&value).unwrap_or_else(|_| Value::from(value.as_ref()));
            if metadata.insert(key, value).is_some() {
                return Err(Problem::at(Code::InvalidQuery, name.as_ref(), "a key may be given only once").into());
            }
        }
        Ok(Self(read_query(&rest.finish())?, metadata))
    }
}

/// The key that a query parameter is about: `a.b` for `metadata.a.b`, `metadata[a.b]` and `metadata[a][b]`.
fn metadata_key(name: &str) -> Option<String> {
    let rest = name.strip_prefix("metadata")?;
    let key = match rest.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.replace("][", "."),
        None => rest.strip_prefix('.')?.to_owned(),
    };
    (!key.is_empty()).then_some(key)
}

/// A query without parameters.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// An id in the path. A text that cannot be an id gives the same 404 as an id that does not exist.
pub struct PathId<T>(pub T);

/// Ids that appear in paths.
pub trait ResourceId: FromStr + Send {
    /// Code of the problem if there is nothing with this id.
    const NOT_FOUND: Code;
}

impl ResourceId for RunId {
    const NOT_FOUND: Code = Code::RunNotFound;
}

impl ResourceId for CacheId {
    const NOT_FOUND: Code = Code::CacheNotFound;
}

/// The problem if this tenant has nothing with this id.
pub fn not_found<T: ResourceId>(id: impl std::fmt::Display) -> Problem {
    let id: String = id.to_string().chars().take(64).collect();
    Problem::new(T::NOT_FOUND, format!("`{id}` is not the id of anything here; it may have been deleted"))
}

impl<S: Send + Sync, T: ResourceId> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let text = path_parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|_| not_found::<T>(text).into())
    }
}

/// The `{hook}` of a path, as text.
pub struct PathHook(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathHook {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        path_parameter(parts, state, "hook").await.map(Self)
    }
}

/// The `{layer}` of a path, as text.
pub struct PathLayer(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathLayer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        path_parameter(parts, state, "layer").await.map(Self)
    }
}

/// The `{direction}` of a path: an id or a name, as text.
pub struct PathDirection(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathDirection {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        path_parameter(parts, state, "direction").await.map(Self)
    }
}

async fn path_parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Problem::new(Code::RouteNotFound, "the path is not valid UTF-8"))?;
    params
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
        .ok_or_else(|| Problem::new(Code::RouteNotFound, "the path lacks a parameter").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_named_with_dots_or_brackets() {
        for (name, key) in [
            ("metadata.split", Some("split")),
            ("metadata.a.b", Some("a.b")),
            ("metadata[split]", Some("split")),
            ("metadata[a.b]", Some("a.b")),
            ("metadata[a][b]", Some("a.b")),
            ("metadata", None),
            ("metadata.", None),
            ("metadata[]", None),
            ("metadata[a", None),
            ("metadata[a]b", None),
            ("metadatas", None),
            ("model", None),
        ] {
            assert_eq!(metadata_key(name).as_deref(), key, "{name}");
        }
    }
}
