//! An answer of the server, and what an error in it says.

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde_json::Value;

/// An answer with its whole body.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name}")).to_str().unwrap()
    }

    /// What an error says, in either of its shapes.
    pub fn refusal(&self) -> Refusal {
        let json = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let error = &json["error"];
        if error.is_object() {
            let pointers = error["param"].as_str().map(pointer_of).into_iter().collect();
            return Refusal { code: text(&error["code"]), detail: text(&error["message"]), pointers };
        }
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        let pointers = errors.iter().map(|e| text(&e["pointer"])).collect();
        Refusal { code: text(&json["code"]), detail: text(&json["detail"]), pointers }
    }

    /// Checks an error in OpenAI's shape. Returns the field at fault.
    #[track_caller]
    pub fn openai_error(&self, status: u16, kind: &str, code: &str) -> Option<String> {
        let json = self.json();
        let error = &json["error"];
        assert_eq!((self.status.as_u16(), error["code"].as_str()), (status, Some(code)), "{json:#}");
        assert_eq!(error["type"], kind, "{json:#}");
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
        assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
        self.hides_internals();
        error["param"].as_str().map(str::to_owned)
    }

    /// Checks an error that any route can answer with, in the shape of the route. Returns the fields at fault.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Vec<String> {
        if !self.json()["error"].is_object() {
            return self.problem(status, code);
        }
        let refusal = self.refusal();
        assert_eq!((self.status.as_u16(), refusal.code.as_str()), (status, code), "{:?}", self.body);
        assert!(!refusal.detail.is_empty());
        self.hides_internals();
        refusal.pointers
    }

    #[track_caller]
    fn hides_internals(&self) {
        let text = self.json().to_string();
        for leak in ["/tmp", ".sqlite", "SELECT", "src/", "panicked"] {
            assert!(!text.contains(leak), "an error shows {leak}: {text}");
        }
    }

    /// Checks a problem object. Returns the JSON pointers of its errors.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Vec<String> {
        let json = self.json();
        assert_eq!((self.status.as_u16(), json["code"].as_str()), (status, Some(code)), "{json:#}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(json["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(json[field].as_str().is_some_and(|s| !s.is_empty()), "{field} is missing: {json:#}");
        }
        self.hides_internals();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|e| e["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

/// What an error says.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: String,
    pub detail: String,
    /// JSON pointers of the fields at fault, or names of headers.
    pub pointers: Vec<String>,
}

/// The JSON pointer of a field as OpenAI's API names it: `messages[0].content` is `/messages/0/content`.
fn pointer_of(param: &str) -> String {
    if param == "Host" || param == "Origin" {
        return param.to_owned();
    }
    format!("/{}", param.replace('[', "/").replace(']', "").replace('.', "/"))
}
