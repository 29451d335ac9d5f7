//! Dicts, lists and Jinja's helper objects with their Python methods.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use minijinja::{
    Environment, Error, ErrorKind, State, Value, functions,
    value::{Enumerator, Object, ObjectRepr, Rest, Tuple, ValueKind, ValueOrKwargs},
};

use super::python::{bind, error, integer, is_own_object, type_of};

/// Longest range of Jinja's sandbox.
const MAX_RANGE: usize = 100_000;

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

/// Adds `dict`, `namespace`, `range`, `joiner` and `cycler`.
pub fn add_to(environment: &mut Environment<'_>) {
    environment.add_global("dict", Value::from_object(DictType));
    environment.add_function("namespace", |args: Rest<ValueOrKwargs>| {
        let fields = dict(&args.into_values())?;
        for key in fields.try_iter()? {
            if key.as_str().is_some_and(|name| name.starts_with('_')) {
                return Err(error("a namespace has no attributes whose names begin with an underscore"));
            }
        }
        functions::namespace(Some(fields.into()))
    });
    environment.add_function("range", range);
    environment.add_function("joiner", |separator: Option<String>| {
        Value::from_object(Joiner { separator: separator.unwrap_or(", ".to_owned()), used: AtomicBool::new(false) })
    });
    environment.add_function("cycler", |items: Rest<Value>| match items.is_empty() {
        true => Err(error("at least one item has to be provided")),
        false => Ok(Value::from_object(Cycler { items: items.to_vec(), at: AtomicUsize::new(0) })),
    });
}

/// A method of a dict.
///
/// # Errors
/// For a method that there is not, or that would change the dict.
pub fn dict_method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let view = |kind| Ok(Value::from_object(DictView { of: value.clone(), kind }));
    match name {
        "get" => {
            let [key, default] = bind("get", args, ["<key>", "<default>"])?;
            let key = key.ok_or_else(|| error("get takes a key"))?;
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
/// As [`dict_method`]; for an index of what is not in the list.
pub fn list_method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match name {
        "index" => {
            let [item, start, stop] = bind("index", args, ["<item>", "<start>", "<stop>"])?;
            let item = item.ok_or_else(|| error("index takes a value"))?;
            let items: Vec<Value> = value.try_iter()?.collect();
            let (start, stop) = span(items.len(), integer("index", start.as_ref())?, integer("index", stop.as_ref())?);
            for (i, other) in items.iter().enumerate().take(stop).skip(start) {
                if state.perform_test("eq", &[other.clone(), item.clone()])? {
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
                n += usize::from(state.perform_test("eq", &[other, item.clone()])?);
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

/// Python's slice `[start:stop]` of `n` items, as indices.
pub fn span(n: usize, start: Option<i64>, stop: Option<i64>) -> (usize, usize) {
    let index = |i: i64| {
        let distance = usize::try_from(i.unsigned_abs()).unwrap_or(usize::MAX);
        if i < 0 { n.saturating_sub(distance) } else { distance }
    };
    (start.map_or(0, index), stop.map_or(n, index).min(n))
}

/// Whether a value has a method of this name, which Jinja prefers to an entry.
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

/// A method that has not been called yet.
#[derive(Debug)]
pub struct Method {
    /// What it is a method of.
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

#[derive(Debug, Clone, Copy)]
enum View {
    Items,
    Keys,
    Values,
}

/// What `dict.items()`, `.keys()` and `.values()` give.
#[derive(Debug)]
pub struct DictView {
    of: Value,
    kind: View,
}

impl DictView {
    /// How it is written, up to its items.
    pub fn opens(&self) -> &'static str {
        match self.kind {
            View::Items => "dict_items(",
            View::Keys => "dict_keys(",
            View::Values => "dict_values(",
        }
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let (of, kind) = (self.of.clone(), self.kind);
        let Ok(keys) = self.of.try_iter() else { return Enumerator::Empty };
        let n = self.of.len().unwrap_or(0);
        let items = keys.map(move |key| match kind {
            View::Keys => key,
            View::Values => of.get_item(&key).unwrap_or_default(),
            View::Items => {
                let value = of.get_item(&key).unwrap_or_default();
                Value::from(Tuple::from([key, value]))
            }
        });
        Enumerator::Iter(Box::new(Sized { items, left: n }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.of.len()
    }
}

/// An iterator that knows how many items it has.
struct Sized<I> {
    items: I,
    left: usize,
}

impl<I: Iterator> Iterator for Sized<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Python's `range`.
#[derive(Debug)]
pub struct Range {
    start: i64,
    stop: i64,
    step: i64,
    n: usize,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            1 => write!(f, "range({}, {})", self.start, self.stop),
            step => write!(f, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let i = key.as_usize().filter(|i| *i < self.n)?;
        Some(Value::from(self.start + i as i64 * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.n)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn range(args: Rest<Value>) -> Result<Value, Error> {
    let numbers: Vec<i64> = args
        .iter()
        .map(|v| integer("range", Some(v))?.ok_or_else(|| error("range takes integers")))
        .collect::<Result<_, _>>()?;
    let (start, stop, step) = match numbers.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] if *step != 0 => (*start, *stop, *step),
        _ => return Err(error("range takes one to three integers, the third not zero")),
    };
    let (distance, stride) = (i128::from(stop) - i128::from(start), i128::from(step));
    let n = if (distance > 0) == (stride > 0) { (distance.abs() + stride.abs() - 1) / stride.abs() } else { 0 };
    match usize::try_from(n) {
        Ok(n) if n <= MAX_RANGE => Ok(Value::from_object(Range { start, stop, step, n })),
        _ => Err(error(format!("a range of a chat template has at most {MAX_RANGE} numbers"))),
    }
}

/// Python's `dict(…)`: a mapping or pairs, and named entries.
fn dict(args: &[Value]) -> Result<Value, Error> {
    let (positional, named): (&[Value], minijinja::value::Kwargs) = minijinja::value::from_args(args)?;
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match positional {
        [] => {}
        [map] if map.kind() == ValueKind::Map => {
            for key in map.try_iter()? {
                let value = map.get_item(&key)?;
                pairs.push((key, value));
            }
        }
        [list] => {
            for pair in list.try_iter()? {
                let pair: Vec<Value> = pair.try_iter()?.collect();
                let [key, value] = pair.as_slice() else { return Err(error("dict takes pairs")) };
                pairs.push((key.clone(), value.clone()));
            }
        }
        _ => return Err(error("dict takes at most one mapping or list of pairs")),
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.peek(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// `dict`, which can be called and has `fromkeys`.
#[derive(Debug)]
struct DictType;

impl Object for DictType {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        dict(args)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, name: &str, args: &[Value]) -> Result<Value, Error> {
        if name != "fromkeys" {
            return Err(Error::from(ErrorKind::UnknownMethod));
        }
        let [keys, value] = bind("fromkeys", args, ["<keys>", "<value>"])?;
        let keys = keys.ok_or_else(|| error("fromkeys takes keys"))?;
        let value = value.unwrap_or_else(|| Value::from(()));
        Ok(Value::from_pairs(keys.try_iter()?.map(|key| (key, value.clone()))))
    }
}

/// Jinja's `joiner`: nothing at its first call, then its separator.
#[derive(Debug)]
struct Joiner {
    separator: String,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let [] = bind("a joiner", args, [])?;
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(Value::from(if used { self.separator.as_str() } else { "" }))
    }
}

/// Jinja's `cycler`.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = self.at.load(Ordering::Relaxed) % self.items.len();
        (key.as_str() == Some("current")).then(|| self.items[at].clone())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, name: &str, args: &[Value]) -> Result<Value, Error> {
        let [] = bind("a cycler", args, [])?;
        match name {
            "next" => Ok(self.items[self.at.fetch_add(1, Ordering::Relaxed) % self.items.len()].clone()),
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}
