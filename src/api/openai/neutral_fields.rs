//! Fields of OpenAI's API that nothing here acts on: accepted at the value that changes nothing, refused otherwise.

use serde_json::{Map, Value};

use residuum_domain::{Code, Problem};

/// Accepts a field only if its value changes nothing. `neutral` says which values those are.
///
/// # Errors
/// [`Code::InvalidValue`].
pub fn neutral(field: &str, is_neutral: bool, neutral: &str) -> Result<(), Problem> {
    if is_neutral {
        return Ok(());
    }
    let detail = format!("this server does not act on `{field}`; leave it out, or set it to {neutral}");
    Err(Problem::at(Code::InvalidValue, format!("/{field}"), detail))
}

/// Accepts a penalty of 0.
///
/// # Errors
/// As [`neutral`].
pub fn no_penalty(field: &str, penalty: Option<f64>) -> Result<(), Problem> {
    neutral(field, penalty.is_none_or(|p| p == 0.0), "0")
}

/// Accepts an empty object.
///
/// # Errors
/// As [`neutral`].
pub fn no_entries(field: &str, object: Option<&Map<String, Value>>) -> Result<(), Problem> {
    neutral(field, object.is_none_or(Map::is_empty), "null")
}

/// Accepts one of some words.
///
/// # Errors
/// As [`neutral`].
pub fn one_of_words(field: &str, word: Option<&str>, words: &[&str]) -> Result<(), Problem> {
    neutral(field, word.is_none_or(|word| words.contains(&word)), &format!("\"{}\"", words.join("\" or \"")))
}
