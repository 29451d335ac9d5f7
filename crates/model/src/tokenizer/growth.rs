//! Bounds how much a tokenizer can expand a text before it splits it into tokens. The bound follows from the tokenizer's parts, without
//! running them: a malicious `tokenizer.json` may replace a letter by a megabyte, or double a text forty times.
//!
//! Loading refuses a tokenizer that can expand a short text too much ([`check_file`], [`Growth::check`]); before a text is encoded,
//! [`Growth::of_text`] tells whether it is short enough.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{PostProcessor, Tokenizer};

use super::{
    MAX_TEXT_BYTES,
    longest::{kind, steps},
    sentencepiece::MAX_PIECE,
};
use crate::error::LoadError;

/// Largest number of bytes that a text may become. Each takes about twenty bytes of memory.
pub const MAX_NORMALIZED_BYTES: f64 = (8 * MAX_TEXT_BYTES) as f64;
/// Every tokenizer must be able to encode a text of this many bytes.
const SHORT_TEXT: usize = 4096;
/// Largest number of steps of a normaliser, a pre-tokeniser or a decoder.
const MAX_STEPS: usize = 64;
/// Largest number of tokens that are added around a text.
const MAX_AROUND: usize = 64;
/// Largest factor by which a decoder may expand a text.
const MAX_DECODED: f64 = 64.0;

/// The effect of a step on the length of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Multiplies the length by at most this.
    Times(f64),
    /// Adds at most this many bytes to each part of it.
    PerPiece(f64),
    /// Splits it, possibly into single bytes.
    Cuts,
}

/// Bounds on the length of texts.
#[derive(Debug, Clone)]
pub struct Growth {
    steps: Vec<Step>,
    /// Length of the shortest added token, in bytes: a text is split at added tokens first.
    shortest_added: usize,
}

/// The parts of a `tokenizer.json` that the library applies while it reads it. The vocabulary is skipped.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    added_tokens: Value,
}

/// Checks `tokenizer.json` before the tokenizers library reads it, which normalises the added tokens.
///
/// # Errors
/// When the normaliser can expand them, or a short text, too much.
pub fn check_file(bytes: &[u8], path: &Path) -> Result<(), LoadError> {
    // of duplicate keys the last one counts; the library reports malformed files
    let twice = || serde_json::from_slice(bytes).and_then(serde_json::from_value::<Parts>);
    let Ok(Parts { normalizer, added_tokens }) = serde_json::from_slice(bytes).or_else(|_| twice()) else {
        return Ok(());
    };
    let normalizer = steps_of(&normalizer, "normalizers").map_err(|why| refuse(path, "normalizer", &why))?;
    let growth = Growth { steps: normalizer, shortest_added: 1 };
    let contents = added_tokens.as_array().into_iter().flatten().filter_map(|token| token["content"].as_str());
    growth.check_added(contents, path)
}

/// Checks tokens before they are added to `tokenizer`, which normalises them.
///
/// # Errors
/// When its normaliser can expand them too much.
pub fn check_added<'a>(
    tokenizer: &Tokenizer,
    contents: impl Iterator<Item = &'a str>,
    path: &Path,
) -> Result<(), LoadError> {
    let normalizer = tokenizer.get_normalizer().map(serde_json::to_value).transpose();
    let normalizer = normalizer.map_err(|e| LoadError::file(path, e))?.unwrap_or_default();
    let steps = steps_of(&normalizer, "normalizers").map_err(|why| refuse(path, "normalizer", &why))?;
    Growth { steps, shortest_added: 1 }.check_added(contents, path)
}

fn refuse(path: &Path, part: &str, why: &str) -> LoadError {
    LoadError::file(path, format!("`{part}` {why}"))
}

fn steps_of(part: &Value, list: &str) -> Result<Vec<Step>, String> {
    if part.is_null() {
        return Ok(Vec::new());
    }
    let steps = steps(part, list);
    if steps.len() > MAX_STEPS {
        return Err(format!("has {} steps; at most {MAX_STEPS} are understood", steps.len()));
    }
    Ok(steps.into_iter().flat_map(step).collect())
}

/// The effect of a step of a normaliser or pre-tokeniser. Steps of the two kinds that have the same name have the same effect.
fn step(step: &Value) -> Vec<Step> {
    let length = |value: &Value| value.as_str().map_or(0, str::len) as f64;
    match kind(step) {
        "NFC" | "NFD" | "StripAccents" => vec![Step::Times(3.0)],
        // U+FDFA
        "NFKC" | "NFKD" => vec![Step::Times(11.0)],
        "Lowercase" => vec![Step::Times(1.5)],
        "BertNormalizer" | "Bert" => {
            let on = |key: &str| step[key].as_bool();
            let lowercase = on("lowercase").unwrap_or(true);
            let mut times = 1.0;
            // a space on either side of three bytes
            times *= if on("handle_chinese_chars").unwrap_or(true) { 5.0 / 3.0 } else { 1.0 };
            times *= if on("strip_accents").unwrap_or(lowercase) { 3.0 } else { 1.0 };
            times *= if lowercase { 1.5 } else { 1.0 };
            vec![Step::Times(times)]
        }
        "Precompiled" => vec![Step::Times(longest_replacement(step))],
        "Replace" => {
            let content = length(&step["content"]);
            match step["pattern"]["String"].as_str() {
                Some(pattern) if !pattern.is_empty() => vec![Step::Times((content / pattern.len() as f64).max(1.0))],
                // a regular expression may match the empty string, between any two characters and at the end
                _ => vec![Step::Times(1.0 + content), Step::PerPiece(content)],
            }
        }
        "Prepend" => vec![Step::PerPiece(length(&step["prepend"]))],
        // each byte becomes a character of one or two bytes; a space may be prepended
        "ByteLevel" => {
            let space = if step["add_prefix_space"].as_bool().unwrap_or(true) { 1.0 } else { 0.0 };
            vec![Step::PerPiece(space), Step::Times(2.0), Step::Cuts]
        }
        "Metaspace" => {
            let replacement = length(&step["replacement"]).max(1.0);
            let prefix = if step["prepend_scheme"].as_str() == Some("never") { 0.0 } else { replacement };
            vec![Step::Times(replacement), Step::PerPiece(prefix), Step::Cuts]
        }
        "Strip" | "Nmt" => Vec::new(),
        // a step that was serialized without its type
        _ if step["prepend"].is_string() => vec![Step::PerPiece(length(&step["prepend"]))],
        _ => vec![Step::Cuts],
    }
}

/// The length of the longest replacement in a precompiled map; what it replaces has at least one byte. The map is the length of a
/// trie in bytes, the trie, and then texts that end with a zero byte.
fn longest_replacement(step: &Value) -> f64 {
    let map = step["precompiled_charsmap"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let map = map.unwrap_or_default();
    let texts = map
        .split_first_chunk::<4>()
        .and_then(|(n_bytes, rest)| rest.get(usize::try_from(u32::from_le_bytes(*n_bytes)).ok()?..));
    texts.unwrap_or_default().split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0).max(1) as f64
}

impl Growth {
    /// The bounds of `tokenizer`.
    ///
    /// # Errors
    /// When it can expand a short text too much, or is malicious in other ways: too many steps, a template that repeats the text,
    /// many tokens around each text, tokens of thousands of bytes. The error names `path`.
    pub fn check(tokenizer: &Tokenizer, path: &Path) -> Result<Self, LoadError> {
        let json = |part: Option<serde_json::Result<Value>>| part.transpose().map_err(|e| LoadError::file(path, e));
        let normalizer = json(tokenizer.get_normalizer().map(serde_json::to_value))?.unwrap_or_default();
        let cut = json(tokenizer.get_pre_tokenizer().map(serde_json::to_value))?.unwrap_or_default();
        let mut steps = steps_of(&normalizer, "normalizers").map_err(|why| refuse(path, "normalizer", &why))?;
        steps.extend(steps_of(&cut, "pretokenizers").map_err(|why| refuse(path, "pre_tokenizer", &why))?);
        let added = tokenizer.get_added_tokens_decoder();
        let shortest_added = added.values().map(|token| token.content.len()).min().unwrap_or(usize::MAX / 2).max(1);
        let growth = Self { steps, shortest_added };
        growth.check_added(added.values().map(|token| token.content.as_str()), path)?;
        let decoder = json(tokenizer.get_decoder().map(serde_json::to_value))?.unwrap_or_default();
        check_decoder(&decoder).map_err(|why| refuse(path, "decoder", &why))?;
        check_around(tokenizer, path)?;
        if let Some(long) = tokenizer.get_vocab(true).keys().map(String::len).max().filter(|n| *n > MAX_PIECE) {
            return Err(LoadError::file(path, format!("has a token of {long} bytes; at most {MAX_PIECE} are taken")));
        }
        Ok(growth)
    }

    /// An upper bound on the bytes of a text of `n_bytes` before it is split into tokens.
    pub fn of_text(&self, n_bytes: usize) -> f64 {
        let mut bytes = n_bytes as f64;
        // each part has at least one byte, and there is an added token between two parts
        let mut pieces = bytes / (1.0 + self.shortest_added as f64) + 1.0;
        for step in &self.steps {
            match step {
                Step::Times(times) => bytes *= times,
                Step::PerPiece(more) => bytes += more * pieces,
                Step::Cuts => pieces = bytes,
            }
        }
        bytes
    }

    /// Length in bytes of the longest text whose [`Self::of_text`] is small enough.
    pub fn longest_text(&self) -> usize {
        let (mut fits, mut beyond) = (0, MAX_TEXT_BYTES + 1);
        while beyond - fits > 1 {
            let middle = usize::midpoint(fits, beyond);
            if self.of_text(middle) <= MAX_NORMALIZED_BYTES { fits = middle } else { beyond = middle }
        }
        fits
    }

    fn check_added<'a>(&self, contents: impl Iterator<Item = &'a str>, path: &Path) -> Result<(), LoadError> {
        let short = self.of_text(SHORT_TEXT);
        if short > MAX_NORMALIZED_BYTES {
            let why = format!("can make {short:.0} bytes of a text of {SHORT_TEXT}");
            return Err(refuse(path, "normalizer", &why));
        }
        let all: f64 = contents.map(|content| self.of_text(content.len())).sum();
        if all > MAX_NORMALIZED_BYTES {
            return Err(refuse(path, "added_tokens", &format!("may have {all:.0} bytes once they are normalised")));
        }
        Ok(())
    }
}

fn check_decoder(decoder: &Value) -> Result<(), String> {
    let steps = steps(decoder, "decoders");
    if steps.len() > MAX_STEPS {
        return Err(format!("has {} steps; at most {MAX_STEPS} are understood", steps.len()));
    }
    let replaces = steps.into_iter().filter(|step| kind(step) == "Replace").flat_map(step);
    let times = |step: Step| match step {
        Step::Times(times) => times,
        Step::PerPiece(_) | Step::Cuts => 1.0,
    };
    let times: f64 = replaces.map(times).product();
    if times > MAX_DECODED {
        return Err(format!("can make text {times:.0} times longer; at most {MAX_DECODED} times is understood"));
    }
    Ok(())
}

/// Checks the post-processor: it may add a few tokens around a text, and must contain the text once.
fn check_around(tokenizer: &Tokenizer, path: &Path) -> Result<(), LoadError> {
    let Some(processor) = tokenizer.get_post_processor() else { return Ok(()) };
    let n = processor.added_tokens(false);
    if n > MAX_AROUND {
        let why = format!("puts {n} tokens around each text; at most {MAX_AROUND} are understood");
        return Err(refuse(path, "post_processor", &why));
    }
    let json = serde_json::to_value(processor).map_err(|e| LoadError::file(path, e))?;
    let steps = steps(&json, "processors");
    if steps.len() > MAX_STEPS {
        let why = format!("has {} steps; at most {MAX_STEPS} are understood", steps.len());
        return Err(refuse(path, "post_processor", &why));
    }
    for template in steps.iter().filter_map(|step| step["single"].as_array()) {
        if template.iter().filter(|piece| piece.get("Sequence").is_some()).count() > 1 {
            return Err(refuse(path, "post_processor", "repeats the text"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn growth(normalizer: &Value, cut: &Value) -> Growth {
        let mut steps = steps_of(normalizer, "normalizers").unwrap();
        steps.extend(steps_of(cut, "pretokenizers").unwrap());
        Growth { steps, shortest_added: 3 }
    }

    #[test]
    fn what_checkpoints_have_lets_the_longest_text_pass() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let llama = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
        let bert = json!({"type": "BertNormalizer", "lowercase": true});
        let split = json!({"type": "Split", "pattern": {"Regex": "\\s"}, "behavior": "Isolated", "invert": false});
        let bytes = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix});
        let cut = |prefix| json!({"type": "Sequence", "pretokenizers": [split, bytes(prefix)]});
        for (normalizer, cut) in [
            (&llama, &Value::Null),
            (&replace, &Value::Null),
            (&bert, &json!({"type": "BertPreTokenizer"})),
            (&json!({"type": "NFC"}), &cut(false)),
            (&Value::Null, &bytes(true)),
        ] {
            assert_eq!(growth(normalizer, cut).longest_text(), MAX_TEXT_BYTES, "{normalizer} {cut}");
        }
        // every character may be a word with a space before it
        assert!(growth(&json!({"type": "NFC"}), &cut(true)).longest_text() > MAX_TEXT_BYTES / 2);
    }

    #[test]
    fn growth_adds_up_over_the_steps() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let many = json!({"type": "Sequence", "normalizers": vec![double; 40]});
        assert!((growth(&many, &Value::Null).of_text(1) - 2f64.powi(40)).abs() < 1.0);
        let bytes = json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "ByteLevel"}); 40]});
        assert!(growth(&Value::Null, &bytes).of_text(1) > 2f64.powi(40));
        let empty = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "abcd"});
        assert!(growth(&empty, &Value::Null).of_text(10) >= 54.0);
        let map = [&12u32.to_le_bytes()[..], &[0; 12], b"abc\0abcdefgh\0"].concat();
        let map = json!({"type": "Precompiled", "precompiled_charsmap": BASE64_STANDARD.encode(map)});
        assert_eq!(steps_of(&map, "normalizers").unwrap(), [Step::Times(8.0)]);
    }
}
