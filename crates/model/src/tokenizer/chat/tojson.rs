//! The filter `tojson`, which in transformers is Python's `json.dumps`.

use minijinja::{
    Error, Value,
    value::{Rest, ValueKind, ValueOrKwargs},
};

use super::{
    objects::{DictView, Range},
    python::{bind, check_bytes, error, integer, is_callable, is_own_object, string, truth, type_of},
};

/// Widest indentation.
const MAX_INDENT: usize = 16;
/// Largest depth of nested lists of a value that is written.
const MAX_DEPTH: usize = 200;

/// Python's `json.dumps(value, ensure_ascii=False, indent, separators, sort_keys)`.
///
/// # Errors
/// For a value that JSON cannot represent, and one that is too large.
pub fn tojson(args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let names = ["<value>", "ensure_ascii", "indent", "separators", "sort_keys"];
    let [value, ascii, indent, separators, sorted] = bind("tojson", &args.into_values(), names)?;
    let indent = indent.filter(|v| !v.is_none()).map(|v| indentation(&v)).transpose()?;
    let default = || (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    let (item, key) = match separators.filter(|v| !v.is_none()) {
        None => default(),
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            let [item, key] = pair.as_slice() else { return Err(error("tojson takes two separators")) };
            (string("tojson", Some(item))?, string("tojson", Some(key))?)
        }
    };
    let style = Dumps { item, key, indent, sorted: truth(sorted.as_ref(), false), ascii: truth(ascii.as_ref(), false) };
    let mut out = String::new();
    style.write(&value.unwrap_or_default(), 0, &mut out)?;
    Ok(out)
}

/// The indentation of each level: a number of spaces, or a string.
fn indentation(indent: &Value) -> Result<String, Error> {
    let indent = match indent.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let width = integer("tojson", Some(indent))?.unwrap_or(0);
            " ".repeat(usize::try_from(width).unwrap_or(0).min(MAX_INDENT + 1))
        }
    };
    if indent.len() > MAX_INDENT {
        return Err(error(format!("tojson indents by at most {MAX_INDENT}")));
    }
    Ok(indent)
}

/// The layout options of `json.dumps`.
struct Dumps {
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
    ascii: bool,
}

impl Dumps {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        check_bytes(out.len())?;
        if depth > MAX_DEPTH {
            return Err(error("a value of the chat template is nested too deeply to be written: it is too large"));
        }
        let special = value.downcast_object_ref::<Range>().is_some()
            || value.downcast_object_ref::<DictView>().is_some()
            || is_own_object(value, "Namespace");
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable if !special => self.list(value, depth, out)?,
            ValueKind::Map if !special && !is_callable(value) => self.object(value, depth, out)?,
            _ => return Err(error(format!("{} has no form in JSON", type_of(value)))),
        }
        check_bytes(out.len())
    }

    fn list(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        let mut any = false;
        out.push('[');
        for item in value.try_iter()? {
            self.before(any, depth + 1, out);
            self.write(&item, depth + 1, out)?;
            any = true;
        }
        if any {
            self.line(depth, out);
        }
        out.push(']');
        Ok(())
    }

    fn object(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sorted {
            keys.sort();
        }
        out.push('{');
        for (i, key) in keys.iter().enumerate() {
            self.before(i > 0, depth + 1, out);
            match key.kind() {
                ValueKind::String => self.text(key.as_str().unwrap_or_default(), out),
                ValueKind::None => self.text("null", out),
                ValueKind::Bool => self.text(if key.is_true() { "true" } else { "false" }, out),
                ValueKind::Number => self.text(&number(key), out),
                _ => return Err(error(format!("{} cannot be a key in JSON", type_of(key)))),
            }
            out.push_str(&self.key);
            self.write(&value.get_item(key)?, depth + 1, out)?;
        }
        if !keys.is_empty() {
            self.line(depth, out);
        }
        out.push('}');
        Ok(())
    }

    fn before(&self, separated: bool, depth: usize, out: &mut String) {
        if separated {
            out.push_str(&self.item);
        }
        self.line(depth, out);
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn text(&self, s: &str, out: &mut String) {
        let quoted = serde_json::Value::from(s).to_string();
        if !self.ascii {
            out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if matches!(c, ' '..='~') {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|u| out.push_str(&format!("\\u{u:04x}")));
            }
        }
    }
}

/// A number as `json.dumps` writes it.
fn number(value: &Value) -> String {
    match super::python::number(value).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        number => number.to_owned(),
    }
}
