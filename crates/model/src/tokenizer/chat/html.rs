//! Jinja's filters for HTML and URLs.

use minijinja::{
    Environment, Error, State, Value,
    value::{Rest, ValueKind, ValueOrKwargs},
};

use super::python::{bind, check_bytes, error, text, truth};

/// Adds the filters.
pub fn add_to(environment: &mut Environment<'_>) {
    for name in ["e", "escape"] {
        environment.add_filter(name, |value: &Value| match value.is_safe() {
            true => Ok(value.clone()),
            false => escape(value).map(Value::from_safe_string),
        });
    }
    environment.add_filter("forceescape", |value: &Value| escape(value).map(Value::from_safe_string));
    environment.add_filter("striptags", |value: &Value| text(value).map(|t| strip_tags(&t)));
    environment.add_filter("urlencode", url_encode);
    environment.add_filter("xmlattr", xml_attributes);
}

/// Escapes a value for HTML as MarkupSafe does.
///
/// # Errors
/// When it is too large.
pub fn escape(value: &Value) -> Result<String, Error> {
    let plain = text(value)?;
    let mut out = String::with_capacity(plain.len());
    for c in plain.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    check_bytes(out.len())?;
    Ok(out)
}

/// The filter `striptags`: removes comments and tags, collapses white space, and replaces common entities by their characters.
fn strip_tags(text: &str) -> String {
    let without = |text: &str, open: &str, close: &str| {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(start) = rest.find(open) {
            let Some(end) = rest[start..].find(close) else { break };
            out.push_str(&rest[..start]);
            rest = &rest[start + end + close.len()..];
        }
        out + rest
    };
    let plain = without(&without(text, "<!--", "-->"), "<", ">");
    let words: Vec<&str> = plain.split_whitespace().collect();
    unescape(&words.join(" "))
}

fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(';').filter(|end| *end < 10);
        let c = end.and_then(|end| entity(&rest[1..end]));
        let taken = if c.is_some() { end.map_or(1, |end| end + 1) } else { 1 };
        out.push(c.unwrap_or('&'));
        rest = &rest[taken..];
    }
    out + rest
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        name => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
    }
}

/// Percent-encodes a text; in a query, slashes too, and spaces become `+`.
fn quote(value: &Value, query: bool, out: &mut String) -> Result<(), Error> {
    for byte in text(value)?.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte as char),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    check_bytes(out.len())
}

fn url_encode(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    if !matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable) {
        quote(value, false, &mut out)?;
        return Ok(out);
    }
    for (i, entry) in value.try_iter()?.enumerate() {
        let (key, value) = match value.kind() {
            ValueKind::Map => (entry.clone(), value.get_item(&entry)?),
            _ => {
                let pair: Vec<Value> = entry.try_iter()?.collect();
                let [key, value] = pair.as_slice() else { return Err(error("urlencode takes pairs")) };
                (key.clone(), value.clone())
            }
        };
        if i > 0 {
            out.push('&');
        }
        quote(&key, true, &mut out)?;
        out.push('=');
        quote(&value, true, &mut out)?;
    }
    Ok(out)
}

fn xml_attributes(_: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let [map, space] = bind("xmlattr", &args.into_values(), ["<value>", "autospace"])?;
    let map = map.filter(|m| m.kind() == ValueKind::Map).ok_or_else(|| error("xmlattr takes a dict"))?;
    let mut attributes = Vec::new();
    for key in map.try_iter()? {
        let value = map.get_item(&key)?;
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let name = text(&key)?;
        if name.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '>' | '=')) {
            return Err(error(format!("`{name}` is not the name of an attribute")));
        }
        attributes.push(format!("{}=\"{}\"", escape(&key)?, escape(&value)?));
    }
    let joined = attributes.join(" ");
    check_bytes(joined.len())?;
    let space = if truth(space.as_ref(), true) && !joined.is_empty() { " " } else { "" };
    Ok(Value::from(format!("{space}{joined}")))
}
