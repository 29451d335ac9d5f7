//! Python's methods of `str`.

use minijinja::{Error, ErrorKind, Value, value::Tuple};

use super::{
    characters::{cased, is, is_space},
    format::str_format,
    padding::pad,
    python::{MAX_ITEMS, bind, check_bytes, error, integer, span, string, truth, type_of},
};

/// The names of the methods.
pub const METHODS: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Calls the method `name` of `text`.
///
/// # Errors
/// For an unknown method, wrong arguments, and a result that is too large.
pub fn method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    check_bytes(text.len())?;
    match name {
        "capitalize" | "casefold" | "lower" | "swapcase" | "title" | "upper" => {
            bind(name, args, []).map(|[]| Value::from(cased(text, name)))
        }
        "isalnum" | "isalpha" | "isascii" | "isdecimal" | "isdigit" | "isidentifier" | "islower" | "isnumeric"
        | "isprintable" | "isspace" | "istitle" | "isupper" => {
            bind(name, args, []).map(|[]| Value::from(is(text, name)))
        }
        "center" | "ljust" | "rjust" | "zfill" => padded(text, name, args),
        "count" | "find" | "index" | "rfind" | "rindex" => found(text, name, args),
        "startswith" | "endswith" => has_affix(text, name, args),
        "expandtabs" => expand_tabs(text, args),
        "format" => str_format(text, args).map(Value::from),
        "format_map" => {
            let [map] = bind(name, args, ["<mapping>"])?;
            let map = map.ok_or_else(|| error("format_map takes a mapping"))?;
            let fields: minijinja::value::Kwargs = map
                .try_iter()?
                .map(|k| {
                    let value = map.get_item(&k).unwrap_or_default();
                    (k.to_string(), value)
                })
                .collect();
            str_format(text, &[fields.into()]).map(Value::from)
        }
        "join" => join(text, args),
        "strip" | "lstrip" | "rstrip" => strip(text, name, args),
        "partition" | "rpartition" => partition(text, name, args),
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(name, args, ["<affix>"])?;
            let affix = string(name, affix.as_ref())?;
            let rest = if name == "removeprefix" { text.strip_prefix(&*affix) } else { text.strip_suffix(&*affix) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "replace" => {
            let [old, new, count] = bind(name, args, ["<old>", "<new>", "count"])?;
            let (old, new) = (string(name, old.as_ref())?, string(name, new.as_ref())?);
            replace(text, &old, &new, integer(name, count.as_ref())?).map(Value::from)
        }
        "split" | "rsplit" => split(text, name, args),
        "splitlines" => {
            let [keep] = bind(name, args, ["keepends"])?;
            let keep = truth(keep.as_ref(), false);
            let lines =
                lines(text).into_iter().map(|(line, end)| if keep { &text[line.start..end] } else { &text[line] });
            listed(lines)
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// A list of strings; an error if there are too many.
fn listed<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Value, Error> {
    let parts: Vec<Value> = parts.take(MAX_ITEMS + 1).map(Value::from).collect();
    if parts.len() > MAX_ITEMS {
        return Err(error(format!("a list of the chat template is too large: at most {MAX_ITEMS} items")));
    }
    Ok(Value::from(parts))
}

fn padded(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let needs = || error(format!("{name} takes a width"));
    if name == "zfill" {
        let [width] = bind(name, args, ["<width>"])?;
        let width = integer(name, width.as_ref())?.ok_or_else(needs)?;
        let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
        let digits = pad(digits, "rjust", width.saturating_sub(sign.len() as i64), '0')?;
        return Ok(Value::from(format!("{sign}{digits}")));
    }
    let [width, fill] = bind(name, args, ["<width>", "<fill>"])?;
    let width = integer(name, width.as_ref())?.ok_or_else(needs)?;
    let fill = fill.map_or(Ok(" ".to_owned()), |f| string(name, Some(&f)))?;
    let mut chars = fill.chars();
    let (Some(fill), None) = (chars.next(), chars.next()) else {
        return Err(error(format!("{name} fills with exactly one character")));
    };
    pad(text, name, width, fill).map(Value::from)
}

/// The part of `text` between two character positions, which are Python's optional arguments; and the position where it starts.
fn part<'t>(
    text: &'t str,
    name: &str,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<Option<(&'t str, usize)>, Error> {
    let (start, stop) = (integer(name, start)?, integer(name, stop)?);
    if start.is_none() && stop.is_none() {
        return Ok(Some((text, 0)));
    }
    let n = text.chars().count();
    let (from, to) = span(n, start, stop);
    if from > to {
        return Ok(None);
    }
    let byte = |i: usize| text.char_indices().nth(i).map_or(text.len(), |(at, _)| at);
    Ok(Some((&text[byte(from)..byte(to)], from)))
}

fn found(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [wanted, start, stop] = bind(name, args, ["<substring>", "<start>", "<stop>"])?;
    let wanted = string(name, wanted.as_ref())?;
    let part = part(text, name, start.as_ref(), stop.as_ref())?;
    if name == "count" {
        return Ok(Value::from(part.map_or(0, |(part, _)| part.matches(&*wanted).count())));
    }
    let place = part.and_then(|(part, from)| {
        let at = if name.starts_with('r') { part.rfind(&*wanted) } else { part.find(&*wanted) }?;
        Some(from + part[..at].chars().count())
    });
    match place {
        Some(place) => Ok(Value::from(place)),
        None if name.ends_with("find") => Ok(Value::from(-1)),
        None => Err(error("substring not found")),
    }
}

fn has_affix(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [affix, start, stop] = bind(name, args, ["<affix>", "<start>", "<stop>"])?;
    let affix = affix.ok_or_else(|| error(format!("{name} takes a string or a tuple of strings")))?;
    let affixes = match affix.is_tuple() {
        true => affix.try_iter()?.map(|v| string(name, Some(&v))).collect::<Result<Vec<_>, _>>()?,
        false => vec![string(name, Some(&affix))?],
    };
    let part = part(text, name, start.as_ref(), stop.as_ref())?.map(|(part, _)| part);
    let has = |affix: &String| {
        part.is_some_and(
            |part| if name == "startswith" { part.starts_with(&**affix) } else { part.ends_with(&**affix) },
        )
    };
    Ok(Value::from(affixes.iter().any(has)))
}

fn expand_tabs(text: &str, args: &[Value]) -> Result<Value, Error> {
    let [size] = bind("expandtabs", args, ["tabsize"])?;
    let size = usize::try_from(integer("expandtabs", size.as_ref())?.unwrap_or(8)).unwrap_or(0);
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' => {
                let n = if size == 0 { 0 } else { size - column % size };
                check_bytes(out.len().saturating_add(n))?;
                out.extend(std::iter::repeat_n(' ', n));
                column += n;
            }
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                out.push(c);
            }
        }
    }
    Ok(Value::from(out))
}

fn join(separator: &str, args: &[Value]) -> Result<Value, Error> {
    let [items] = bind("join", args, ["<items>"])?;
    let items = items.ok_or_else(|| error("join takes a list of strings"))?;
    if items.is_none() || items.is_undefined() {
        return Err(error("join takes a list of strings"));
    }
    let mut out = String::new();
    for (i, item) in items.try_iter()?.enumerate() {
        let Some(item) = item.as_str() else {
            return Err(error(format!("join takes strings; item {i} is {}", type_of(&item))));
        };
        check_bytes(out.len() + separator.len() + item.len())?;
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
    }
    Ok(Value::from(out))
}

fn strip(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [set] = bind(name, args, ["<characters>"])?;
    let set = set.filter(|v| !v.is_none()).map(|v| string(name, Some(&v))).transpose()?;
    let cut = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
    Ok(Value::from(match name {
        "strip" => text.trim_matches(cut),
        "lstrip" => text.trim_start_matches(cut),
        _ => text.trim_end_matches(cut),
    }))
}

fn separator(name: &str, value: Option<&Value>) -> Result<String, Error> {
    let separator = string(name, value)?;
    if separator.is_empty() { Err(error(format!("{name} takes a separator that is not empty"))) } else { Ok(separator) }
}

fn partition(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [wanted] = bind(name, args, ["<separator>"])?;
    let wanted = separator(name, wanted.as_ref())?;
    let parts = match name {
        "partition" => text.split_once(&*wanted).map_or([text, "", ""], |(a, b)| [a, &wanted, b]),
        _ => text.rsplit_once(&*wanted).map_or(["", "", text], |(a, b)| [a, &wanted, b]),
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// Python's `str.replace`.
///
/// # Errors
/// When the result would be too large.
pub fn replace(text: &str, old: &str, new: &str, count: Option<i64>) -> Result<String, Error> {
    let most = count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let n = text.matches(old).take(most).count();
    let grown = new.len().saturating_sub(old.len()).saturating_mul(n);
    check_bytes(text.len().saturating_add(grown))?;
    Ok(text.replacen(old, new, most))
}

fn split(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let [wanted, most] = bind(name, args, ["sep", "maxsplit"])?;
    let most = integer(name, most.as_ref())?.unwrap_or(-1);
    let parts = usize::try_from(most).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut split: Vec<&str> = match wanted.filter(|v| !v.is_none()) {
        None => return words(text, name, parts),
        Some(wanted) => {
            let wanted = separator(name, Some(&wanted))?;
            match name {
                "split" => return listed(text.splitn(parts, &*wanted)),
                _ => text.rsplitn(parts, &*wanted).take(MAX_ITEMS + 1).collect(),
            }
        }
    };
    split.reverse();
    listed(split.into_iter())
}

/// Splits at runs of white space, without empty words at the ends. When `parts` is reached, the remainder keeps the white space at
/// its far end.
fn words(text: &str, name: &str, parts: usize) -> Result<Value, Error> {
    let mut found = Vec::new();
    if name == "split" {
        let mut rest = text.trim_start_matches(is_space);
        while !rest.is_empty() && found.len() <= MAX_ITEMS {
            let cut = rest.find(is_space).filter(|_| found.len() + 1 < parts).unwrap_or(rest.len());
            found.push(&rest[..cut]);
            rest = rest[cut..].trim_start_matches(is_space);
        }
        return listed(found.into_iter());
    }
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() && found.len() <= MAX_ITEMS {
        let words = rest.trim_end_matches(|c| !is_space(c)).len();
        let cut = if found.len() + 1 < parts { words } else { 0 };
        found.push(&rest[cut..]);
        rest = rest[..cut].trim_end_matches(is_space);
    }
    found.reverse();
    listed(found.into_iter())
}

/// The lines of a text as Python's `splitlines` finds them: the range of each, and where it ends including the line break.
pub fn lines(text: &str) -> Vec<(std::ops::Range<usize>, usize)> {
    let (mut found, mut start) = (Vec::new(), 0);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        found.push((start..at, end));
        start = end;
        if found.len() > MAX_ITEMS {
            return found;
        }
    }
    if start < text.len() {
        found.push((start..text.len(), text.len()));
    }
    found
}
