//! Python's methods of dicts, lists and tuples.

use std::{fmt, sync::Arc};

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Object, ObjectRepr, ValueKind},
};

use super::{
    compare::{check_key, equal},
    objects::{DictView, View},
    python::{bind, error, integer, is_own_object, span, type_of},
};

/// Methods of dicts and lists.
pub const METHODS: &[&str] = &[
    "append",
    "clear",
    "copy",
    "count",
    "extend",
    "get",
    "index",
    "insert",
    "items",
    "keys",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "values",
];

/// Methods that would change a dict.
const DICT_CHANGES: &[&str] = &["clear", "pop", "popitem", "setdefault", "update"];
/// Methods that would change a list.
const LIST_CHANGES: &[&str] = &["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];

/// A method of a dict.
///
/// # Errors
/// For an unknown method, and for one that would change the dict.
pub fn dict_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let view = |kind| Ok(Value::from_object(DictView { of: value.clone(), kind }));
    match name {
        "get" => {
            let [key, default] = bind("get", args, ["<key>", "<default>"])?;
            let key = key.ok_or_else(|| error("get takes a key"))?;
            check_key(&key)?;
            let found = value.get_item(&key).ok().filter(|v| !v.is_undefined());
            Ok(found.or(default).unwrap_or_else(|| Value::from(())))
        }
        "items" => bind("items", args, []).and_then(|[]| view(View::Items)),
        "keys" => bind("keys", args, []).and_then(|[]| view(View::Keys)),
        "values" => bind("values", args, []).and_then(|[]| view(View::Values)),
        "copy" => bind("copy", args, []).map(|[]| value.clone()),
        name if DICT_CHANGES.contains(&name) => Err(changes("dict", name)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// A method of a list or a tuple.
///
/// # Errors
/// As [`dict_method`]; also for `index` of a value that is not in the list.
pub fn list_method(state: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "index" => {
            let [item, start, stop] = bind("index", args, ["<item>", "<start>", "<stop>"])?;
            let item = item.ok_or_else(|| error("index takes a value"))?;
            let items: Vec<Value> = value.try_iter()?.collect();
            let (start, stop) = span(items.len(), integer("index", start.as_ref())?, integer("index", stop.as_ref())?);
            for (i, other) in items.iter().enumerate().take(stop).skip(start) {
                if equal(state, other, &item)? {
                    return Ok(Value::from(i));
                }
            }
            Err(error("the value is not in the list"))
        }
        "count" => {
            let [item] = bind("count", args, ["<item>"])?;
            let item = item.ok_or_else(|| error("count takes a value"))?;
            let mut n = 0;
            for other in value.try_iter()? {
                n += usize::from(equal(state, &other, &item)?);
            }
            Ok(Value::from(n))
        }
        "copy" if !value.is_tuple() => bind("copy", args, []).map(|[]| value.clone()),
        name if LIST_CHANGES.contains(&name) && !value.is_tuple() => Err(changes("list", name)),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn changes(kind: &str, name: &str) -> Error {
    error(format!("`{name}` would change a {kind}, which Jinja's immutable sandbox does not let a chat template do"))
}

/// Whether a value has a method of this name. Jinja prefers methods to entries.
pub fn has_method(value: &Value, name: &str) -> bool {
    match value.kind() {
        ValueKind::String => super::strings::METHODS.contains(&name),
        ValueKind::Map if is_own_object(value, "Namespace") => false,
        ValueKind::Map => ["get", "items", "keys", "values", "copy"].contains(&name) || DICT_CHANGES.contains(&name),
        ValueKind::Seq | ValueKind::Iterable => {
            ["index", "count", "copy"].contains(&name) || LIST_CHANGES.contains(&name)
        }
        _ => false,
    }
}

/// A bound method that has not been called yet.
#[derive(Debug)]
pub struct Method {
    /// The value it is a method of.
    pub of: Value,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {} of {} object>", self.name, type_of(&self.of))
    }
}

impl Object for Method {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        self.of.call_method(state, &self.name, args)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
