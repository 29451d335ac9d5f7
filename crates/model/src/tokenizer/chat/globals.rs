//! Jinja's global functions: `dict`, `namespace`, `range`, `joiner` and `cycler`.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use minijinja::{
    Environment, Error, ErrorKind, State, Value, functions,
    value::{Kwargs, Object, ObjectRepr, Rest, ValueKind, ValueOrKwargs, from_args},
};

use super::{
    compare::check_key,
    objects::Range,
    python::{bind, error, integer},
};

/// Longest range that Jinja's sandbox allows.
const MAX_RANGE: usize = 100_000;

/// Adds `dict`, `namespace`, `range`, `joiner` and `cycler`.
pub fn add_to(environment: &mut Environment<'_>) {
    environment.add_global("dict", Value::from_object(DictType));
    environment.add_function("namespace", |state: &State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let fields = dict(&args.into_values())?;
        state.consume_fuel(fields.len().unwrap_or(0) as u64 + 8)?;
        for key in fields.try_iter()? {
            if key.as_str().is_some_and(|name| name.starts_with('_')) {
                return Err(error("a namespace has no attributes whose names begin with an underscore"));
            }
        }
        let namespace = functions::namespace(Some(fields.into()))?;
        NAMESPACES.with_borrow_mut(|all| all.push(namespace.clone()));
        Ok(namespace)
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

thread_local! {
    /// The namespaces that the template on this thread has created.
    static NAMESPACES: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
}

/// Empties the namespaces that a template has created on this thread. Otherwise one that contains itself would never be freed.
pub fn clear_namespaces() {
    let environment = Environment::new();
    for namespace in NAMESPACES.take() {
        let Ok(names) = namespace.try_iter() else { continue };
        // A cycle needs an assignment after the namespace was created, and assigned names are identifiers.
        for name in names.filter(|name| !name.is_undefined()) {
            let clear = format!("{{% set namespace.{name} = none %}}");
            // fails for other names, which were given when it was created
            let _ = environment.render_str(&clear, Value::from_pairs([("namespace", namespace.clone())]));
        }
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
    let (positional, named): (&[Value], Kwargs) = from_args(args)?;
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
    pairs.iter().try_for_each(|(key, _)| check_key(key))?;
    Ok(Value::from_pairs(pairs))
}

/// The global `dict`: it can be called, and has `fromkeys`.
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
        let keys = keys.try_iter()?.map(|key| check_key(&key).map(|()| (key, value.clone())));
        Ok(Value::from_pairs(keys.collect::<Result<Vec<_>, Error>>()?))
    }
}

/// Jinja's `joiner`: returns nothing at the first call, then its separator.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_holds_itself_goes_with_its_template() {
        let probe = Arc::new(DictType);
        let namespace = functions::namespace(None).unwrap();
        let held = Value::from_dyn_object(Arc::clone(&probe));
        let context = Value::from_pairs([("n", namespace.clone()), ("held", held)]);
        Environment::new().render_str("{% set n.me = [n] %}{% set n.held = held %}", context).unwrap();
        NAMESPACES.with_borrow_mut(|all| all.push(namespace));
        assert_eq!(Arc::strong_count(&probe), 2);
        clear_namespaces();
        assert_eq!(Arc::strong_count(&probe), 1);
    }
}
