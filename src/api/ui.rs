//! The dashboard: a page of three files, built from `ui/` and embedded in the program.
//!
//! It needs no key to load, because it holds nothing of the store: it asks the routes of the API, like any other client.
//! A path below `/ui/` is a place in the page, which reads the path itself, so all of them are answered with the page.

use std::{io::Write, sync::LazyLock};

use axum::{
    Router,
    body::Body,
    extract::RawQuery,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::{
    error::{ApiError, ApiResult},
    tensor::knows_tag,
};
use residuum_domain::{Code, Problem};

static PAGE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/html; charset=utf-8", include_bytes!("../../ui/dist/index.html")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/javascript; charset=utf-8", include_bytes!("../../ui/dist/app.js")));
static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/css; charset=utf-8", include_bytes!("../../ui/dist/app.css")));

/// What the page may load and do: its own files and the routes of this server, no inline script or style, no frame
/// around it, no text that becomes a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data: blob:; connect-src 'self'; manifest-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Features of browsers that the page does not use.
const PERMISSIONS_POLICY: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
    magnetometer=(), microphone=(), midi=(), payment=(), usb=()";

/// Headers of every answer with a file of the page.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-cache"),
    (header::VARY, "accept-encoding"),
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY),
];

/// Endings of files that a page loads. A path that ends so is not a place in the page, and a file that does not exist is
/// better missing than HTML. An id that ends so can be written with `%2E`.
const ENDINGS: [&str; 19] = [
    "js",
    "mjs",
    "css",
    "map",
    "json",
    "webmanifest",
    "wasm",
    "txt",
    "xml",
    "png",
    "jpg",
    "jpeg",
    "gif",
    "svg",
    "webp",
    "avif",
    "ico",
    "woff",
    "woff2",
];

/// The routes of the page. Queries are the page's own, so any are accepted.
pub fn router() -> Router {
    Router::new()
        .route("/ui", get(to_page))
        .route("/ui/", get(async |headers: HeaderMap| PAGE.answer(&headers)))
        .route("/ui/app.js", get(async |headers: HeaderMap| SCRIPT.answer(&headers)))
        .route("/ui/app.css", get(async |headers: HeaderMap| STYLE.answer(&headers)))
        .route("/ui/{*place}", get(place))
}

/// The slash at the end decides what relative paths mean.
async fn to_page(RawQuery(query): RawQuery) -> Redirect {
    Redirect::permanent(&query.map_or_else(|| "/ui/".to_owned(), |query| format!("/ui/?{query}")))
}

/// The page, at one of its places.
async fn place(uri: Uri, headers: HeaderMap) -> ApiResult<Response> {
    if names_file(uri.path()) {
        let detail = "the dashboard has no such file; it consists of /ui/, /ui/app.js and /ui/app.css";
        return Err(ApiError(Problem::new(Code::RouteNotFound, detail)));
    }
    Ok(PAGE.answer(&headers))
}

/// Whether a path, percent-encoded as it was sent, ends in the name of a file that a page loads.
fn names_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    ending.is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// A file of the page.
struct Asset {
    media_type: &'static str,
    plain: Form,
    gzip: Form,
}

/// The bytes of a file in one encoding, with their entity tag.
struct Form {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Asset {
    /// Compresses the file, which takes some milliseconds.
    fn new(media_type: &'static str, bytes: &'static [u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
        let gzip = Form::new(written.expect("a vector takes all bytes").into());
        Self { media_type, plain: Form::new(Bytes::from_static(bytes)), gzip }
    }

    /// The file in the encoding that the client prefers, or 304 if the client has it.
    fn answer(&self, request: &HeaderMap) -> Response {
        let is_gzip = prefers_gzip(request);
        let form = if is_gzip { &self.gzip } else { &self.plain };
        let mut headers: HeaderMap =
            HEADERS.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
        headers.insert(header::ETAG, form.tag.clone());
        if knows_tag(request, &form.tag) {
            return (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response();
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(form.bytes.len()));
        if is_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        (headers, Body::from(form.bytes.clone())).into_response()
    }
}

impl Form {
    fn new(bytes: Bytes) -> Self {
        let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
        Self { bytes, tag: HeaderValue::from_str(&tag).expect("hex digits between quotes") }
    }
}

/// Whether a client accepts gzip, and does not prefer the file without an encoding (RFC 9110, section 12.5.3).
fn prefers_gzip(request: &HeaderMap) -> bool {
    let given = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut gzip, mut identity, mut others) = (None, None, None);
    for (coding, weight) in given.flat_map(|value| value.split(',')).filter_map(weighed) {
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => others = Some(weight),
            _ => {}
        }
    }
    let weight = gzip.or(others).unwrap_or(0.0);
    weight > 0.0 && weight >= identity.or(others).unwrap_or(0.0)
}

/// A coding of an `Accept-Encoding` header with its weight; `None` if the weight is malformed.
fn weighed(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let coding = parts.next()?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |text| text.parse().ok())?;
    (0.0..=1.0).contains(&weight).then_some((coding, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_the_one_that_the_client_prefers() {
        let prefers = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (header::ACCEPT_ENCODING, HeaderValue::from_static(value)));
            let mut given = HeaderMap::new();
            headers.for_each(|(name, value)| {
                given.append(name, value);
            });
            prefers_gzip(&given)
        };
        for gzip in [
            &["gzip"][..],
            &["GZIP"],
            &["x-gzip"],
            &["gzip, deflate, br, zstd"],
            &["br;q=1.0, gzip;q=0.8, *;q=0.1"],
            &["*"],
            &["br", "gzip"],
            &["identity;q=0.5, gzip;q=0.5"],
            &["identity;q=0, gzip ; q=0.001"],
            &["identity;q=0, *;q=0.5"],
        ] {
            assert!(prefers(gzip), "{gzip:?}");
        }
        for plain in [
            &[][..],
            &[""],
            &["identity"],
            &["br, zstd"],
            &["gzip;q=0"],
            &["gzip;q=0, *"],
            &["gzip;Q=0.000"],
            &["*;q=0"],
            &["identity, gzip;q=0.5"],
            &["gzip;q=0.2, *;q=0.5"],
            &["gzip;q=x"],
            &["gzip;q=NaN"],
            &["gzip;q=2"],
            &["gzipped"],
        ] {
            assert!(!prefers(plain), "{plain:?}");
        }
    }

    #[test]
    fn files_are_told_from_places_by_their_endings() {
        for file in ["/ui/app.js.map", "/ui/logo.PNG", "/ui/a/favicon.ico", "/ui/.css", "/ui/app.mjs"] {
            assert!(names_file(file), "{file}");
        }
        for place in ["/ui/caches", "/ui/models/Qwen3-0.6B", "/ui/app.js/", "/ui/x.js/y", "/ui/models/x%2Ejs", "/ui/."]
        {
            assert!(!names_file(place), "{place}");
        }
    }
}
