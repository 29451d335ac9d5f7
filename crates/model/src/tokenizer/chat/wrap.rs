//! Jinja's filters for the layout of text: `indent`, `truncate`, `wordwrap`, `wordcount`.

use minijinja::{
    Error, Value,
    value::{Rest, ValueOrKwargs},
};

use super::{
    characters::is_space,
    python::{bind, check_bytes, error, integer, text, truth},
    strings::lines,
};

/// The number of words: runs of letters, digits and underscores.
pub fn words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

/// Indents all lines, except the first one and blank ones, unless told otherwise.
///
/// # Errors
/// When the result would be too large.
pub fn indent(args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let [value, width, first, blank] = bind("indent", &args.into_values(), ["<value>", "width", "first", "blank"])?;
    let value = text(&value.unwrap_or_default())? + "\n";
    let (first, blank) = (truth(first.as_ref(), false), truth(blank.as_ref(), false));
    let by = match width.as_ref().and_then(Value::as_str) {
        Some(by) => by.to_owned(),
        None => {
            let width = integer("indent", width.as_ref())?.unwrap_or(4);
            let width = usize::try_from(width).unwrap_or(0);
            check_bytes(width)?;
            " ".repeat(width)
        }
    };
    let mut out = String::new();
    for (i, (line, _)) in lines(&value).into_iter().enumerate() {
        check_bytes(out.len() + by.len() + line.len())?;
        if i > 0 {
            out.push('\n');
        }
        if (i > 0 && (blank || !line.is_empty())) || (i == 0 && first) {
            out.push_str(&by);
        }
        out.push_str(&value[line]);
    }
    Ok(out)
}

/// Truncates a text to a length, between words unless told otherwise, and appends `...`.
///
/// # Errors
/// For a length shorter than that of the appended text.
pub fn truncate(args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let names = ["<value>", "length", "killwords", "end", "leeway"];
    let [value, length, kill, end, leeway] = bind("truncate", &args.into_values(), names)?;
    let value = text(&value.unwrap_or_default())?;
    let size = |v: &Option<Value>, default: usize| {
        let given = integer("truncate", v.as_ref())?;
        given.map_or(Ok(default), |n| usize::try_from(n).map_err(|_| error("truncate takes sizes of at least 0")))
    };
    let (length, leeway) = (size(&length, 255)?, size(&leeway, 5)?);
    let end = end.map_or(Ok("...".to_owned()), |e| text(&e))?;
    let kept = length.checked_sub(end.chars().count());
    let kept = kept.ok_or_else(|| error("truncate takes a length of at least that of its end"))?;
    if value.chars().count() <= length.saturating_add(leeway) {
        return Ok(value);
    }
    let mut cut: String = value.chars().take(kept).collect();
    if !truth(kill.as_ref(), false)
        && let Some((words, _)) = cut.rsplit_once(' ')
    {
        cut = words.to_owned();
    }
    Ok(cut + &end)
}

/// Breaks lines between words, so that no line is longer than a width.
///
/// # Errors
/// When the result would be too large, or the width is not positive.
pub fn word_wrap(args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let names = ["<value>", "width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [value, width, long, between, hyphens] = bind("wordwrap", &args.into_values(), names)?;
    let width = integer("wordwrap", width.as_ref())?.unwrap_or(79);
    let width =
        usize::try_from(width).ok().filter(|w| *w > 0).ok_or_else(|| error("wordwrap takes a positive width"))?;
    let between = between.filter(|b| !b.is_none()).map_or(Ok("\n".to_owned()), |b| text(&b))?;
    let value = text(&value.unwrap_or_default())?;
    let (long, hyphens) = (truth(long.as_ref(), true), truth(hyphens.as_ref(), true));
    let mut out = String::new();
    for (i, (line, _)) in lines(&value).into_iter().enumerate() {
        let wrapped = wrap_line(&value[line], width, long, hyphens);
        check_bytes(out.len() + wrapped.iter().map(|l| l.len() + between.len()).sum::<usize>())?;
        if i > 0 {
            out.push_str(&between);
        }
        out.push_str(&wrapped.join(&between));
    }
    Ok(out)
}

/// Splits a line into words and the white space between them; a word may end after a hyphen between letters.
fn chunks(line: &str, hyphens: bool) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    let chars: Vec<(usize, char)> = line.char_indices().collect();
    for i in 1..chars.len() {
        let ((_, before), (at, c)) = (chars[i - 1], chars[i]);
        let letters = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(|(_, c)| c.is_alphabetic());
        let hyphen = hyphens
            && before == '-'
            && letters(i.checked_sub(2))
            && letters(i.checked_sub(3))
            && letters(Some(i))
            && letters(Some(i + 1));
        if is_space(before) != is_space(c) || hyphen {
            found.push(&line[start..at]);
            start = at;
        }
    }
    if start < line.len() {
        found.push(&line[start..]);
    }
    found
}

/// As Python's `textwrap` without expanding tabs: white space is kept, except at the end of a line, and at the start of every line
/// but the first.
fn wrap_line(line: &str, width: usize, long: bool, hyphens: bool) -> Vec<String> {
    let mut left: Vec<&str> = chunks(line, hyphens);
    left.reverse();
    let size = |s: &str| s.chars().count();
    let is_blank = |s: &str| s.chars().all(is_space);
    let mut out: Vec<String> = Vec::new();
    while let Some(next) = left.last() {
        if !out.is_empty() && is_blank(next) {
            left.pop();
            continue;
        }
        let (mut line, mut used) = (Vec::new(), 0);
        while let Some(next) = left.last().filter(|next| used + size(next) <= width) {
            used += size(next);
            line.push(*next);
            left.pop();
        }
        if let Some(next) = left.last_mut().filter(|next| size(next) > width) {
            if long {
                let fits = next.char_indices().nth((width - used).max(1)).map_or(next.len(), |(at, _)| at);
                let (head, tail) = next.split_at(fits);
                if used < width || line.is_empty() {
                    line.push(head);
                    *next = tail;
                }
            } else if line.is_empty() {
                line.push(*next);
                left.pop();
            }
        }
        if line.last().is_some_and(|last| is_blank(last)) {
            line.pop();
        }
        if !line.is_empty() {
            out.push(line.concat());
        }
    }
    out
}
