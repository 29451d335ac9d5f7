//! Python's two ways to format: `'%d' % n` and `'{:d}'.format(n)`.

use std::{iter::Peekable, str::Chars};

use minijinja::{
    Error, Value,
    value::{Kwargs, ValueKind, from_args},
};

use super::{
    numbers::{Number, Spec},
    padding::{middle, pad},
    python::{check_bytes, error, integer, quoted, repr, text, type_of},
};

/// Largest depth of fields within the specification of a field.
const MAX_NESTED: usize = 2;

/// Python's `format % values`: a tuple has values in order, a mapping has values by name, and anything else is a single value.
///
/// # Errors
/// For a format that Python refuses, values that do not match it, and a result that is too large.
pub fn percent(format: &str, values: &Value) -> Result<String, Error> {
    let listed: Vec<Value> = match values.is_tuple() {
        true => values.try_iter()?.collect(),
        false => vec![values.clone()],
    };
    let mut arguments = Percent { values, listed: listed.into_iter(), used: 0, named: false };
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        check_bytes(out.len())?;
        match c {
            '%' if rest.next_if_eq(&'%').is_some() => out.push('%'),
            '%' => out.push_str(&arguments.field(&mut rest)?),
            c => out.push(c),
        }
    }
    let single = !values.is_tuple();
    let may_be_left =
        arguments.named || (single && matches!(values.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable));
    if arguments.listed.next().is_some() && !(may_be_left && arguments.used == 0) {
        return Err(error("not all arguments were used by the format"));
    }
    check_bytes(out.len())?;
    Ok(out)
}

struct Percent<'v> {
    values: &'v Value,
    listed: std::vec::IntoIter<Value>,
    used: usize,
    named: bool,
}

impl Percent<'_> {
    fn next(&mut self) -> Result<Value, Error> {
        self.used += 1;
        self.listed.next().ok_or_else(|| error("there are not enough arguments for the format"))
    }

    fn field(&mut self, rest: &mut Peekable<Chars<'_>>) -> Result<String, Error> {
        let mut named = None;
        if rest.next_if_eq(&'(').is_some() {
            let name: String = std::iter::from_fn(|| rest.next_if(|c| *c != ')')).collect();
            rest.next().ok_or_else(|| error("a name in the format is not closed"))?;
            if self.values.kind() != ValueKind::Map {
                return Err(error("a format with names takes a mapping"));
            }
            self.named = true;
            let value = self.values.get_item(&Value::from(&*name)).ok().filter(|v| !v.is_undefined());
            named = Some(value.ok_or_else(|| error(format!("the format names `{name}`, which does not exist")))?);
        }
        let flags: String = std::iter::from_fn(|| rest.next_if(|c| "-+ #0".contains(*c))).collect();
        let has = |flag| flags.contains(flag);
        let mut spec = Spec { alternate: has('#'), zero: has('0'), ..Spec::default() };
        spec.sign = if has('+') {
            '+'
        } else if has(' ') {
            ' '
        } else {
            '-'
        };
        let mut left = has('-');
        if let Some(width) = self.size(rest)? {
            left |= width < 0;
            spec.width = width.saturating_abs();
        }
        if rest.next_if_eq(&'.').is_some() {
            spec.precision = Some(usize::try_from(self.size(rest)?.unwrap_or(0)).unwrap_or(0));
        }
        while rest.next_if(|c| "hlL".contains(*c)).is_some() {}
        let kind = rest.next().ok_or_else(|| error("the format ends within a field"))?;
        let value = match named {
            Some(value) => value,
            None => self.next()?,
        };
        convert(&spec, kind, left, &value)
    }

    /// A width or a precision: digits, or `*` for an argument.
    fn size(&mut self, rest: &mut Peekable<Chars<'_>>) -> Result<Option<i64>, Error> {
        if rest.next_if_eq(&'*').is_some() {
            return integer("*", Some(&self.next()?));
        }
        digits(rest)
    }
}

fn digits(rest: &mut Peekable<Chars<'_>>) -> Result<Option<i64>, Error> {
    let digits: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect();
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().map(Some).map_err(|_| error("a size in a format is too large"))
}

fn convert(spec: &Spec, kind: char, left: bool, value: &Value) -> Result<String, Error> {
    let shown = match kind {
        's' => text(value)?,
        'r' => repr(value)?,
        'a' => match value.as_str() {
            Some(text) => {
                let mut out = String::new();
                quoted(text, true, &mut out);
                out
            }
            None => repr(value)?,
        },
        'c' => match value.as_str() {
            Some(text) if text.chars().count() == 1 => text.to_owned(),
            Some(_) => return Err(error("%c takes an integer or one character")),
            None => {
                let code = Number::of(value)?.whole().and_then(|n| u32::try_from(n).ok());
                code.and_then(char::from_u32).map(String::from).ok_or_else(|| error("%c takes a character's number"))?
            }
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = Number::of(value)?;
            let number = match kind {
                'd' | 'i' | 'u' => number.truncated()?,
                'o' | 'x' | 'X' if number.whole().is_none() => {
                    return Err(error(format!("%{kind} takes an integer, not {}", type_of(value))));
                }
                _ => number,
            };
            let align = if left {
                '<'
            } else if spec.zero {
                '='
            } else {
                '>'
            };
            let kind = if matches!(kind, 'i' | 'u') { 'd' } else { kind };
            return Spec {
                align: Some(align),
                fill: if align == '=' { '0' } else { ' ' },
                kind,
                percent: true,
                ..*spec
            }
            .write(&number);
        }
        other => return Err(error(format!("a format has no conversion `{other}`"))),
    };
    let shown = match spec.precision.filter(|_| kind != 'c') {
        Some(n) => shown.chars().take(n).collect(),
        None => shown,
    };
    pad(&shown, if left { "ljust" } else { "rjust" }, spec.width, ' ')
}

/// Python's `format.format(…)`.
///
/// # Errors
/// As [`percent`].
pub fn str_format(format: &str, args: &[Value]) -> Result<String, Error> {
    let (positional, named): (&[Value], Kwargs) = from_args(args)?;
    let mut fields = Fields { positional, named, next: 0 };
    fields.expand(format, 0)
}

struct Fields<'a> {
    positional: &'a [Value],
    named: Kwargs,
    next: usize,
}

impl Fields<'_> {
    fn expand(&mut self, format: &str, depth: usize) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if behind.starts_with(brace) && depth == 0 {
                out.push_str(brace);
                rest = &behind[1..];
                continue;
            }
            let end = closing(behind).filter(|_| brace == "{" && depth < MAX_NESTED);
            let end = end.ok_or_else(|| error("a brace of the format is not closed, or has no partner"))?;
            out.push_str(&self.field(&behind[..end], depth)?);
            check_bytes(out.len())?;
            rest = &behind[end + 1..];
        }
        out.push_str(rest);
        check_bytes(out.len())?;
        Ok(out)
    }

    /// One field: `name[!conversion][:spec]`.
    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = name.split_once('!').map_or((name, None), |(name, c)| (name, Some(c)));
        let value = self.lookup(name)?;
        let spec = self.expand(spec, depth + 1)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::from(text(&value)?),
            Some("r" | "a") => Value::from(repr(&value)?),
            Some(other) => return Err(error(format!("a format has no conversion `!{other}`"))),
        };
        formatted(&value, &spec)
    }

    /// The value of a field: `0`, `name`, or nothing for the next one, followed by `.attribute` or `[item]`.
    fn lookup(&mut self, name: &str) -> Result<Value, Error> {
        let (first, mut path) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
        let missing = || error(format!("the format names `{name}`, which does not exist"));
        let mut value = if first.is_empty() || first.bytes().all(|b| b.is_ascii_digit()) {
            let i = first.parse().unwrap_or(self.next);
            self.next += usize::from(first.is_empty());
            self.positional.get(i).cloned().ok_or_else(missing)?
        } else {
            self.named.peek::<Value>(first).map_err(|_| missing())?
        };
        while !path.is_empty() {
            let (key, rest) = match path.strip_prefix('[') {
                Some(inner) => inner.split_once(']').ok_or_else(missing)?,
                None => path[1..].split_at(path[1..].find(['.', '[']).unwrap_or(path.len() - 1)),
            };
            let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
            value = value.get_item(&key).ok().filter(|v| !v.is_undefined()).ok_or_else(missing)?;
            path = rest;
        }
        Ok(value)
    }
}

/// The position of the brace that closes an open one.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    text.char_indices().find_map(|(at, c)| {
        open += i32::from(c == '{') - i32::from(c == '}');
        (open == 0).then_some(at)
    })
}

/// Python's `format(value, spec)`.
fn formatted(value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return text(value);
    }
    let spec = Spec::parse(spec)?;
    match value.kind() {
        ValueKind::String => {
            if !matches!(spec.kind, 's' | '\0') || spec.align == Some('=') || spec.grouping.is_some() {
                return Err(error("the format is not one of strings"));
            }
            let shown = text(value)?;
            let shown: String = shown.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
            let fill = if spec.zero { '0' } else { spec.fill };
            let how = match spec.align.unwrap_or('<') {
                '^' => return middle(&shown, spec.width, fill),
                '>' => "rjust",
                _ => "ljust",
            };
            pad(&shown, how, spec.width, fill)
        }
        ValueKind::Number | ValueKind::Bool => spec.write(&Number::of(value)?),
        _ => Err(error(format!("{} takes no format", type_of(value)))),
    }
}
