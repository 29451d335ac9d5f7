//! Where commands write: what standard output is, how wide it is, and whether it takes colours.

use std::io::{self, IsTerminal, Write};

use console::Term;
use serde_json::Value;

use super::{
    failure::Outcome,
    visible::{columns, escaped_json, json_line},
};

/// Columns of a terminal whose width is not known.
const DEFAULT_WIDTH: usize = 80;

/// Standard output.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// JSON was asked for.
    pub(super) json: bool,
    /// Only ids, and no progress.
    pub(super) quiet: bool,
    /// Standard output is a terminal.
    pub(super) is_terminal: bool,
    /// Colours may be used.
    pub(super) colour: bool,
    /// Columns of the terminal; `None` if the output is not one, so that nothing is cut.
    pub(super) width: Option<usize>,
}

/// How a part of the output looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Faint,
    Good,
    Bad,
    Busy,
}

impl Style {
    /// The style of a status.
    pub(super) fn of_status(status: &str) -> Self {
        match status {
            "completed" | "ready" => Self::Good,
            "failed" | "cancelled" => Self::Bad,
            _ => Self::Busy,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Faint => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Busy => "33",
        }
    }
}

impl Output {
    /// Standard output as it is.
    pub(super) fn standard(json: bool, quiet: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let width =
            is_terminal.then(|| Term::stdout().size_checked().map_or(DEFAULT_WIDTH, |(_, columns)| columns.into()));
        let plain = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { json, quiet, is_terminal, colour: is_terminal && !plain("NO_COLOR") && !dumb, width }
    }

    /// Writes text as it is.
    ///
    /// # Errors
    /// [`super::failure::Failure::BrokenPipe`] if nobody reads any more.
    pub(super) fn print(&self, text: &str) -> Outcome {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Writes a line.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(super) fn line(&self, text: &str) -> Outcome {
        self.print(&format!("{text}\n"))
    }

    /// Writes what explains the lines above.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(super) fn legend(&self, text: &str) -> Outcome {
        let lines = text.split('\n').flat_map(|line| wrapped(line, self.width));
        lines.map(|line| self.paint(Style::Faint, &line)).try_for_each(|line| self.line(&line))
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(super) fn json_line(&self, value: &Value) -> Outcome {
        self.line(&json_line(value))
    }

    /// Writes an answer of the server as it came, which is JSON.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(super) fn raw(&self, json: &str) -> Outcome {
        self.line(escaped_json(json).trim_end())
    }

    /// The text with a style, if the output takes colours.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        match style {
            Style::Plain => text.to_owned(),
            _ => self.with_codes(style.code(), text),
        }
    }

    /// The text between these codes of ANSI's `SGR` and a reset, if the output takes colours.
    pub(super) fn with_codes(&self, codes: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{codes}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// A text as lines that fit, broken between words.
fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|width| columns(text) > *width) else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.is_empty() || columns(line) + 1 + columns(word) <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
impl Output {
    /// An output for tests, without colours.
    pub(super) const fn plain(width: Option<usize>) -> Self {
        Self { json: false, quiet: false, is_terminal: width.is_some(), colour: false, width }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", Some(7)), ["one two", "three"]);
        assert_eq!(wrapped("one two three", Some(13)), ["one two three"]);
        assert_eq!(wrapped("a verylongword b", Some(5)), ["a", "verylongword", "b"]);
        assert_eq!(wrapped("one two", None), ["one two"]);
        assert_eq!(wrapped("", Some(5)), [""]);
    }
}
