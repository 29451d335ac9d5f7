//! Errors of parsing a body: serde's errors, rewritten for clients, with a JSON pointer.

use std::fmt;

use serde::de::{Expected, Unexpected};

use residuum_domain::{Code, Problem};

/// Maximum number of characters of a string that an error quotes.
const QUOTED: usize = 40;

/// What is wrong with a body, and where.
#[derive(Debug)]
pub struct Error {
    code: Code,
    /// The steps of the pointer, innermost first.
    path: Vec<String>,
    detail: String,
}

impl Error {
    fn field(detail: String) -> Self {
        Self { code: Code::InvalidField, path: Vec::new(), detail }
    }

    fn body(path: Vec<String>, detail: String) -> Self {
        Self { code: Code::InvalidBody, path, detail }
    }

    /// The parsed body would take more than `most` bytes of memory.
    pub(super) fn too_large(most: u64) -> Self {
        let detail = format!(
            "the body has so many small parts that it would take more than {} MiB of memory; send less of it at once",
            most >> 20
        );
        Self { code: Code::BodyTooLarge, path: Vec::new(), detail }
    }

    /// An error of `serde_json` about a value with valid syntax.
    pub(super) fn found(text: &str) -> Self {
        let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
        Self::field(match text {
            "number out of range" => "the number is larger than a number can be".to_owned(),
            "recursion limit exceeded" => "the value is nested too deeply".to_owned(),
            text => text.to_owned(),
        })
    }

    /// The same error with the pointer extended by one step, the field or index in the enclosing object or array.
    #[must_use]
    pub(super) fn under(mut self, step: impl ToString) -> Self {
        // this one is about the whole body, so it has no pointer
        if self.code != Code::BodyTooLarge {
            self.path.push(step.to_string());
        }
        self
    }

    fn pointer(&self) -> String {
        self.path.iter().rev().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        if error.code == Code::BodyTooLarge {
            return Self::new(error.code, error.detail);
        }
        Self::at(error.code, error.pointer(), error.detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::field(message.to_string())
    }

    fn invalid_type(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::field(format!("must be {}; it is {}", plain(expected), described(given)))
    }

    fn invalid_value(given: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(given, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::field(format!("must be {}; it has {length} parts", plain(expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::invalid_type(Unexpected::Str(variant), &one_of(expected).as_str())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let known = match expected {
            [] => "no fields are allowed here".to_owned(),
            known => format!("known are {}", known.iter().map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ")),
        };
        Self::body(vec![field.to_owned()], format!("unknown field `{}`: {known}", shortened(field)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::body(vec![field.to_owned()], format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::body(vec![field.to_owned()], format!("the field `{field}` is given twice"))
    }
}

/// Formats the words of a choice: `"a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What serde expects, without names of Rust types.
fn plain(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "an object".to_owned(),
        "unit" => "null".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "u64" | "usize" => "a whole number from 0 on".to_owned(),
        "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        text if text.starts_with("struct ") => "an object".to_owned(),
        text => text.to_owned(),
    }
}

fn described(given: Unexpected<'_>) -> String {
    match given {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) => format!("\"{}\"", shortened(text)),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
