//! Python's `str` and `repr` of values, and how Python binds arguments.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind, from_args},
};

use super::{
    characters::is_printable,
    objects::{DictView, Group, Range},
};

/// Largest string that a template may create, in bytes.
pub const MAX_BYTES: usize = 5_000_000;
/// Largest number of items of a list that a method or a filter may create.
pub const MAX_ITEMS: usize = 1_000_000;
/// Largest depth of nested lists of a value that is written.
const MAX_DEPTH: usize = 200;

/// The error of an operation.
pub fn error(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail.into())
}

/// Refuses a string of more than [`MAX_BYTES`].
pub fn check_bytes(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_BYTES {
        return Err(error(format!("a value of the chat template is too large: at most {MAX_BYTES} bytes")));
    }
    Ok(())
}

/// The arguments for `names`, bound as Python does. A name in angle brackets is positional only.
///
/// # Errors
/// For too many arguments, an unknown name, or one that is given twice.
pub fn bind<const N: usize>(function: &str, args: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (positional, keywords): (&[Value], Kwargs) = from_args(args)?;
    if positional.len() > N {
        return Err(error(format!("{function} takes at most {N} arguments, not {}", positional.len())));
    }
    let mut bound = [const { None }; N];
    for (slot, value) in bound.iter_mut().zip(positional) {
        *slot = Some(value.clone());
    }
    for name in keywords.args() {
        let slot = names.iter().position(|n| *n == name);
        let slot = slot.and_then(|i| bound.get_mut(i)).filter(|slot| slot.is_none());
        let slot = slot.ok_or_else(|| error(format!("{function} has no argument `{name}`, or it was given twice")))?;
        *slot = Some(keywords.peek(name)?);
    }
    Ok(bound)
}

/// A required string argument.
pub fn string(function: &str, value: Option<&Value>) -> Result<String, Error> {
    let text = value.and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| error(format!("{function} takes a string, not {}", value.map_or("nothing", type_of))))
}

/// An integer argument; `None` if it is missing or Python's `None`. Integers beyond `i64` are clamped.
pub fn integer(function: &str, value: Option<&Value>) -> Result<Option<i64>, Error> {
    let Some(value) = value.filter(|v| !v.is_none()) else { return Ok(None) };
    if !value.is_integer() && value.kind() != ValueKind::Bool {
        return Err(error(format!("{function} takes an integer, not {}", type_of(value))));
    }
    let wide = i128::try_from(value.clone()).unwrap_or(i128::MAX);
    Ok(Some(i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })))
}

/// A boolean argument; `default` if it is missing.
pub fn truth(value: Option<&Value>, default: bool) -> bool {
    value.map_or(default, Value::is_true)
}

/// The indices of Python's slice `[start:stop]` of `n` items.
pub fn span(n: usize, start: Option<i64>, stop: Option<i64>) -> (usize, usize) {
    let index = |i: i64| {
        let distance = usize::try_from(i.unsigned_abs()).unwrap_or(usize::MAX);
        if i < 0 { n.saturating_sub(distance) } else { distance }
    };
    (start.map_or(0, index), stop.map_or(n, index).min(n))
}

/// The name of a value's type in Python.
pub fn type_of(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "undefined",
        ValueKind::None => "None",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Map => "dict",
        ValueKind::Seq | ValueKind::Iterable if value.is_tuple() => "tuple",
        ValueKind::Seq | ValueKind::Iterable => "list",
        _ => "an object",
    }
}

/// Whether a value is one of minijinja's own objects. Their types are private, but can be compared by name.
pub fn is_own_object(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with(name))
}

/// Whether a value can be called.
pub fn is_callable(value: &Value) -> bool {
    let own = ["::Macro", "BoxedFunction", "::Loop", "Function"];
    value.is_undefined() || value.kind() == ValueKind::Plain || own.iter().any(|name| is_own_object(value, name))
}

/// Python's `str(value)`; an undefined value is empty, as in Jinja.
///
/// # Errors
/// For a value that is too large or too deep.
pub fn text(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        check_bytes(text.len())?;
        return Ok(text.to_owned());
    }
    if value.is_undefined() {
        return Ok(String::new());
    }
    repr(value)
}

/// [`text`] of a value; consumes fuel for collections, which cost more to write than strings.
///
/// # Errors
/// As [`text`], and when the template runs out of fuel.
pub fn written(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let text = text(value)?;
    if value.as_object().is_some() {
        state.consume_fuel(text.len() as u64 / 4)?;
    }
    Ok(text)
}

/// Python's `repr(value)`.
///
/// # Errors
/// As [`text`].
pub fn repr(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write(value, 0, &mut out)?;
    Ok(out)
}

fn write(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    check_bytes(out.len())?;
    if depth > MAX_DEPTH {
        return Err(error("a value of the chat template is nested too deeply to be written: it is too large"));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), false, out),
        ValueKind::Map if is_own_object(value, "Namespace") => {
            out.push_str("<Namespace ");
            entries(value, depth, out)?;
            out.push('>');
        }
        ValueKind::Map if is_callable(value) => out.push_str("<macro>"),
        ValueKind::Map => entries(value, depth, out)?,
        ValueKind::Seq | ValueKind::Iterable => items(value, depth, out)?,
        _ => out.push_str(&value.to_string()),
    }
    check_bytes(out.len())
}

fn entries(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    out.push('{');
    for (i, key) in value.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(&key, depth + 1, out)?;
        out.push_str(": ");
        write(&value.get_item(&key)?, depth + 1, out)?;
    }
    out.push('}');
    Ok(())
}

fn items(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if let Some(range) = value.downcast_object_ref::<Range>() {
        out.push_str(&range.to_string());
        return Ok(());
    }
    let view = value.downcast_object_ref::<DictView>();
    let (open, close) = match value.is_tuple() || value.downcast_object_ref::<Group>().is_some() {
        true if value.len() == Some(1) => ("(", ",)"),
        true => ("(", ")"),
        false => ("[", "]"),
    };
    view.inspect(|view| out.push_str(view.opens()));
    out.push_str(open);
    for (i, item) in value.try_iter()?.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(&item, depth + 1, out)?;
    }
    out.push_str(close);
    view.inspect(|_| out.push(')'));
    Ok(())
}

/// A number as Python writes it.
pub fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// Python's `repr` of a float: the shortest digits, with an exponent from 1e16 on and below 1e-4.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Quotes a string as Python's `repr` does; `ascii` also escapes characters that are not ASCII.
pub fn quoted(text: &str, ascii: bool, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) && (c.is_ascii() || !ascii) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}
