//! Sends a tensor as an HTTP response: formats, entity tags, conditions and byte ranges.

use std::ops::Range;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;

use super::{
    assembly::{Assembly, Part},
    format::{Format, HeaderEntry, npy_header, safetensors_header},
    json::{JsonValues, TensorValues, nested},
    tensor_query::{DtypeParam, Encoding, TensorSpec},
};
use crate::api::{
    error::{ApiError, ApiResult},
    state::ApiState,
};
use residuum_domain::{Axis, Code, Dtype, Hook, Problem};
use residuum_engine::questions::blocking;
use residuum_store::Store;

/// Tensors of at most this many elements are written as JSON on the async thread, larger ones on a blocking thread.
const INLINE_ELEMENTS: usize = 1 << 14;

/// Header with the shape of the tensor, e.g. `30,576`.
pub const SHAPE: HeaderName = HeaderName::from_static("residuum-shape");
/// Header with the element type.
pub const DTYPE: HeaderName = HeaderName::from_static("residuum-dtype");
/// Header with the axes, e.g. `layer,d_model`.
pub const AXES: HeaderName = HeaderName::from_static("residuum-axes");
/// Header with the hook.
const HOOK: HeaderName = HeaderName::from_static("residuum-hook");
/// Header with the requested type, if the format does not have it and another is sent.
pub const CONVERTED_FROM: HeaderName = HeaderName::from_static("residuum-converted-from");

/// Header with the positions, if the request did not give them by number, e.g. `1:4,6`.
pub const POSITIONS: HeaderName = HeaderName::from_static("residuum-positions");

/// Our headers that scripts in browsers may read (CORS).
pub const EXPOSED: [HeaderName; 6] = [SHAPE, DTYPE, AXES, HOOK, CONVERTED_FROM, POSITIONS];

/// A tensor as JSON.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tensor, example = json!({
    "hook": "blocks.12.hook_resid_post", "layer": 12, "shape": [3], "dtype": "float32", "axes": ["d_model"],
    "values": [0.25, -1.5, 0.125], "n_nan": 0, "n_inf": 0
}))]
pub struct TensorDto {
    /// Full hook name; the name without the layer for a stack of layers.
    pub hook: String,
    /// The layer, for a single hook inside the blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The layers that are stacked along the first axis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// The caches that are stacked or concatenated along the first axis, in the order of the inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caches: Option<Vec<String>>,
    /// If rows are concatenated because their numbers differ: index of the first row of each cache, and at the end the
    /// total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offsets: Option<Vec<usize>>,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Element type: `float32`, `float16` or `bfloat16`.
    #[schema(value_type = DtypeParam)]
    pub dtype: &'static str,
    /// Names of the axes.
    pub axes: Vec<&'static str>,
    /// `base64` if `values` is a base64 string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Encoding>)]
    pub encoding: Option<&'static str>,
    /// Nested arrays like numpy's `tolist`, with null for NaN and infinities; or base64 of the little-endian elements.
    #[schema(value_type = TensorValues)]
    pub values: Box<RawValue>,
    /// Number of values that are NaN.
    pub n_nan: u64,
    /// Number of values that are infinite.
    pub n_inf: u64,
}

/// A tensor to send: where its elements are stored, and what they mean.
#[derive(Clone)]
pub struct TensorAnswer {
    /// Name of the hook in the response.
    pub hook: String,
    /// The layer of a single block hook.
    pub layer: Option<usize>,
    /// Layers of a stack.
    pub layers: Option<Vec<usize>>,
    /// Caches in the tensor of a run.
    pub caches: Option<Vec<String>>,
    /// Row offsets of the caches in the tensor of a run.
    pub offsets: Option<Vec<usize>>,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Names of the axes.
    pub axes: Vec<Axis>,
    /// Element type of the parts.
    pub dtype: Dtype,
    /// Whether the values were rounded to bfloat16 and are sent in float32.
    pub widened: bool,
    /// The elements.
    pub parts: Vec<Part>,
}

impl TensorAnswer {
    /// The answer with one hook.
    pub fn of_hook(hook: Hook, shape: Vec<usize>, axes: Vec<Axis>, dtype: Dtype, parts: Vec<Part>) -> Self {
        let (name, layer) = (hook.to_string(), hook.layer());
        Self { hook: name, layer, layers: None, caches: None, offsets: None, shape, axes, dtype, widened: false, parts }
    }

    fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn assembly(&self, prefix: Option<Vec<u8>>) -> Assembly {
        let mut assembly = Assembly::default();
        prefix.into_iter().for_each(|p| assembly.push(Part::Made(p.into())));
        self.parts.iter().cloned().for_each(|p| assembly.push(p));
        assembly
    }

    /// The tensor as a JSON object.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`] for more than `max_elements`; errors of the store.
    pub async fn json(self, store: Store, encoding: Encoding, max_elements: usize) -> Result<TensorDto, Problem> {
        let n = self.n_elements();
        if n > max_elements {
            let detail = format!(
                "{n} elements are too many for JSON (at most {max_elements}); request format=npy, safetensors or raw"
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        let bytes = self.assembly(None).read_all(store).await?;
        let (dtype, shape) = (self.dtype, self.shape.clone());
        let write = move || json_values(&bytes, dtype, &shape, encoding);
        let JsonValues { text, n_nan, n_inf } =
            if n > INLINE_ELEMENTS { blocking(move || Ok(write())).await? } else { write() };
        let values = RawValue::from_string(text)
            .map_err(|_| Problem::new(Code::Internal, "a tensor could not be written as JSON"))?;
        Ok(TensorDto {
            hook: self.hook,
            layer: self.layer,
            layers: self.layers,
            caches: self.caches,
            offsets: self.offsets,
            shape: self.shape,
            dtype: self.dtype.name(),
            axes: self.axes.iter().map(|a| a.name()).collect(),
            encoding: (encoding == Encoding::Base64).then_some("base64"),
            values,
            n_nan,
            n_inf,
        })
    }

    fn headers(&self) -> Result<HeaderMap, Problem> {
        let mut headers = HeaderMap::new();
        let join = |items: Vec<String>| HeaderValue::from_str(&items.join(",")).map_err(|_| header_error());
        headers.insert(SHAPE, join(self.shape.iter().map(ToString::to_string).collect())?);
        headers.insert(AXES, join(self.axes.iter().map(|a| a.name().to_owned()).collect())?);
        headers.insert(DTYPE, HeaderValue::from_static(self.dtype.name()));
        headers.insert(HOOK, HeaderValue::from_str(&self.hook).map_err(|_| header_error())?);
        if self.widened {
            headers.insert(CONVERTED_FROM, HeaderValue::from_static(Dtype::BFloat16.name()));
        }
        Ok(headers)
    }

    fn safetensors_prefix(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let n_bytes = (self.n_elements() * self.dtype.size()) as u64;
        let mut entries = Vec::new();
        // offsets first: after two-byte elements, their eight-byte elements would be unaligned
        let offsets: Option<Vec<u8>> =
            self.offsets.as_ref().map(|o| o.iter().flat_map(|v| (*v as u64).to_le_bytes()).collect());
        if let Some(bytes) = &offsets {
            let shape = vec![bytes.len() / 8];
            entries.push(HeaderEntry { name: "offsets".into(), dtype: "I64", shape, n_bytes: bytes.len() as u64 });
        }
        let (name, dtype) = (self.hook.clone(), self.dtype.safetensors_name());
        entries.push(HeaderEntry { name, dtype, shape: self.shape.clone(), n_bytes });
        let mut metadata = Map::new();
        metadata.insert("format".into(), Value::from("pt"));
        let axes: Vec<&str> = self.axes.iter().map(|a| a.name()).collect();
        metadata.insert("axes".into(), Value::from(axes.join(",")));
        if let Some(layers) = &self.layers {
            metadata.insert("layers".into(), Value::from(Value::from(layers.clone()).to_string()));
        }
        if let Some(caches) = &self.caches {
            metadata.insert("caches".into(), Value::from(Value::from(caches.clone()).to_string()));
        }
        (safetensors_header(&entries, &metadata), offsets)
    }
}

/// Writes the elements as a JSON value.
fn json_values(bytes: &[u8], dtype: Dtype, shape: &[usize], encoding: Encoding) -> JsonValues {
    let floats = dtype.decode(bytes);
    match encoding {
        Encoding::Nested => nested(&floats, shape),
        Encoding::Base64 => JsonValues {
            text: format!("\"{}\"", BASE64_STANDARD.encode(bytes)),
            n_nan: floats.iter().filter(|v| v.is_nan()).count() as u64,
            n_inf: floats.iter().filter(|v| v.is_infinite()).count() as u64,
        },
    }
}

fn header_error() -> Problem {
    Problem::new(Code::Internal, "a header could not be written")
}

/// Sends a tensor in the requested format.
///
/// # Errors
/// [`Code::NotAcceptable`], [`Code::ResultTooLarge`], [`Code::RangeNotSatisfiable`] and errors of the store.
pub async fn respond(
    make: impl FnOnce(Option<Dtype>) -> Result<TensorAnswer, Problem>,
    spec: &TensorSpec,
    request: &HeaderMap,
    store: &Store,
    max_json: usize,
) -> ApiResult<Response> {
    let format = Format::negotiate(spec.format, request)?;
    let mut answer = make(spec.dtype)?;
    if format == Format::Npy && answer.dtype == Dtype::BFloat16 {
        answer = widen(answer);
    }
    let mut headers = answer.headers()?;
    if format == Format::Json {
        headers.insert(header::ETAG, etag(&answer.assembly(None), spec.encoding as u8));
        if let Some(not_modified) = conditions(request, &headers)? {
            return Ok(not_modified);
        }
        let dto = answer.json(store.clone(), spec.encoding, max_json).await?;
        return Ok((headers, axum::Json(dto)).into_response());
    }
    let assembly = match format {
        Format::Npy => answer.assembly(Some(npy_header(answer.dtype, &answer.shape))),
        Format::Safetensors => {
            let (mut prefix, offsets) = answer.safetensors_prefix();
            prefix.extend(offsets.unwrap_or_default());
            answer.assembly(Some(prefix))
        }
        Format::Raw | Format::Json => answer.assembly(None),
    };
    let name = format!("{}.{}", answer.hook, format.extension().unwrap_or("bin"));
    Ok(binary(assembly, format.media_type(), &name, headers, request, store).await?)
}

/// Sends a tensor in a binary format as the answer to a POST. Headers of the request are ignored, since ranges and
/// conditions are only for GET.
///
/// # Errors
/// As [`respond`].
pub async fn respond_to_post(answer: TensorAnswer, format: Format, state: &ApiState) -> ApiResult<Response> {
    let spec = TensorSpec { wanted: None, dtype: None, format: Some(format), encoding: Encoding::Nested };
    let (store, max_json) = (state.engine.store(), state.config.max_json_elements);
    let mut response = respond(|_| Ok(answer), &spec, &HeaderMap::new(), store, max_json).await?;
    response.headers_mut().remove(header::ACCEPT_RANGES);
    Ok(response)
}

/// The same tensor in float32.
fn widen(mut answer: TensorAnswer) -> TensorAnswer {
    answer.dtype = Dtype::Float32;
    answer.widened = true;
    for part in &mut answer.parts {
        match part {
            Part::Stored { sent, .. } => *sent = Dtype::Float32,
            // only exports make these, and they widen them themselves
            Part::Computed { .. } => {}
            Part::Made(bytes) => {
                *bytes = Bytes::from(super::assembly::convert(bytes.to_vec(), Dtype::BFloat16, Dtype::Float32));
            }
        }
    }
    answer
}

/// Sends bytes with a strong entity tag; applies `If-Match`, `If-None-Match`, `Range` and `If-Range`.
///
/// # Errors
/// [`Code::PreconditionFailed`], [`Code::RangeNotSatisfiable`] and errors of the store.
pub async fn binary(
    assembly: Assembly,
    media_type: &'static str,
    file_name: &str,
    mut headers: HeaderMap,
    request: &HeaderMap,
    store: &Store,
) -> Result<Response, Problem> {
    headers.insert(header::ETAG, etag(&assembly, u8::MAX));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    let disposition = format!("attachment; filename=\"{file_name}\"");
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_str(&disposition).map_err(|_| header_error())?);
    if let Some(not_modified) = conditions(request, &headers)? {
        return Ok(not_modified);
    }
    let total = assembly.len();
    let range = match wanted_range(request, &headers, total) {
        Ok(range) => range,
        Err(problem) => return Ok(not_satisfiable(problem, total)),
    };
    let (status, range) = match range {
        Some(range) => {
            let content_range = format!("bytes {}-{}/{total}", range.start, range.end - 1);
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&content_range).map_err(|_| header_error())?);
            (StatusCode::PARTIAL_CONTENT, range)
        }
        None => (StatusCode::OK, 0..total),
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let body = assembly.body(store.clone(), range).await?;
    Ok((status, headers, body).into_response())
}

/// The entity tag: a hash of all that decides the bytes: content, hook, positions, dtype (all in the parts) and format.
fn etag(assembly: &Assembly, format: u8) -> HeaderValue {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[format]);
    assembly.identify(&mut hasher);
    let tag = format!("\"{}\"", &hasher.finalize().to_hex()[..32]);
    HeaderValue::from_str(&tag).expect("hex digits between quotes")
}

/// Evaluates the conditions of a request in the order of RFC 9110, section 13.2.2: an error for 412, a response for
/// 304, or `None` to send the full response.
fn conditions(request: &HeaderMap, headers: &HeaderMap) -> Result<Option<Response>, Problem> {
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    if let Some(given) = request.get(header::IF_MATCH) {
        // strong comparison: a weak tag never matches
        let listed = given.to_str().unwrap_or_default().split(',').map(str::trim);
        if !listed.clone().any(|t| t == tag || t == "*") {
            let detail = format!("the representation has the entity tag {tag}, but If-Match requires another");
            return Err(Problem::new(Code::PreconditionFailed, detail));
        }
    }
    Ok(if_none_match(request, headers))
}

/// Whether `If-None-Match` has this entity tag, so that the client needs no bytes. The comparison is the weak one.
pub fn knows_tag(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let given = request.get(header::IF_NONE_MATCH).and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == tag || t == "*")
}

fn if_none_match(request: &HeaderMap, headers: &HeaderMap) -> Option<Response> {
    knows_tag(request, headers.get(header::ETAG)?).then(|| {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().insert(header::ETAG, headers[header::ETAG].clone());
        *response.body_mut() = Body::empty();
        response
    })
}

/// The requested byte range; `None` for the whole, also if several ranges are requested.
fn wanted_range(request: &HeaderMap, headers: &HeaderMap, total: u64) -> Result<Option<Range<u64>>, Problem> {
    let Some(value) = request.get(header::RANGE) else { return Ok(None) };
    if request.get(header::IF_RANGE).is_some_and(|v| Some(v) != headers.get(header::ETAG)) {
        return Ok(None);
    }
    let refuse = || {
        let detail =
            format!("request bytes=FIRST-LAST, FIRST- or -COUNT within the {total} bytes of this representation");
        Problem::new(Code::RangeNotSatisfiable, detail)
    };
    // unknown units are ignored (RFC 9110, section 14.2); names of units are not case-sensitive
    let Some((unit, spec)) = value.to_str().ok().and_then(|v| v.split_once('=')) else { return Ok(None) };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ok(None);
    }
    if spec.contains(',') {
        return Ok(None);
    }
    parse_range(spec, total).map(Some).ok_or_else(refuse)
}

/// The 416 response. RFC 9110 requires a header with the length of the representation.
fn not_satisfiable(problem: Problem, total: u64) -> Response {
    let mut response = ApiError(problem).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{total}")) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

fn parse_range(spec: &str, total: u64) -> Option<Range<u64>> {
    let digits = |s: &str| if s.bytes().all(|b| b.is_ascii_digit()) { s.parse::<u64>().ok() } else { None };
    let (first, last) = spec.trim().split_once('-')?;
    let range = match (first, last) {
        ("", n) => total.saturating_sub(digits(n).filter(|n| *n > 0)?)..total,
        (first, "") => digits(first)?..total,
        (first, last) => {
            let (first, last) = (digits(first)?, digits(last)?);
            if last < first {
                return None;
            }
            first..total.min(last.saturating_add(1))
        }
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        assert_eq!(parse_range("0-3", 10), Some(0..4));
        assert_eq!(parse_range("8-99", 10), Some(8..10));
        assert_eq!(parse_range("-3", 10), Some(7..10));
        assert_eq!(parse_range("-30", 10), Some(0..10));
        assert_eq!(parse_range("4-", 10), Some(4..10));
        assert_eq!(parse_range("0-18446744073709551615", 10), Some(0..10));
        for bad in ["10-", "5-4", "-0", "", "-", "a-b", "+1-2", "1", "99999999999999999999-"] {
            assert_eq!(parse_range(bad, 10), None, "{bad}");
        }
        assert_eq!(parse_range("0-", 0), None);
    }
}
