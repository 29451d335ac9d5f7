//! Texts of models and servers in a form that a terminal cannot mistake for commands.

use std::fmt::Write;

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether a terminal might act on this character, or show nothing where something is.
const fn is_unsafe(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The text on one line: line breaks, tabs and control characters become visible characters.
pub(super) fn visible(text: &str) -> String {
    shown(text, false)
}

/// A token: as [`visible`], and spaces are shown too.
pub(super) fn visible_token(token: &str) -> String {
    shown(token, true)
}

fn shown(text: &str, with_spaces: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push('↵'),
            '\t' => out.push('⇥'),
            ' ' if with_spaces => out.push('·'),
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('␦')),
            '\u{7f}' => out.push('␡'),
            c if is_unsafe(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Text over several lines: line breaks and tabs stay, other control characters become visible.
pub(super) fn visible_lines(text: &str) -> String {
    let parts = text.split_inclusive(['\n', '\t']);
    parts.fold(String::with_capacity(text.len()), |mut out, part| {
        let end = part.len() - usize::from(part.ends_with(['\n', '\t']));
        out += &visible(&part[..end]);
        out += &part[end..];
        out
    })
}

/// A JSON value on one line, in which every character that is unsafe on a terminal is escaped.
pub(super) fn json_line(value: &Value) -> String {
    escaped_json(&value.to_string())
}

/// Escapes what is unsafe on a terminal in a JSON text. Outside strings JSON has only ASCII, so the meaning stays.
pub(super) fn escaped_json(json: &str) -> String {
    if !json.chars().any(is_unsafe) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // a raw control character of ASCII can only be white space between the parts of the text
        match c {
            '\0'..='\u{1f}' => out.push(' '),
            c if is_unsafe(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// The number of columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// The text, cut to this many columns; an ellipsis says that something is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut out = String::new();
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if wide > left {
            break;
        }
        left -= wide;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let text = "a\u{1b}[2Jb\rc\u{9b}31md\u{202e}e\u{200b}f\u{7f}g\nh\ti\0";
        assert_eq!(visible(text), "a␛[2Jb␍c\\u{9b}31md\\u{202e}e\\u{200b}f␡g↵h⇥i␀");
        assert!((0..0x11_0000).filter_map(char::from_u32).all(|c| !visible(&c.to_string()).chars().any(is_unsafe)));
        assert_eq!(visible_token(" Paris\n"), "·Paris↵");
        assert_eq!(visible_lines("a\tb\n\u{1b}c\n"), "a\tb\n␛c\n");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"a": "x\u{9b}y\u{202e}\u{1b}\u{e0001}", "ü": [1, 2.5]});
        let line = json_line(&value);
        assert!(!line.chars().any(is_unsafe), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&escaped_json(&pretty)).unwrap(), value);
    }

    #[test]
    fn texts_are_cut_by_columns_and_not_by_characters() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), "abc…");
        // a wide character takes two columns, and is not halved
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 0), "");
        for text in ["日本語 text", "e\u{301}e\u{301}e\u{301}", "👩‍👩‍👧 family"] {
            assert!((0..12).all(|width| columns(&cut(text, width)) <= width), "{text}");
        }
    }
}
