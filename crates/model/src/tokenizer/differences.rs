//! Describes how a rebuilt tokenizer differs from the file it was made from, for warnings.

use serde_json::Value;
use tokenizers::{Encoding, PostProcessor, PostProcessorWrapper, Tokenizer};

use super::{
    class::Class,
    rebuild::Given,
    sentencepiece_model::{SentencePieceModel, UNIGRAM},
    side_files::SideFiles,
    vocabulary::Serialized,
};

/// The parts of `tokenizer.json` that are not used.
pub fn from_serialized(class: Class, given: Given<'_>, json: &Serialized, made: &Tokenizer) -> Vec<String> {
    let mut differences = model_options(class, given, json);
    if value(&json.normalizer) != value(&made.get_normalizer()) {
        differences.push("normalizer".to_owned());
    }
    if value(&json.pre_tokenizer) != value(&made.get_pre_tokenizer()) {
        differences.push("pre_tokenizer".to_owned());
    }
    if ends(json.post_processor.as_ref()) != ends(made.get_post_processor()) {
        differences.push("post_processor".to_owned());
    }
    let added = made.get_added_vocabulary().get_vocab();
    let lost = json.added_tokens().into_values().filter(|token| !added.contains_key(&token.content));
    let lost: Vec<String> = lost.map(|token| format!("{:?}", token.content)).take(8).collect();
    if !lost.is_empty() {
        differences.push(format!("added_tokens ({} among others are no longer added tokens)", lost.join(", ")));
    }
    differences
}

/// What SentencePiece itself would do differently.
pub fn from_sentencepiece(class: Class, model: &SentencePieceModel, made: &Tokenizer) -> Vec<String> {
    let rule = model.normalizer();
    let cut = value(&made.get_pre_tokenizer()).to_string();
    let prefixed = cut.contains("\"first\"") || cut.contains("\"always\"");
    let mut differences = Vec::new();
    if rule.add_dummy_prefix() != prefixed {
        differences.push(format!(
            "add_dummy_prefix (it is {}, and a space is{} prepended)",
            !prefixed,
            if prefixed { "" } else { " not" }
        ));
    }
    if rule.remove_extra_whitespaces() {
        differences.push("remove_extra_whitespaces (runs of spaces are kept)".to_owned());
    }
    if class != Class::Backend && !rule.precompiled_charsmap().is_empty() {
        differences.push("precompiled_charsmap (characters are not replaced)".to_owned());
    }
    if class != Class::Backend && model.trainer().model_type() == UNIGRAM {
        differences.push(
            "model_type (pieces are merged in the order of their ids, not chosen by their probabilities)".to_owned(),
        );
    }
    differences
}

/// Options of the original BERT tokenizer that transformers 5 no longer reads.
pub fn unread_options(class: Class, files: &SideFiles) -> Vec<String> {
    let said = |key: &str| files.option(key).filter(|value| !value.is_null());
    let mut unread = Vec::new();
    if class == Class::Bert && said("do_basic_tokenize") == Some(&Value::Bool(false)) {
        unread.push("do_basic_tokenize".to_owned());
    }
    if class == Class::Bert && said("never_split").is_some() {
        unread.push("never_split".to_owned());
    }
    unread
}

/// Options of the model that the class sets differently.
fn model_options(class: Class, given: Given<'_>, json: &Serialized) -> Vec<String> {
    let option = |key: &str| json.model.get(key).unwrap_or(&Value::Null);
    let kind = option("type").as_str();
    let own = if class.word_pieces() { "WordPiece" } else { "BPE" };
    if kind.is_some_and(|kind| kind != own) {
        return vec![format!("model ({} read as {own})", kind.unwrap_or_default())];
    }
    let on = |key: &str| option(key).as_bool().unwrap_or(false);
    let said = |key: &str| !option(key).is_null() && option(key).as_str() != Some("");
    let changed: &[(&str, bool)] = if class.word_pieces() {
        let longest = option("max_input_chars_per_word").as_u64().is_some_and(|n| n != 100);
        let prefix = option("continuing_subword_prefix").as_str().is_some_and(|p| p != "##");
        let unknown = given.role("unk_token").as_deref() != option("unk_token").as_str();
        &[("unk_token", unknown), ("max_input_chars_per_word", longest), ("continuing_subword_prefix", prefix)]
    } else {
        &[
            ("byte_fallback", on("byte_fallback") != class.pieces()),
            ("ignore_merges", on("ignore_merges")),
            ("dropout", said("dropout")),
            ("continuing_subword_prefix", said("continuing_subword_prefix")),
            ("end_of_word_suffix", said("end_of_word_suffix")),
        ]
    };
    changed.iter().filter(|(_, changed)| *changed).map(|(key, _)| format!("model.{key}")).collect()
}

/// A part as JSON, without what does not affect tokens.
fn value(part: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(part).unwrap_or_default();
    drop_offsets(&mut value);
    value
}

fn drop_offsets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("trim_offsets");
            map.values_mut().for_each(drop_offsets);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_offsets),
        _ => {}
    }
}

/// The ids that are added around a text.
fn ends(processor: Option<&PostProcessorWrapper>) -> Vec<u32> {
    let made = processor.map(|p| p.process(Encoding::default(), None, true));
    made.and_then(Result::ok).map(|e| e.get_ids().to_vec()).unwrap_or_default()
}
