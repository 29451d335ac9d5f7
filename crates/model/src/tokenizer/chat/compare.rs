//! Compares values as Python does, with limits.
//!
//! Lists can share elements and namespaces can contain themselves, so a few instructions can build a value that takes forever to
//! compare. minijinja's comparisons and look-ups of keys have no limit, so they must never get such a value.

use std::cmp::Ordering;

use minijinja::{
    Environment, Error, State, Value, tests,
    value::{Rest, ValueKind},
};

use super::{
    objects::Range,
    python::{error, is_own_object, type_of},
};

/// Largest number of elements that one comparison visits.
const MAX_PARTS: u64 = 1_000_000;
/// Largest depth of nested lists that are compared.
const MAX_DEPTH: usize = 200;
/// Largest number of elements of a key of a dict.
const MAX_KEY_PARTS: u64 = 1000;

/// The operators: how they are written, the functions they are rewritten to, and the equivalent tests.
pub const OPERATORS: &[(&str, &str, &[&str])] = &[
    ("==", "__eq", &["==", "eq", "equalto"]),
    ("!=", "__ne", &["!=", "ne"]),
    ("<=", "__le", &["<=", "le"]),
    (">=", "__ge", &[">=", "ge"]),
    ("<", "__lt", &["<", "lt", "lessthan"]),
    (">", "__gt", &[">", "gt", "greaterthan"]),
    ("not in", "__not_in", &[]),
    ("in", "__in", &["in"]),
];

/// Adds the operators as functions and as tests.
pub fn add_to(environment: &mut Environment<'_>) {
    for (operator, function, same) in OPERATORS {
        let compare = |state: &State<'_, '_>, a: &Value, b: &Value| compare(state, operator, a, b);
        environment.add_function(*function, compare);
        same.iter().for_each(|name| environment.add_test(*name, compare));
    }
    environment.add_function("__chain", |state: &State<'_, '_>, parts: Rest<Value>| {
        for part in parts.windows(3).step_by(2) {
            let [a, operator, b] = part else { continue };
            if !compare(state, operator.as_str().unwrap_or_default(), a, b)? {
                return Ok(false);
            }
        }
        Ok::<_, Error>(true)
    });
    environment.add_function("__key", |key: Value| {
        check_key(&key)?;
        Ok::<_, Error>(key)
    });
    environment.add_function("__small", |state: &State<'_, '_>, values: Rest<Value>| {
        let mut left = MAX_PARTS;
        values.iter().try_for_each(|value| walk(value, 0, &mut left))?;
        state.consume_fuel((MAX_PARTS - left) / 2)?;
        Ok::<_, Error>(match values.as_slice() {
            [value] => value.clone(),
            values => Value::from(values.to_vec()),
        })
    });
}

fn large() -> Error {
    error("values of the chat template are too large to be compared")
}

/// Applies an operator.
///
/// # Errors
/// For types that Python does not compare, and values that are too large.
fn compare(state: &State<'_, '_>, operator: &str, a: &Value, b: &Value) -> Result<bool, Error> {
    Ok(match operator {
        "==" => equal(state, a, b)?,
        "!=" => !equal(state, a, b)?,
        "in" => contains(state, b, a)?,
        "not in" => !contains(state, b, a)?,
        operator => {
            let order = order(state, a, b)?;
            match operator {
                "<" => order == Some(Ordering::Less),
                ">" => order == Some(Ordering::Greater),
                "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            }
        }
    })
}

/// Python's `a == b`.
///
/// # Errors
/// When they are too large.
pub fn equal(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<bool, Error> {
    let mut left = MAX_PARTS;
    let same = equal_within(a, b, 0, &mut left)?;
    state.consume_fuel((MAX_PARTS - left) / 2)?;
    Ok(same)
}

fn equal_within(a: &Value, b: &Value, depth: usize, left: &mut u64) -> Result<bool, Error> {
    *left = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(large)?;
    if a.as_object().is_some() && tests::is_sameas(a, b) {
        return Ok(true);
    }
    match (class(a), class(b)) {
        (Class::List, Class::List) | (Class::Tuple, Class::Tuple) | (Class::Range, Class::Range) => {
            if let (Some(n), Some(m)) = (a.len(), b.len())
                && n != m
            {
                return Ok(false);
            }
            let (mut a, mut b) = (a.try_iter()?, b.try_iter()?);
            loop {
                match (a.next(), b.next()) {
                    (None, None) => return Ok(true),
                    (Some(a), Some(b)) if equal_within(&a, &b, depth + 1, left)? => {}
                    _ => return Ok(false),
                }
            }
        }
        (Class::Dict, Class::Dict) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for key in a.try_iter()? {
                check_key(&key)?;
                let (a, b) = (a.get_item(&key)?, b.get_item(&key)?);
                if !equal_within(&a, &b, depth + 1, left)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Class::Scalar, Class::Scalar) => {
            *left = left.saturating_sub(a.as_str().map_or(0, |text| text.len() as u64 / 64));
            Ok(a == b && (a.is_undefined() == b.is_undefined()))
        }
        // Objects are equal only to themselves.
        _ => Ok(false),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Scalar,
    List,
    Tuple,
    Range,
    Dict,
    Object,
}

fn class(value: &Value) -> Class {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::String => {
            Class::Scalar
        }
        ValueKind::Seq | ValueKind::Iterable if value.is_tuple() => Class::Tuple,
        ValueKind::Seq if value.downcast_object_ref::<Range>().is_some() => Class::Range,
        ValueKind::Seq | ValueKind::Iterable => Class::List,
        ValueKind::Map if !is_own_object(value, "Namespace") => Class::Dict,
        _ => Class::Object,
    }
}

/// The order of two values; `None` if one of them is NaN.
///
/// # Errors
/// For types that Python does not order, and values that are too large.
pub fn order(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    let mut left = MAX_PARTS;
    let order = order_within(a, b, 0, &mut left)?;
    state.consume_fuel((MAX_PARTS - left) / 2)?;
    Ok(order)
}

fn order_within(a: &Value, b: &Value, depth: usize, left: &mut u64) -> Result<Option<Ordering>, Error> {
    *left = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(large)?;
    let is_number = |v: &Value| matches!(v.kind(), ValueKind::Bool | ValueKind::Number);
    match (class(a), class(b)) {
        _ if is_number(a) && is_number(b) => {
            let is_nan = |v: &Value| !v.is_integer() && f64::try_from(v.clone()).is_ok_and(f64::is_nan);
            Ok(if is_nan(a) || is_nan(b) { None } else { Some(a.cmp(b)) })
        }
        (Class::Scalar, Class::Scalar) if a.as_str().is_some() && b.as_str().is_some() => {
            *left = left.saturating_sub(a.as_str().map_or(0, |text| text.len() as u64 / 64));
            Ok(Some(a.as_str().cmp(&b.as_str())))
        }
        (Class::List, Class::List) | (Class::Tuple, Class::Tuple) => {
            let (mut a, mut b) = (a.try_iter()?, b.try_iter()?);
            loop {
                match (a.next(), b.next()) {
                    (None, None) => return Ok(Some(Ordering::Equal)),
                    (None, Some(_)) => return Ok(Some(Ordering::Less)),
                    (Some(_), None) => return Ok(Some(Ordering::Greater)),
                    (Some(a), Some(b)) if equal_within(&a, &b, depth + 1, left)? => {}
                    (Some(a), Some(b)) => return order_within(&a, &b, depth + 1, left),
                }
            }
        }
        _ => Err(error(format!("{} and {} cannot be ordered", type_of(a), type_of(b)))),
    }
}

/// Python's `item in container`.
fn contains(state: &State<'_, '_>, container: &Value, item: &Value) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::String => {
            let (text, part) = (container.as_str().unwrap_or_default(), item.as_str());
            state.consume_fuel(text.len() as u64 / 64)?;
            let part = part.ok_or_else(|| error(format!("a string contains strings, not {}", type_of(item))))?;
            Ok(text.contains(part))
        }
        ValueKind::Map => {
            check_key(item)?;
            tests::is_in(state, item, container)
        }
        ValueKind::Undefined => Ok(false),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut left = MAX_PARTS;
            for other in container.try_iter()? {
                if equal_within(&other, item, 0, &mut left)? {
                    state.consume_fuel((MAX_PARTS - left) / 2)?;
                    return Ok(true);
                }
            }
            state.consume_fuel((MAX_PARTS - left) / 2)?;
            Ok(false)
        }
        _ => Err(error(format!("{} contains nothing", type_of(container)))),
    }
}

/// Refuses values that cannot be keys of a dict: lists, dicts, and tuples that contain these.
///
/// # Errors
/// When the value cannot be a key.
pub fn check_key(key: &Value) -> Result<(), Error> {
    match class(key) {
        Class::Scalar => Ok(()),
        Class::Tuple => {
            let mut left = MAX_KEY_PARTS;
            walk(key, 0, &mut left)?;
            key.try_iter()?.try_for_each(|part| check_key(&part))
        }
        Class::List | Class::Dict => Err(error(format!("a {} cannot be a key of a dict", type_of(key)))),
        Class::Range | Class::Object => Err(error("an object cannot be a key of a dict")),
    }
}

/// Visits all elements of a value, and counts them down from `left`.
fn walk(value: &Value, depth: usize, left: &mut u64) -> Result<(), Error> {
    *left = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(large)?;
    match class(value) {
        Class::List | Class::Tuple => value.try_iter()?.try_for_each(|part| walk(&part, depth + 1, left)),
        Class::Dict => value.try_iter()?.try_for_each(|key| walk(&value.get_item(&key)?, depth + 1, left)),
        Class::Object if value.kind() == ValueKind::Map => Err(large()),
        _ => Ok(()),
    }
}
