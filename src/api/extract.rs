//! Extractors whose refusals are problem objects like every other error.

use std::{fmt, marker::PhantomData, str::FromStr};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use super::{access::Caller, error::ApiError, limits::TooSlow};
use crate::domain::{CacheId, Code, Problem, RunId, TenantId};

/// Whose request it is, as [`super::access::check`] found.
pub struct Tenant(pub TenantId);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // a route that was let through without a caller has no tenant to guess
        let unchecked = || Problem::new(Code::Internal, "the server does not know whose request this is");
        parts.extensions.get::<Caller>().map(|caller| Self(caller.tenant)).ok_or_else(|| unchecked().into())
    }
}

/// A JSON body. Keeps the hash of its bytes for idempotency.
pub struct JsonBody<T> {
    /// The parsed body.
    pub value: T,
    /// blake3 of the bytes as posted.
    pub hash: blake3::Hash,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        require_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                Problem::new(Code::BodyTooLarge, "the body is larger than this server takes; post fewer inputs at once")
            } else if TooSlow::caused(&rejection) {
                Problem::new(Code::RequestTimeout, "the body arrived too slowly; send it again")
            } else {
                Problem::new(Code::InvalidBody, "the body could not be read to its end")
            }
        })?;
        let value = parse(&bytes)?;
        Ok(Self { value, hash: blake3::hash(&bytes) })
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

/// Longest idempotency key.
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

/// Parses in two steps, so that a syntax error and a wrong field are told apart.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let result = serde_path_to_error::deserialize(&mut deserializer);
    let error = match result {
        Ok(Object(value)) => match deserializer.end() {
            Ok(()) => return Ok(value),
            Err(e) => {
                return Err(Problem::new(Code::InvalidJson, format!("there is something behind the JSON value: {e}")));
            }
        },
        Err(e) => e,
    };
    let pointer = pointer(error.path());
    let inner = error.into_inner();
    match inner.classify() {
        serde_json::error::Category::Data => Err(Problem::at(Code::InvalidBody, pointer, inner.to_string())),
        _ => Err(Problem::new(Code::InvalidJson, inner.to_string())),
    }
}

/// Reads a value that was parsed before, with a pointer to what is wrong.
///
/// # Errors
/// [`Code::InvalidBody`].
pub fn read_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value)
        .map_err(|e| Problem::at(Code::InvalidBody, pointer(e.path()), e.inner().to_string()))
}

/// A JSON object. A struct by itself would also be read from an array of its fields, which nobody means.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Object<T>, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
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
    serde_path_to_error::deserialize(deserializer)
        .map_err(|e| Problem::at(Code::InvalidQuery, pointer(e.path()).trim_start_matches('/'), e.inner().to_string()))
}

/// Query parameters of which those named `metadata.KEY` come apart, with their values as JSON where they are some, else as
/// text.
pub struct QueryWithMetadata<T>(pub T, pub Map<String, Value>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryWithMetadata<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or("");
        let mut metadata = Map::new();
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(key) = name.strip_prefix("metadata.").filter(|key| !key.is_empty()) else {
                rest.append_pair(&name, &value);
                continue;
            };
            let value = serde_json::from_str(&value).unwrap_or_else(|_| Value::from(value.as_ref()));
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(Problem::at(Code::InvalidQuery, name.as_ref(), "a key has one value").into());
            }
        }
        Ok(Self(read_query(&rest.finish())?, metadata))
    }
}

/// A query without parameters.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// An id in the path: what cannot be an id names nothing.
pub struct PathId<T>(pub T);

/// Ids that appear in paths.
pub trait ResourceId: FromStr + Send {
    /// The problem of an id that names nothing.
    const NOT_FOUND: Code;
}

impl ResourceId for RunId {
    const NOT_FOUND: Code = Code::RunNotFound;
}

impl ResourceId for CacheId {
    const NOT_FOUND: Code = Code::CacheNotFound;
}

/// The problem of an id that names nothing of this tenant's.
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
