//! Metadata as terms spell it: every key of every object, and one spelling for equal values.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// A key and its value, in the index's spelling.
pub(crate) type Entry = (String, String);

/// Every key of the objects in `metadata` with its value: `deep.a` is the key `a` of the object `deep`.
pub(crate) fn entries(metadata: &Map<String, Value>) -> Vec<Entry> {
    let mut found = Vec::with_capacity(metadata.len());
    collect("", metadata, &mut found);
    found
}

fn collect(path: &str, object: &Map<String, Value>, found: &mut Vec<Entry>) {
    for (key, value) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        found.push(entry(&path, value));
        if let Value::Object(inner) = value {
            collect(&path, inner, found);
        }
    }
}

/// A key, as [`entries`] spells it, with the value it is to have.
pub(crate) fn entry(key: &str, value: &Value) -> Entry {
    let mut spelled = String::new();
    spell(value, &mut spelled);
    (key.to_owned(), spelled)
}

/// Equal values have one spelling: numbers by their value, objects by their keys in order.
fn spell(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => spell_number(n, out),
        Value::String(text) => out.push_str(&Value::from(text.as_str()).to_string()),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                spell(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for key in keys {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                spell(&object[key], out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

/// 1 and 1.0 are one number.
fn spell_number(n: &Number, out: &mut String) {
    const EXACT: f64 = (1u64 << 53) as f64;
    let whole = n.as_f64().filter(|x| !n.is_i64() && !n.is_u64() && x.fract() == 0.0 && x.abs() <= EXACT);
    // writing to a String cannot fail
    let _ = match whole {
        Some(x) => write!(out, "{}", if x == 0.0 { 0.0 } else { x }),
        None => write!(out, "{n}"),
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_values_have_one_spelling_and_others_another() {
        let spelled = |value: Value| entry("k", &value).1;
        assert_eq!(spelled(json!(1)), spelled(json!(1.0)));
        assert_eq!(spelled(json!(0)), spelled(json!(-0.0)));
        assert_eq!(spelled(json!({"a": 1, "b": [2.0]})), spelled(json!({"b": [2], "a": 1.0})));
        let long = "x".repeat(300);
        let values = [
            json!(1),
            json!("1"),
            json!(1.5),
            json!(0.1),
            json!(0.30000000000000004),
            json!(0.3),
            json!(true),
            json!("true"),
            json!(null),
            json!("null"),
            json!([]),
            json!({}),
            json!([1]),
            json!([[1]]),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e300),
            json!(long),
            json!(format!("{long}y")),
            json!({"a": "b"}),
            json!({"a": "b,"}),
        ];
        let all: std::collections::HashSet<String> = values.iter().map(|v| spelled(v.clone())).collect();
        assert_eq!(all.len(), values.len());
    }

    #[test]
    fn keys_lead_into_objects_and_not_into_lists() {
        let metadata = json!({"a": {"b": {"c": 1}, "d": [{"e": 2}]}, "f": "g"});
        let keys: Vec<String> = entries(metadata.as_object().unwrap()).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "a.b", "a.b.c", "a.d", "f"]);
    }
}
