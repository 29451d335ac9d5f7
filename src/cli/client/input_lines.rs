//! Inputs of a bulk run, read line by line and gathered into batches.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::failure::{Failure, Outcome};

/// Maximum bytes of a line.
const MAX_LINE: u64 = 16 << 20;
/// Bytes of JSON after which a batch is full.
const BATCH_BYTES: usize = 4 << 20;

/// What the lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LineFormat {
    /// Each line is a text.
    Text,
    /// Each line is JSON: an object with `text`, `token_ids` or `messages`, a string, or an array of token ids.
    Jsonl,
}

/// An input and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Number of the line, from 1.
    pub(super) number: u64,
    /// The item of a run.
    pub(super) item: Map<String, Value>,
}

/// The inputs of a file or of standard input. Empty lines are left out.
pub(super) struct InputLines {
    reader: Box<dyn BufRead>,
    name: String,
    format: Option<LineFormat>,
    number: u64,
}

impl InputLines {
    /// Opens a file, or standard input for `-`. Without a format, the file's extension decides, or else the first line.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(super) fn open(path: &Path, format: Option<LineFormat>) -> Outcome<Self> {
        let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::new(File::open(path).map_err(|e| Failure::file(path, &e))?))
        };
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        let by_extension = match extension.as_str() {
            "jsonl" | "ndjson" => Some(LineFormat::Jsonl),
            "txt" => Some(LineFormat::Text),
            _ => None,
        };
        let name = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
        Ok(Self { reader, name, format: format.or(by_extension), number: 0 })
    }

    /// Number of inputs of a file, to show progress; `None` for what can be read only once.
    pub(super) fn count(path: &Path) -> Option<u64> {
        if !path.metadata().ok()?.is_file() {
            return None;
        }
        let reader = BufReader::new(File::open(path).ok()?);
        let mut n = 0;
        for line in reader.split(b'\n') {
            n += u64::from(!line.ok()?.trim_ascii().is_empty());
        }
        Some(n)
    }

    fn wrong(&self, what: &dyn std::fmt::Display) -> Failure {
        Failure::Usage(format!("{}, line {}: {what}", self.name, self.number))
    }

    fn read(&mut self) -> Outcome<Option<Line>> {
        loop {
            let mut bytes = Vec::new();
            self.number += 1;
            let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
            if read.map_err(|e| self.wrong(&e))? == 0 {
                return Ok(None);
            }
            if bytes.len() as u64 == MAX_LINE && !bytes.ends_with(b"\n") {
                return Err(self.wrong(&"the line is longer than 16 MiB"));
            }
            let text = String::from_utf8(bytes).map_err(|_| self.wrong(&"not UTF-8"))?;
            let text = text.trim_end_matches(['\n', '\r']);
            // a mark that some editors write at the start of a file
            let text = if self.number == 1 { text.trim_start_matches('\u{feff}') } else { text };
            if text.trim().is_empty() {
                continue;
            }
            let sniffed = if text.starts_with('{') && serde_json::from_str::<Value>(text).is_ok_and(|v| v.is_object()) {
                LineFormat::Jsonl
            } else {
                LineFormat::Text
            };
            let item = match *self.format.get_or_insert(sniffed) {
                LineFormat::Text => Map::from_iter([("text".to_owned(), json!(text))]),
                LineFormat::Jsonl => item_of(text).map_err(|e| self.wrong(&e))?,
            };
            return Ok(Some(Line { number: self.number, item }));
        }
    }
}

/// The item of a line of JSON.
fn item_of(text: &str) -> Result<Map<String, Value>, String> {
    let field = |name: &str, value| Map::from_iter([(name.to_owned(), value)]);
    match serde_json::from_str(text).map_err(|e| format!("not valid JSON: {e}"))? {
        Value::Object(item) => Ok(item),
        text @ Value::String(_) => Ok(field("text", text)),
        Value::Array(ids) if ids.iter().all(Value::is_u64) => Ok(field("token_ids", ids.into())),
        _ => Err("expected an object with text, token_ids or messages, a string, or an array of token ids".to_owned()),
    }
}

impl Iterator for InputLines {
    type Item = Outcome<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Gathers inputs into batches of at most `max_items` and about 4 MiB.
pub(super) struct Batches<I: Iterator<Item = Outcome<Line>>> {
    lines: std::iter::Peekable<I>,
    max_items: usize,
}

impl<I: Iterator<Item = Outcome<Line>>> Batches<I> {
    pub(super) fn new(lines: I, max_items: usize) -> Self {
        Self { lines: lines.peekable(), max_items: max_items.max(1) }
    }
}

impl<I: Iterator<Item = Outcome<Line>>> Iterator for Batches<I> {
    type Item = Outcome<Vec<Line>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut batch, mut n_bytes) = (Vec::new(), 0);
        while batch.len() < self.max_items {
            let size = match self.lines.peek() {
                Some(Ok(line)) => Value::Object(line.item.clone()).to_string().len(),
                // what was read before an error is still posted
                Some(Err(_)) if !batch.is_empty() => break,
                _ => 0,
            };
            if !batch.is_empty() && n_bytes + size > BATCH_BYTES {
                break;
            }
            match self.lines.next() {
                Some(Ok(line)) => batch.push(line),
                Some(Err(failure)) => return Some(Err(failure)),
                None => break,
            }
            n_bytes += size;
        }
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str, format: Option<LineFormat>) -> InputLines {
        InputLines { reader: Box::new(text.as_bytes()), name: "test".to_owned(), format, number: 0 }
    }

    fn items(text: &'static str, format: Option<LineFormat>) -> Vec<Value> {
        lines(text, format).map(|line| line.unwrap().item.into()).collect()
    }

    #[test]
    fn lines_are_texts_or_json() {
        assert_eq!(items("one\r\n\n  \n two", None), [json!({"text": "one"}), json!({"text": " two"})]);
        let objects = "\u{feff}{\"text\": \"a\", \"label\": \"x\"}\n\"b\"\n[1, 2]\n";
        let first = json!({"text": "a", "label": "x"});
        assert_eq!(items(objects, None), [first, json!({"text": "b"}), json!({"token_ids": [1, 2]})]);
        // a text may begin with a brace
        assert_eq!(items("{not json\n{}", None), [json!({"text": "{not json"}), json!({"text": "{}"})]);
        assert_eq!(items("{}", Some(LineFormat::Text)), [json!({"text": "{}"})]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let failures: Vec<String> =
            lines("{\"text\": \"a\"}\n\n{oops\n3\n", None).filter_map(Result::err).map(|f| f.to_string()).collect();
        assert!(failures[0].starts_with("test, line 3: not valid JSON"), "{failures:?}");
        assert!(failures[1].starts_with("test, line 4: expected an object"), "{failures:?}");
        let bytes = InputLines { reader: Box::new(&b"\xff\n"[..]), name: "test".to_owned(), format: None, number: 0 };
        assert_eq!(bytes.map(|line| line.unwrap_err().code()).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        let line =
            |number: u64, text: &str| Ok(Line { number, item: Map::from_iter([("text".to_owned(), json!(text))]) });
        let sizes = |lines: Vec<Outcome<Line>>, max| -> Vec<usize> {
            Batches::new(lines.into_iter(), max).map(|b| b.map_or(0, |b| b.len())).collect()
        };
        assert_eq!(sizes((0..7).map(|i| line(i, "x")).collect(), 3), [3, 3, 1]);
        let large = "x".repeat(3 << 20);
        assert_eq!(sizes((0..3).map(|i| line(i, &large)).collect(), 3), [1, 1, 1]);
        // what came before a bad line is not lost
        let bad = || Err(Failure::Usage(String::new()));
        assert_eq!(sizes(vec![line(1, "x"), line(2, "x"), bad(), line(4, "x")], 10), [2, 0, 1]);
        assert_eq!(sizes(Vec::new(), 3), [0; 0]);
    }
}
