//! Jinja's filters that minijinja lacks, or that differ from minijinja's.

use std::{cmp::Ordering, collections::HashSet};

use minijinja::{
    Environment, Error, State, Value,
    value::{Rest, Tuple, ValueKind, ValueOrKwargs},
};

use super::{
    characters,
    compare::{check_key, equal, order},
    format::percent,
    numbers::Number,
    objects::Group,
    padding::pad,
    python::{MAX_ITEMS, bind, check_bytes, error, float, integer, repr, string, text, truth, written},
    strings, wrap,
};

/// The arguments of a filter; the first is its value.
type Args = Rest<ValueOrKwargs>;

/// Adds the filters.
pub fn add_to(environment: &mut Environment<'_>) {
    // Filters that only minijinja has: Jinja refuses a template that uses them.
    for name in ["lines", "split", "zip", "chain", "bool"] {
        environment.remove_filter(name);
    }
    environment.add_filter("attr", attribute);
    environment.add_filter("capitalize", |v: &Value| text(v).map(|t| characters::cased(&t, "capitalize")));
    environment.add_filter("center", center);
    environment.add_filter("dictsort", sorted_dict);
    environment.add_filter("filesizeformat", file_size);
    environment.add_filter("float", to_float);
    environment.add_filter("format", format);
    environment.add_filter("groupby", group_by);
    environment.add_filter("indent", wrap::indent);
    environment.add_filter("int", to_int);
    environment.add_filter("join", join);
    environment.add_filter("list", list);
    environment.add_filter("lower", |v: &Value| text(v).map(|t| t.to_lowercase()));
    environment.add_filter("max", extreme("max", Ordering::Greater));
    environment.add_filter("min", extreme("min", Ordering::Less));
    environment.add_filter("pprint", pretty);
    environment.add_filter("replace", replace);
    environment.add_filter("safe", |v: &Value| text(v).map(Value::from_safe_string));
    environment.add_filter("sort", sort);
    environment.add_filter("string", |state: &State<'_, '_>, v: &Value| match v.is_safe() {
        true => Ok(v.clone()),
        false => written(state, v).map(Value::from),
    });
    environment.add_filter("title", |v: &Value| text(v).map(|t| title(&t)));
    environment.add_filter("tojson", super::tojson::tojson);
    environment.add_filter("trim", trim);
    environment.add_filter("truncate", wrap::truncate);
    environment.add_filter("unique", unique);
    environment.add_filter("upper", |v: &Value| text(v).map(|t| t.to_uppercase()));
    environment.add_filter("wordcount", |v: &Value| text(v).map(|t| wrap::words(&t)));
    environment.add_filter("wordwrap", wrap::word_wrap);
}

/// The filter's value and arguments by name.
fn args<const N: usize>(name: &str, args: Args, names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    bind(name, &args.into_values(), names)
}

/// The filter `attr`. Attributes of a dict are its methods, not its entries.
fn attribute(value: &Value, name: &str) -> Value {
    match value.kind() {
        ValueKind::Map if !super::python::is_own_object(value, "Namespace") => Value::UNDEFINED,
        _ => value.get_attr(name).unwrap_or_default(),
    }
}

fn center(given: Args) -> Result<String, Error> {
    let [value, width] = args("center", given, ["<value>", "width"])?;
    let width = integer("center", width.as_ref())?.unwrap_or(80);
    pad(&text(&value.unwrap_or_default())?, "center", width, ' ')
}

/// The key that a value is compared by: strings in lower case, unless case matters.
fn key(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

fn pairs(map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    map.try_iter()?.map(|key| map.get_item(&key).map(|value| (key, value))).collect()
}

fn sorted_dict(state: &State<'_, '_>, given: Args) -> Result<Value, Error> {
    let names = ["<value>", "case_sensitive", "by", "reverse"];
    let [map, case, by, reverse] = args("dictsort", given, names)?;
    let map = map.filter(|m| m.kind() == ValueKind::Map).ok_or_else(|| error("dictsort takes a dict"))?;
    let case = truth(case.as_ref(), false);
    let by_value = match by.as_ref().and_then(Value::as_str) {
        None | Some("key") => false,
        Some("value") => true,
        Some(_) => return Err(error("dictsort sorts by `key` or `value`")),
    };
    let of = |(key, value): &(Value, Value)| key_of(if by_value { value } else { key }, None, case);
    let pairs = pairs(&map)?.into_iter().map(|pair| Ok((of(&pair)?, pair)));
    let sorted = in_order(state, pairs.collect::<Result<_, Error>>()?, truth(reverse.as_ref(), false))?;
    Ok(sorted.into_iter().map(|(_, (key, value))| Value::from(Tuple::from([key, value]))).collect())
}

/// Sorts by keys, which must all have the same type, as in Python.
fn in_order<T>(state: &State<'_, '_>, mut items: Vec<(Value, T)>, reverse: bool) -> Result<Vec<(Value, T)>, Error> {
    let mut failed = None;
    items.sort_by(|(a, _), (b, _)| {
        let (a, b) = if reverse { (b, a) } else { (a, b) };
        if failed.is_some() {
            return Ordering::Equal;
        }
        state
            .consume_fuel(1)
            .and_then(|()| order(state, a, b))
            .unwrap_or_else(|e| {
                failed = Some(e);
                None
            })
            .unwrap_or(Ordering::Equal)
    });
    failed.map_or(Ok(items), Err)
}

/// The value at a dotted path of attributes; undefined if there is none.
fn at_path(value: &Value, path: &str) -> Value {
    path.split('.').fold(value.clone(), |value, part| {
        let key = part.parse::<i64>().map_or_else(|_| Value::from(part), Value::from);
        value.get_item(&key).unwrap_or_default()
    })
}

/// The key by which an item is sorted or distinguished.
fn key_of(item: &Value, attribute: Option<&Value>, case_sensitive: bool) -> Result<Value, Error> {
    let Some(attribute) = attribute.filter(|a| !a.is_none()) else { return Ok(key(item.clone(), case_sensitive)) };
    let paths = text(attribute)?;
    let mut keys: Vec<Value> = paths.split(',').map(|path| key(at_path(item, path), case_sensitive)).collect();
    Ok(if keys.len() == 1 { keys.remove(0) } else { Value::from(keys) })
}

/// The items with their keys.
fn keyed(
    state: &State<'_, '_>,
    value: &Value,
    attribute: Option<&Value>,
    case_sensitive: bool,
) -> Result<Vec<(Value, Value)>, Error> {
    let items = items(state, value)?.into_iter();
    items.map(|item| Ok((key_of(&item, attribute, case_sensitive)?, item))).collect()
}

/// The filters `min` and `max`.
fn extreme(name: &'static str, wanted: Ordering) -> impl Fn(&State<'_, '_>, Args) -> Result<Value, Error> {
    move |state, given| {
        let [value, case, attribute] = args(name, given, ["<value>", "case_sensitive", "attribute"])?;
        let case = truth(case.as_ref(), false);
        let mut best: Option<(Value, Value)> = None;
        for (key, item) in keyed(state, &value.unwrap_or_default(), attribute.as_ref(), case)? {
            let better = match &best {
                None => true,
                Some((than, _)) => order(state, &key, than)? == Some(wanted),
            };
            if better {
                best = Some((key, item));
            }
        }
        Ok(best.map(|(_, item)| item).unwrap_or_default())
    }
}

fn group_by(state: &State<'_, '_>, given: Args) -> Result<Value, Error> {
    let names = ["<value>", "attribute", "default", "case_sensitive"];
    let [value, attribute, default, case] = args("groupby", given, names)?;
    let case = truth(case.as_ref(), false);
    let path = text(&attribute.unwrap_or_default())?;
    let of = |item: &Value| match at_path(item, &path) {
        found if found.is_undefined() => default.clone().unwrap_or_default(),
        found => found,
    };
    let items = items(state, &value.unwrap_or_default())?;
    let items = items.into_iter().map(|item| (key(of(&item), case), item)).collect();
    let mut groups: Vec<(Value, Group)> = Vec::new();
    for (key, item) in in_order(state, items, false)? {
        match groups.last_mut() {
            Some((same, group)) if equal(state, same, &key)? => group.list.push(item),
            _ => groups.push((key, Group { grouper: of(&item), list: vec![item] })),
        }
    }
    Ok(groups.into_iter().map(|(_, group)| Value::from_object(group)).collect())
}

fn sort(state: &State<'_, '_>, given: Args) -> Result<Value, Error> {
    let [value, reverse, case, attribute] = args("sort", given, ["<value>", "reverse", "case_sensitive", "attribute"])?;
    let items = keyed(state, &value.unwrap_or_default(), attribute.as_ref(), truth(case.as_ref(), false))?;
    let sorted = in_order(state, items, truth(reverse.as_ref(), false))?;
    Ok(sorted.into_iter().map(|(_, item)| item).collect())
}

fn unique(state: &State<'_, '_>, given: Args) -> Result<Value, Error> {
    let [value, case, attribute] = args("unique", given, ["<value>", "case_sensitive", "attribute"])?;
    let (mut seen, mut out) = (HashSet::new(), Vec::new());
    for (key, item) in keyed(state, &value.unwrap_or_default(), attribute.as_ref(), truth(case.as_ref(), false))? {
        check_key(&key)?;
        if seen.insert(key) {
            out.push(item);
        }
    }
    Ok(Value::from(out))
}

/// The items of a list, the keys of a dict, the characters of a string.
fn items(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_none() {
        return Err(error("None has no items"));
    }
    let items: Vec<Value> = value.try_iter()?.take(MAX_ITEMS + 1).collect();
    if items.len() > MAX_ITEMS {
        return Err(error(format!("a list of the chat template is too large: at most {MAX_ITEMS} items")));
    }
    state.consume_fuel(items.len() as u64 / 2)?;
    Ok(items)
}

fn list(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    items(state, value).map(Value::from)
}

fn file_size(given: Args) -> Result<String, Error> {
    let [value, binary] = args("filesizeformat", given, ["<value>", "binary"])?;
    let value = value.unwrap_or_default();
    let bytes = match value.as_str() {
        Some(text) => text.trim().parse().map_err(|_| error("filesizeformat takes a number"))?,
        None => f64::try_from(value).map_err(|_| error("filesizeformat takes a number"))?,
    };
    let binary = truth(binary.as_ref(), false);
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok("1 Byte".to_owned());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc()));
    }
    let units = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let i = (0..units.len()).find(|i| bytes < base.powi(*i as i32 + 2)).unwrap_or(units.len() - 1);
    let unit = if binary { format!("{}iB", units[i].to_uppercase()) } else { format!("{}B", units[i]) };
    Ok(format!("{:.1} {unit}", bytes / base.powi(i as i32 + 1)))
}

/// The text of a number as Python parses it: without surrounding spaces and underscores between digits.
fn digits(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim_matches(characters::is_space);
    let between = |i: usize, c: char| {
        c != '_'
            || (text[..i].ends_with(|c: char| c.is_ascii_alphanumeric())
                && text[i + 1..].starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    text.char_indices().all(|(i, c)| between(i, c)).then(|| text.replace('_', ""))
}

fn as_float(value: &Value) -> Option<f64> {
    match digits(value) {
        Some(text) => text.parse().ok(),
        None => Number::of(value).ok().map(|n| match n {
            Number::Whole(n) => n as f64,
            Number::Float(x) => x,
        }),
    }
}

fn to_float(given: Args) -> Result<Value, Error> {
    let [value, default] = args("float", given, ["<value>", "default"])?;
    let value = as_float(&value.unwrap_or_default()).map(Value::from);
    Ok(value.or(default).unwrap_or_else(|| Value::from(0.0)))
}

fn to_int(given: Args) -> Result<Value, Error> {
    let [value, default, base] = args("int", given, ["<value>", "default", "base"])?;
    let value = value.unwrap_or_default();
    if value.is_integer() {
        return Ok(value);
    }
    let base = integer("int", base.as_ref())?.unwrap_or(10);
    let whole = match digits(&value) {
        Some(text) => {
            based(&text, base).or_else(|| text.parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| x as i128))
        }
        None => Number::of(&value).and_then(Number::truncated).ok().and_then(Number::whole),
    };
    let whole = whole.map(|n| i64::try_from(n).map_or_else(|_| Value::from(n), Value::from));
    Ok(whole.or(default).unwrap_or_else(|| Value::from(0)))
}

/// Parses an integer in a base, with an optional prefix; base 0 means that the prefix decides.
fn based(text: &str, base: i64) -> Option<i128> {
    let (sign, size) = text.strip_prefix('-').map_or((1, text.strip_prefix('+').unwrap_or(text)), |size| (-1, size));
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, of)| {
        let digits = size.get(..2).filter(|p| p.eq_ignore_ascii_case(prefix)).map(|_| &size[2..])?;
        (base == of || base == 0).then_some((digits, of))
    });
    let (digits, base) = prefixed.unwrap_or((size, if base == 0 { 10 } else { base }));
    let base = u32::try_from(base).ok().filter(|b| (2..=36).contains(b))?;
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    i128::from_str_radix(digits, base).ok().map(|n| n * sign)
}

fn format(given: Args) -> Result<String, Error> {
    let given = given.into_values();
    let (positional, named): (&[Value], minijinja::value::Kwargs) = minijinja::value::from_args(&given)?;
    let [pattern, values @ ..] = positional else { return Err(error("format takes a string")) };
    let named: Vec<(Value, Value)> =
        named.args().map(|name| Ok((Value::from(name), named.peek(name)?))).collect::<Result<_, Error>>()?;
    match (values.is_empty(), named.is_empty()) {
        (false, false) => Err(error("format takes values in order or with names, not both")),
        (true, false) => percent(&text(pattern)?, &Value::from_pairs(named)),
        _ => percent(&text(pattern)?, &Value::from(Tuple::from(values))),
    }
}

fn join(state: &State<'_, '_>, given: Args) -> Result<String, Error> {
    let [value, separator, attribute] = args("join", given, ["<value>", "d", "attribute"])?;
    let separator = separator.map_or(Ok(String::new()), |s| text(&s))?;
    let mut out = String::new();
    for (i, item) in items(state, &value.unwrap_or_default())?.into_iter().enumerate() {
        let item = match &attribute {
            Some(path) if !path.is_none() => at_path(&item, &text(path)?),
            _ => item,
        };
        let item = written(state, &item)?;
        check_bytes(out.len() + separator.len() + item.len())?;
        if i > 0 {
            out.push_str(&separator);
        }
        out.push_str(&item);
    }
    Ok(out)
}

fn replace(given: Args) -> Result<Value, Error> {
    let [value, old, new, count] = args("replace", given, ["<value>", "old", "new", "count"])?;
    let value = value.unwrap_or_default();
    let argument = |v: Option<Value>| v.map_or_else(|| Err(error("replace takes two strings")), |v| text(&v));
    let replaced =
        strings::replace(&text(&value)?, &argument(old)?, &argument(new)?, integer("replace", count.as_ref())?)?;
    Ok(if value.is_safe() { Value::from_safe_string(replaced) } else { Value::from(replaced) })
}

/// The filter `title`: a capital at the start of each word, which is after white space, a hyphen or an opening bracket.
fn title(text: &str) -> String {
    let (mut out, mut first) = (String::with_capacity(text.len()), true);
    for c in text.chars() {
        if first {
            out.extend(c.to_uppercase())
        } else {
            out.extend(c.to_lowercase())
        }
        first = c.is_whitespace() || matches!(c, '-' | '(' | '[' | '{' | '<');
    }
    out
}

fn trim(given: Args) -> Result<String, Error> {
    let [value, set] = args("trim", given, ["<value>", "chars"])?;
    let set = set.filter(|s| !s.is_none()).map(|s| string("trim", Some(&s))).transpose()?;
    let cut = |c: char| set.as_ref().map_or_else(|| characters::is_space(c), |set| set.contains(c));
    Ok(text(&value.unwrap_or_default())?.trim_matches(cut).to_owned())
}

/// Python's `pprint`, for values that fit on one line; dicts are sorted by key.
fn pretty(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let shown = match value.kind() {
        ValueKind::Map => {
            let keyed = pairs(value)?.into_iter().map(|(key, value)| (key.clone(), (key, value))).collect();
            let sorted = in_order(state, keyed, false)?;
            repr(&Value::from_pairs(sorted.into_iter().map(|(_, pair)| pair)))?
        }
        ValueKind::Number if !value.is_integer() => float(f64::try_from(value.clone())?),
        _ => repr(value)?,
    };
    match shown.len() > 80 {
        true => Err(error("pprint of more than one line is not supported")),
        false => Ok(shown),
    }
}
