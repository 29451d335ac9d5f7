//! Pads a text to a width, as Python does.

use minijinja::Error;

use super::python::check_bytes;

/// Pads `text` to `width` characters as the method `how` does. When padding cannot be even, Python's `center` puts the extra character
/// on the left if the width is odd.
pub fn pad(text: &str, how: &str, width: i64, fill: char) -> Result<String, Error> {
    let n = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(n);
    check_bytes(missing.saturating_mul(fill.len_utf8()).saturating_add(text.len()))?;
    let left = match how {
        "ljust" => 0,
        "rjust" => missing,
        _ => missing / 2 + (missing & (n + missing) & 1),
    };
    let fill = |n| std::iter::repeat_n(fill, n);
    Ok(fill(left).chain(text.chars()).chain(fill(missing - left)).collect())
}

/// Centres a text as `'{:^n}'` does: an extra character goes to the right.
pub fn middle(text: &str, width: i64, fill: char) -> Result<String, Error> {
    let n = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let missing = width.saturating_sub(n).max(0);
    pad(&pad(text, "rjust", n.saturating_add(missing / 2), fill)?, "ljust", width, fill)
}
