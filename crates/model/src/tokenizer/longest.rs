//! Bounds how much text a single token can cover, and so how long a text with a given number of tokens can be. There is no bound if
//! any part of the tokenizer can map a text of any length to one token, or to none.

use serde_json::Value;
use tokenizers::{
    ModelWrapper, NormalizedString, Normalizer, Tokenizer, models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel,
};

/// Largest number of bytes of a character in UTF-8.
const CHARACTER: usize = 4;

/// Largest number of bytes of a text that one token can cover. `None` if there is no bound: white space is dropped, a word of any
/// length becomes one unknown token, or a normaliser can shorten text by more than a constant factor.
pub fn bytes_per_token(tokenizer: &Tokenizer) -> Option<usize> {
    let shrinks = match tokenizer.get_normalizer() {
        Some(normalizer) => shrinks(&serde_json::to_value(normalizer).ok()?)?,
        None => 1,
    };
    let (kept, cut_in_bytes) = match tokenizer.get_pre_tokenizer() {
        Some(cut) => {
            let cut = serde_json::to_value(cut).ok()?;
            (keeps(&cut), steps(&cut, "pretokenizers").iter().any(|step| kind(step) == "ByteLevel"))
        }
        None => (true, false),
    };
    if !kept {
        return None;
    }
    let normalized_to_bytes = || {
        let json = tokenizer.get_normalizer().and_then(|n| serde_json::to_value(n).ok()).unwrap_or_default();
        steps(&json, "normalizers").last().is_some_and(|step| kind(step) == "ByteLevel")
    };
    let byte_level = cut_in_bytes || normalized_to_bytes();
    let unknown = match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) => unknown(bpe, tokenizer, byte_level)?,
        ModelWrapper::Unigram(model) if model.byte_fallback() && has_all_bytes(tokenizer) => 1,
        // An unknown word is one token, whatever its length.
        ModelWrapper::Unigram(_) | ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => return None,
    };
    // Each character of a byte-level token is one byte of the text.
    let own = |token: &String| if byte_level { token.chars().count() } else { token.len() };
    let longest = tokenizer.get_vocab(false).keys().map(own).max().unwrap_or(0).max(1);
    let longest = longest.checked_mul(unknown)?;
    let mut added = 0;
    for token in tokenizer.get_added_tokens_decoder().values() {
        if token.lstrip || token.rstrip {
            return None;
        }
        let mut normalized = NormalizedString::from(token.content.as_str());
        if let Some(normalizer) = tokenizer.get_normalizer().filter(|_| token.normalized) {
            normalizer.normalize(&mut normalized).ok()?;
        }
        added = added.max(normalized.get().len()).max(token.content.len());
    }
    longest.max(added).checked_mul(shrinks)
}

/// How many times longer the covered text can be than the token's own text: once if every byte has a token, [`CHARACTER`] times if
/// each character without a token becomes an unknown token.
fn unknown(bpe: &BPE, tokenizer: &Tokenizer, byte_level: bool) -> Option<usize> {
    let empty = |affix: &Option<String>| affix.as_ref().is_none_or(String::is_empty);
    if !empty(&bpe.continuing_subword_prefix) || !empty(&bpe.end_of_word_suffix) {
        return None;
    }
    let model = |token: &str| tokenizers::Model::token_to_id(bpe, token).is_some();
    let alphabet = || ByteLevel::alphabet().iter().all(|c| model(c.encode_utf8(&mut [0; CHARACTER])));
    if (byte_level && alphabet()) || (bpe.byte_fallback && has_all_bytes(tokenizer)) {
        return Some(1);
    }
    // Without an unknown token, characters without a token are dropped; if unknown tokens are fused, any number becomes one.
    (bpe.unk_token.as_deref().is_some_and(model) && !bpe.fuse_unk).then_some(CHARACTER)
}

/// Whether the model has a token for each byte: `<0x00>` to `<0xFF>`.
fn has_all_bytes(tokenizer: &Tokenizer) -> bool {
    let model = tokenizer.get_model();
    (0..=u8::MAX).all(|byte| tokenizers::Model::token_to_id(model, &format!("<0x{byte:02X}>")).is_some())
}

/// The factor by which a normaliser can shorten a text, in bytes.
fn shrinks(normalizer: &Value) -> Option<usize> {
    let factor = |step: &Value| match kind(step) {
        "Prepend" | "ByteLevel" => Some(1),
        // At most 3.5 and 3, at U+0390 and the Kelvin sign; in the compatibility forms 4, at digits.
        "NFC" | "NFD" => Some(4),
        "NFKC" | "NFKD" => Some(5),
        // The Kelvin sign.
        "Lowercase" => Some(3),
        "Replace" => {
            let (pattern, content) = (step["pattern"]["String"].as_str()?, step["content"].as_str()?);
            if pattern.is_empty() {
                return Some(1);
            }
            (!content.is_empty()).then(|| pattern.len().div_ceil(content.len()))
        }
        _ => None,
    };
    steps(normalizer, "normalizers").into_iter().try_fold(1_usize, |all, step| all.checked_mul(factor(step)?))
}

/// Whether a pre-tokeniser keeps every character of a text.
fn keeps(cut: &Value) -> bool {
    steps(cut, "pretokenizers").into_iter().all(|step| match kind(step) {
        "ByteLevel" | "Metaspace" | "Digits" | "UnicodeScripts" | "FixedLength" => true,
        "Split" | "Punctuation" => step["behavior"].as_str().is_some_and(|behavior| behavior != "Removed"),
        _ => false,
    })
}

/// The type of a step of a tokenizer.
pub fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

/// The steps of a part of a tokenizer, with sequences flattened; `list` is the key of a sequence's steps.
pub fn steps<'v>(part: &'v Value, list: &str) -> Vec<&'v Value> {
    let (mut flat, mut rest) = (Vec::new(), vec![part]);
    while let Some(step) = rest.pop() {
        match step[list].as_array() {
            Some(inner) => rest.extend(inner.iter().rev()),
            None => flat.push(step),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(json: &Value) -> Option<usize> {
        bytes_per_token(&Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap())
    }

    /// Merges of characters, with a token for each that is missing.
    fn bpe(normalizer: &Value, pre_tokenizer: &Value, fuse_unk: bool, added: &Value) -> Value {
        serde_json::json!({
            "version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
            "decoder": null, "truncation": null, "padding": null, "added_tokens": added,
            "model": {
                "type": "BPE", "unk_token": "?", "fuse_unk": fuse_unk, "byte_fallback": false,
                "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, "abab": 4}, "merges": ["a b", "ab ab"],
            },
        })
    }

    fn replace(pattern: &Value, content: &str) -> Value {
        serde_json::json!({"type": "Replace", "pattern": pattern, "content": content})
    }

    #[test]
    fn a_token_stands_for_its_own_text_or_a_character() {
        let none = Value::Null;
        let plain = |normalizer: &Value| bound(&bpe(normalizer, &none, false, &serde_json::json!([])));
        // Four characters of a token, each of which may be unknown and of four bytes.
        assert_eq!(plain(&none), Some(16));
        let of = |text: &str| serde_json::json!({ "String": text });
        assert_eq!(plain(&replace(&of("abcde"), "a")), Some(80));
        assert_eq!(plain(&replace(&of(" "), "▁")), Some(16));
        let both = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, replace(&of("ab"), "a")]});
        assert_eq!(plain(&both), Some(128));
    }

    #[test]
    fn there_is_no_bound_where_text_can_vanish() {
        let (none, list) = (Value::Null, serde_json::json!([]));
        let plain = |normalizer: &Value| bound(&bpe(normalizer, &none, false, &list));
        assert_eq!(plain(&replace(&serde_json::json!({"String": "a"}), "")), None);
        assert_eq!(plain(&replace(&serde_json::json!({"Regex": " +"}), " ")), None);
        assert_eq!(plain(&serde_json::json!({"type": "Strip", "strip_left": true, "strip_right": true})), None);
        assert_eq!(plain(&serde_json::json!({"type": "StripAccents"})), None);
        assert_eq!(plain(&serde_json::json!({"type": "Nmt"})), None);
        assert_eq!(bound(&bpe(&none, &serde_json::json!({"type": "WhitespaceSplit"}), false, &list)), None);
        let removed = serde_json::json!({
            "type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": false
        });
        assert_eq!(bound(&bpe(&none, &removed, false, &list)), None);
        assert_eq!(bound(&bpe(&none, &none, true, &list)), None, "unknown characters are fused");
        let strips = serde_json::json!([{
            "id": 5, "content": "<m>", "single_word": false, "lstrip": true, "rstrip": false, "normalized": false,
            "special": true
        }]);
        assert_eq!(bound(&bpe(&none, &none, false, &strips)), None, "any number of spaces belong to <m>");
    }

    #[test]
    fn an_added_token_counts_as_it_is_written_and_as_it_is_normalised() {
        let token = |content: &str| {
            serde_json::json!([{
                "id": 5, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": true, "special": false
            }])
        };
        let doubled = replace(&serde_json::json!({"String": "x"}), "xx");
        assert_eq!(bound(&bpe(&doubled, &Value::Null, false, &token(&"x".repeat(20)))), Some(40));
        assert_eq!(bound(&bpe(&Value::Null, &Value::Null, false, &token(&"x".repeat(20)))), Some(20));
    }
}
