use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
    #[serde(default)]
    size: u32,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    free: Map<String, Value>,
    #[serde(default)]
    list: Vec<Map<String, Value>>,
    parts: Option<Vec<Thing>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Plain,
    Fancy,
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Problem> {
    Text::new(body.as_bytes())?.read()
}

fn refused(body: &str) -> (Code, String, String) {
    let problem = read::<Thing>(body).unwrap_err();
    (problem.code, problem.errors.first().map(|e| e.pointer.clone()).unwrap_or_default(), problem.detail)
}

#[test]
fn null_is_the_default_and_free_form_keeps_its_nulls() {
    let all = r#"{"name": "a", "size": null, "kind": null, "free": {"x": null}, "parts": null}"#;
    let free = json!({"x": null}).as_object().unwrap().clone();
    let thing = Thing { name: "a".to_owned(), size: 0, kind: Kind::Plain, free, list: Vec::new(), parts: None };
    assert_eq!(read::<Thing>(all).unwrap(), thing);
    let inner: Thing = read(r#"{"name": "a", "parts": [{"name": "b", "kind": "fancy", "free": null}]}"#).unwrap();
    assert_eq!(inner.parts.unwrap()[0].kind, Kind::Fancy);
}

#[test]
fn errors_name_the_field_and_say_what_would_be_right() {
    let part = |part: &str| format!(r#"{{"name": "a", "parts": [{{"name": "b"}}, {part}]}}"#);
    for (body, code, pointer, detail) in [
        (r#"{"name": 5}"#.to_owned(), Code::InvalidField, "/name", "must be a string; it is 5"),
        (r#"{"name": null}"#.to_owned(), Code::InvalidBody, "/name", "missing field `name`"),
        (r#"{"size": 1}"#.to_owned(), Code::InvalidBody, "/name", "missing field `name`"),
        ("[]".to_owned(), Code::InvalidField, "", "must be an object; it is an array"),
        (part("[]"), Code::InvalidField, "/parts/1", "must be an object; it is an array"),
        (part("\"x\""), Code::InvalidField, "/parts/1", "must be an object; it is a string"),
        (part(r#"{"name": "c", "size": -1}"#), Code::InvalidField, "/parts/1/size", "from 0 to 4294967295; it is -1"),
        (part(r#"{"name": "c", "size": 1.5}"#), Code::InvalidField, "/parts/1/size", "it is 1.5"),
        (part(r#"{"name": "c", "size": 1e999}"#), Code::InvalidField, "/parts/1/size", "larger than a number can be"),
        (
            part(r#"{"name": "c", "kind": true}"#),
            Code::InvalidField,
            "/parts/1/kind",
            "\"plain\" or \"fancy\"; it is true",
        ),
        (part(r#"{"name": "c", "kind": "odd"}"#), Code::InvalidField, "/parts/1/kind", "or \"fancy\"; it is \"odd\""),
        (
            part(r#"{"name": "c", "a/b": 1}"#),
            Code::InvalidBody,
            "/parts/1/a~1b",
            "unknown field `a/b`: known are `name`",
        ),
        (part(r#"{"name": "c", "sise": null}"#), Code::InvalidBody, "/parts/1/sise", "unknown field"),
        (r#"{"name": "a", "name": "b"}"#.to_owned(), Code::InvalidBody, "/name", "twice"),
        (r#"{"name": "a", "free": 5}"#.to_owned(), Code::InvalidField, "/free", "must be an object; it is 5"),
        (
            r#"{"name": "a", "list": [{}, null]}"#.to_owned(),
            Code::InvalidField,
            "/list/1",
            "must be an object; it is null",
        ),
        (r#"{"name": "a""#.to_owned(), Code::InvalidJson, "", "not valid JSON"),
        (r#"{"name": "a"} x"#.to_owned(), Code::InvalidJson, "", "trailing"),
    ] {
        let (found, at, text) = refused(&body);
        assert_eq!((found, at.as_str()), (code, pointer), "{body}: {text}");
        assert!(text.contains(detail), "{body}: {text}");
    }
}

#[test]
fn depth_of_metadata_is_bounded() {
    let deep = format!(r#"{{"name": "a", "free": {{"x": {}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let (code, pointer, detail) = refused(&deep);
    assert_eq!(code, Code::InvalidField);
    assert!(pointer.starts_with("/free/x") && detail.contains("nested too deeply"), "{detail}");
}

#[test]
fn a_body_that_takes_too_much_memory_is_refused_while_it_is_parsed() {
    let nested = format!(r#"{{"name": "a", "free": {{"x": [{}0]}}}}"#, "[0],".repeat(200_000));
    let (code, _, detail) = refused(&nested);
    assert_eq!(code, Code::BodyTooLarge, "{detail}");
    let numbers = format!("[{}0]", "0,".repeat(8_000_000));
    assert_eq!(read::<Vec<i64>>(&numbers).unwrap().len(), 8_000_001);
    assert_eq!(read::<Vec<Value>>(&numbers).unwrap_err().code, Code::BodyTooLarge);
}

#[test]
fn the_worst_body_stays_within_max_bytes_per_byte() {
    // a `Value` and room for four of them, for every four bytes
    let densest = (size_of::<Value>() * 5) as u64 / 4;
    assert!(densest <= MAX_BYTES_PER_BYTE, "{densest}");
}
