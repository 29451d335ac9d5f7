//! The minijinja environment that templates are compiled for.

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value, escape_formatter,
    syntax::SyntaxConfig,
    value::{Rest, ValueKind},
};

use super::{
    checks,
    collections::{self, Method},
    compare, filters,
    format::percent,
    globals, html,
    numbers::remainder,
    python::{check_bytes, error, is_callable, is_own_object, text, written},
    source, strings,
};

/// Number of instructions that a template may run; creating or writing 64 bytes costs as much as one.
const FUEL: u64 = 5_000_000;

/// Compiles a template under a name. The name should have no extension, so that nothing is escaped.
///
/// # Errors
/// When the source is not a valid template.
pub fn compile(name: &'static str, template: &str) -> Result<Environment<'static>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let source = source::prepare(template, &syntax)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_debug(false);
    environment.set_formatter(|out, state, value| {
        let escapes = !matches!(state.auto_escape(), AutoEscape::None) && !value.is_safe();
        let shown = if escapes { html::escape(value)? } else { text(value)? };
        escape_formatter(out, state, &Value::from_safe_string(shown))
    });
    environment.set_unknown_method_callback(method);
    globals::add_to(&mut environment);
    filters::add_to(&mut environment);
    html::add_to(&mut environment);
    checks::add_to(&mut environment);
    compare::add_to(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    add_operators(&mut environment);
    environment.remove_global("debug");
    environment.add_template_owned(name, source)?;
    Ok(environment)
}

/// Adds the functions that [`source`] rewrites operators to.
fn add_operators(environment: &mut Environment<'_>) {
    environment.add_function("__percent", |state: &State<'_, '_>, left: &Value, right: &Value| match left.as_str() {
        Some(format) => {
            charge(state, left)?;
            charge(state, right)?;
            let out = percent(format, right)?;
            state.consume_fuel(out.len() as u64 / 4)?;
            Ok(Value::from(out))
        }
        None => remainder(left, right),
    });
    environment.add_function("__index", |key: Value| compare::check_key(&key).map_or(Value::UNDEFINED, |()| key));
    environment.add_function("__defined", |value: Value| match value.is_undefined() {
        true => Err(Error::new(ErrorKind::UndefinedError, "an undefined value has no slices")),
        false => Ok(value),
    });
    environment.add_function("__concat", concat);
    environment.add_function("__bounded", |value: Value| {
        check_bytes(value.as_str().map_or(0, str::len))?;
        Ok::<_, Error>(value)
    });
    environment.add_function("__method", |value: &Value, name: &str| {
        if collections::has_method(value, name) {
            let method = Method { of: value.clone(), name: name.to_owned() };
            return Ok(Value::from_object(method));
        }
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        Ok(value.get_attr(name).unwrap_or_default())
    });
}

/// `a ~ b ~ …`. If HTML is escaped and one of them is safe, the others are escaped.
fn concat(state: &State<'_, '_>, parts: Rest<Value>) -> Result<Value, Error> {
    let escapes = !matches!(state.auto_escape(), AutoEscape::None) && parts.iter().any(Value::is_safe);
    let mut out = String::new();
    for part in parts.iter() {
        match part.as_str() {
            Some(part) if !escapes => {
                check_bytes(out.len() + part.len())?;
                out.push_str(part);
            }
            _ if escapes && !part.is_safe() => out.push_str(&html::escape(part)?),
            _ => out.push_str(&written(state, part)?),
        }
        check_bytes(out.len())?;
    }
    Ok(if escapes { Value::from_safe_string(out) } else { Value::from(out) })
}

/// Consumes fuel for reading a string or the items of a list.
fn charge(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let cost = match value.as_str() {
        Some(text) => text.len() / 64,
        None => value.len().unwrap_or(0) / 2,
    };
    state.consume_fuel(cost as u64)
}

/// Python's methods of strings, dicts and lists.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    args.iter().try_for_each(|arg| charge(state, arg))?;
    match value.kind() {
        ValueKind::String => strings::method(value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map if !is_own_object(value, "Namespace") && !is_callable(value) => {
            collections::dict_method(value, name, args)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            charge(state, value)?;
            collections::list_method(state, value, name, args)
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn raise_exception(message: String) -> Result<String, Error> {
    let message = Some(message).filter(|m| !m.trim().is_empty());
    Err(error(message.unwrap_or_else(|| "the chat template refuses these messages and does not say why".to_owned())))
}

fn strftime_now(format: String) -> Result<String, Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(format, &now).map_err(|e| error(e.to_string()))
}
