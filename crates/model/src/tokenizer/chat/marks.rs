//! Finds each message of a chat in its rendering: renders the chat again with marks around the text of every message, and checks that
//! the result without marks is the same text.
//!
//! A template that inspects, omits, repeats or rewrites a message moves or loses its marks. Then the position of that message, or of
//! all, is unknown; a position that is returned is always right.

use std::ops::Range;

use serde_json::Value;

/// Unicode noncharacters, which texts do not use and templates do not trim. A mark is `MARK`, the index of the message, and `START`
/// or `END`.
const MARK: char = '\u{fdd0}';
const START: char = '\u{fdd1}';
const END: char = '\u{fdd2}';

/// The texts of a message: its content, or the text blocks of its content.
pub fn texts(message: &mut Value) -> Vec<&mut String> {
    match message.get_mut("content") {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(blocks)) => blocks
            .iter_mut()
            .filter_map(|block| match block.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The messages with marks around their texts. White space at the ends stays outside the marks, where a template may trim it.
pub fn marked(messages: &[Value]) -> Vec<Value> {
    let mut messages = messages.to_vec();
    for (i, message) in messages.iter_mut().enumerate() {
        let mut said: Vec<&mut String> = texts(message).into_iter().filter(|t| !t.trim().is_empty()).collect();
        if let Some(last) = said.last_mut() {
            last.insert_str(last.trim_end().len(), &format!("{MARK}{i}{END}"));
        }
        if let Some(first) = said.first_mut() {
            first.insert_str(first.len() - first.trim_start().len(), &format!("{MARK}{i}{START}"));
        }
    }
    messages
}

/// The range of characters of each of `n` messages in `rendered`, found from the marks in `marked`, the same rendering with marks.
pub fn spans(marked: &str, rendered: &str, n: usize) -> Vec<Option<Range<usize>>> {
    let mut found: Vec<(Vec<usize>, Vec<usize>)> = vec![(Vec::new(), Vec::new()); n];
    let mut text = String::with_capacity(rendered.len());
    let (mut at, mut rest) = (0, marked);
    while let Some(place) = rest.find(MARK) {
        let Some((i, start, behind)) = read_mark(&rest[place..]).filter(|(i, ..)| *i < n) else { return vec![None; n] };
        text.push_str(&rest[..place]);
        at += rest[..place].chars().count();
        let (starts, ends) = &mut found[i];
        if start {
            starts.push(at)
        } else {
            ends.push(at)
        }
        rest = behind;
    }
    text.push_str(rest);
    if text != rendered {
        return vec![None; n];
    }
    let span = |(starts, ends): (Vec<usize>, Vec<usize>)| match (starts.as_slice(), ends.as_slice()) {
        ([start], [end]) if start < end => Some(*start..*end),
        _ => None,
    };
    found.into_iter().map(span).collect()
}

/// Parses a mark at the start of `text`: the index of the message, whether the message starts there, and the rest after the mark.
fn read_mark(text: &str) -> Option<(usize, bool, &str)> {
    let text = text.strip_prefix(MARK)?;
    let (end, kind) = text.char_indices().find(|(_, c)| !c.is_ascii_digit())?;
    let i = text[..end].parse().ok()?;
    let start = match kind {
        START => true,
        END => false,
        _ => return None,
    };
    Some((i, start, &text[end + kind.len_utf8()..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn located(template: impl Fn(&[Value]) -> String, messages: &Value) -> Vec<Option<String>> {
        let messages = messages.as_array().unwrap();
        let rendered = template(messages);
        spans(&template(&marked(messages)), &rendered, messages.len())
            .into_iter()
            .map(|span| span.map(|s| rendered.chars().skip(s.start).take(s.len()).collect()))
            .collect()
    }

    fn said(message: &Value) -> &str {
        message["content"].as_str().unwrap_or_default()
    }

    fn chat() -> Value {
        json!([{"role": "user", "content": " é hi\n"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "hi"}])
    }

    #[test]
    fn messages_are_found_whether_or_not_the_template_trims_them() {
        let expected = [Some("é hi".to_owned()), None, Some("hi".to_owned())];
        let plain = |m: &[Value]| m.iter().map(|m| format!("<{}>", said(m))).collect::<String>();
        let trimmed = |m: &[Value]| m.iter().map(|m| format!("<{}>", said(m).trim())).collect::<String>();
        assert_eq!(located(plain, &chat()), expected);
        assert_eq!(located(trimmed, &chat()), expected);
    }

    #[test]
    fn what_cannot_be_known_is_not_guessed() {
        let twice = |m: &[Value]| m.iter().map(|m| format!("{0}{0}", said(m))).collect::<String>();
        assert_eq!(located(twice, &chat()), [None, None, None]);
        let last_only = |m: &[Value]| said(&m[2]).to_owned();
        assert_eq!(located(last_only, &chat()), [None, None, Some("hi".to_owned())]);
        let measured = |m: &[Value]| format!("{}:{}", said(&m[0]), said(&m[0]).len());
        assert_eq!(located(measured, &chat()), [None, None, None]);
        let cut = |m: &[Value]| said(&m[0]).chars().skip(2).collect::<String>();
        assert_eq!(located(cut, &chat()), [None, None, None]);
        let forged = json!([{"role": "user", "content": "a\u{fdd0}1\u{fdd1}b"}]);
        assert_eq!(located(|m: &[Value]| said(&m[0]).to_owned(), &forged), [None]);
    }

    #[test]
    fn a_message_of_several_blocks_is_one_span() {
        let blocks = json!([{"role": "user", "content": [{"type": "image"}, {"text": " a "}, {"text": "b"}]}]);
        let template = |m: &[Value]| {
            let blocks = m[0]["content"].as_array().unwrap();
            blocks.iter().map(|b| b["text"].as_str().unwrap_or("#")).collect::<String>()
        };
        assert_eq!(located(template, &blocks), [Some("a b".to_owned())]);
    }
}
