//! Reads JSON as Python's `json` module does: `NaN`, `Infinity` and `-Infinity` are allowed, a byte order mark is not.
//!
//! `NaN` becomes `{"__float__": "NaN"}`, which is how transformers writes it in strict JSON; the infinities likewise.

use std::{borrow::Cow, fs::File, io::Read, path::Path};

use serde_json::{Map, Value};

use super::error::LoadError;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Key of an object that stands for a number JSON cannot hold.
const FLOAT: &str = "__float__";

/// Reads a JSON object from a regular file.
///
/// # Errors
/// When the file cannot be read, is too large, begins with a byte order mark, or is not a JSON object.
pub fn read_object(path: &Path) -> Result<Map<String, Value>, LoadError> {
    let error = |reason: &dyn std::fmt::Display| LoadError::file(path, reason);
    let metadata = std::fs::metadata(path).map_err(|e| error(&e))?;
    if !metadata.is_file() {
        return Err(error(&"is not a regular file"));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(|e| error(&e))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(|e| error(&e))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(error(&format!("has more than {} MiB", MAX_BYTES >> 20)));
    }
    parse_object(&text).map_err(|reason| error(&reason))
}

fn parse_object(text: &[u8]) -> Result<Map<String, Value>, String> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(
            "begins with a byte order mark, which Python's json refuses; save it as UTF-8 without one".to_owned()
        );
    }
    match serde_json::from_slice(&strict(text)) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("is not a JSON object".to_owned()),
        Err(e) => Err(format!("is not valid JSON: {e}")),
    }
}

/// The name of the number that JSON cannot hold (`NaN`, `Infinity`, `-Infinity`), if `value` is the object that stands for it.
pub fn special_float(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|o| o.len() == 1)?;
    object.get(FLOAT)?.as_str()
}

/// The text with each special number outside of strings replaced.
fn strict(text: &[u8]) -> Cow<'_, [u8]> {
    const NAMES: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'"' => {
                at += 1;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'N' | b'I' | b'-' => {
                let Some(name) = NAMES.iter().find(|name| text[at..].starts_with(name.as_bytes())) else {
                    at += 1;
                    continue;
                };
                let out = out.get_or_insert_with(Vec::new);
                out.extend_from_slice(&text[copied..at]);
                out.extend_from_slice(format!("{{\"{FLOAT}\":\"{name}\"}}").as_bytes());
                at += name.len();
                copied = at;
            }
            _ => at += 1,
        }
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.extend_from_slice(&text[copied..]);
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_numbers_are_read_outside_of_strings_only() {
        let text = br#"{"a": NaN, "b": [-Infinity, -1, Infinity], "c": "NaN \" Infinity", "NaN": "\\"}"#;
        let object = parse_object(text).unwrap();
        assert_eq!(special_float(&object["a"]), Some("NaN"));
        assert_eq!(special_float(&object["b"][0]), Some("-Infinity"));
        assert_eq!(object["b"][1], -1);
        assert_eq!(special_float(&object["b"][2]), Some("Infinity"));
        assert_eq!((object["c"].as_str(), object["NaN"].as_str()), (Some("NaN \" Infinity"), Some("\\")));
        assert_eq!(special_float(&Value::from("NaN")), None);
    }

    #[test]
    fn what_python_refuses_is_refused() {
        let refusal = |text: &[u8]| parse_object(text).unwrap_err();
        assert!(refusal(b"\xef\xbb\xbf{}").contains("byte order mark"));
        assert_eq!(refusal(b"[]"), "is not a JSON object");
        for broken in [&b"{\"a\": Nan}"[..], b"{\"a\": \"", b"{\"a\": \"\\", b"-", b"{NaN: 1}", b"\xff"] {
            assert!(refusal(broken).starts_with("is not valid JSON"), "{broken:?}");
        }
    }

    #[test]
    fn only_regular_files_are_read() {
        assert!(read_object(Path::new("/dev/zero")).unwrap_err().reason().contains("not a regular file"));
        assert!(read_object(Path::new("/dev/zero/x")).is_err());
    }
}
