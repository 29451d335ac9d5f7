//! A request to the server, before it is sent.

use std::time::Duration;

use serde_json::Value;
use ureq::http;

/// How long a request is repeated while the server is busy or away.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: http::Method,
    path: String,
    query: Vec<(&'a str, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// What the server may wait before it answers.
    pub(super) wait: Duration,
    /// Whether sending it twice is the same as sending it once.
    pub(super) repeatable: bool,
    /// How long it is repeated while the server is busy or away.
    pub(super) patience: Duration,
}

/// A part of a path, percent-encoded.
pub(super) fn segment(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    // `.` and `..` would be taken out of the path
    if matches!(text, "." | "..") {
        return text.replace('.', "%2E");
    }
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl<'a> Call<'a> {
    fn new(method: http::Method, path: impl Into<String>) -> Self {
        let repeatable = method == http::Method::GET;
        let (path, patience) = (path.into(), PATIENCE);
        Self {
            method,
            path,
            query: Vec::new(),
            body: None,
            headers: Vec::new(),
            wait: Duration::ZERO,
            repeatable,
            patience,
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(http::Method::GET, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(http::Method::DELETE, path)
    }

    /// Posts bytes, which [`super::server::Client::send_with`] gives.
    pub(super) fn post_bytes(path: impl Into<String>) -> Self {
        Self::new(http::Method::POST, path)
    }

    /// Posts JSON.
    pub(super) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(http::Method::POST, path).json(body)
    }

    /// Posts a question, which changes nothing and may be sent again.
    pub(super) fn ask(path: impl Into<String>, body: &Value) -> Self {
        Self { repeatable: true, ..Self::post(path, body) }
    }

    /// Sends JSON with PATCH.
    pub(super) fn patch(path: impl Into<String>, body: &Value) -> Self {
        Self { repeatable: true, ..Self::new(http::Method::PATCH, path).json(body) }
    }

    fn json(self, body: &Value) -> Self {
        let body = Some(body.to_string().into_bytes());
        Self { body, ..self }.header("content-type", "application/json")
    }

    /// Adds a query parameter.
    pub(super) fn query(mut self, name: &'a str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// Adds a query parameter if there is a value.
    pub(super) fn maybe(self, name: &'a str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds a query parameter for each value.
    pub(super) fn each(self, name: &'a str, values: &[String]) -> Self {
        values.iter().fold(self, |call, value| call.query(name, value))
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds `wait`: the seconds that the server may wait before it answers.
    pub(super) fn wait(self, seconds: u32) -> Self {
        let wait = Duration::from_secs(seconds.into());
        Self { wait, ..self }.query("wait", seconds)
    }

    /// Names the request, so that sending it again does not do it twice.
    pub(super) fn once(self, key: &str) -> Self {
        Self { repeatable: true, ..self }.header("idempotency-key", key)
    }

    /// How long it is repeated while the server is busy or away.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The whole address, for a server at `base`.
    pub(super) fn url(&self, base: &str) -> String {
        let mut url = format!("{base}{}", self.path);
        if !self.query.is_empty() {
            let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
            url = format!("{url}?{pairs}");
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(segment("blocks.5.hook_resid_post"), "blocks.5.hook_resid_post");
        assert_eq!((segment("a/b?c"), segment("..")), ("a%2Fb%3Fc".to_owned(), "%2E%2E".to_owned()));
        let call = Call::get("/v1/caches").query("text", "\"city of\" & more").each("tag", &["a".to_owned()]);
        let call = call.maybe("label", None::<String>);
        assert_eq!(call.url("http://h"), "http://h/v1/caches?text=%22city+of%22+%26+more&tag=a");
    }
}
