//! Tokenizer folders against AutoTokenizer (`scripts/make_tokenizer_goldens.py`).

use std::{fmt::Write as _, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use residuum::{
    domain::{Code, WarningCode},
    model::TextTokenizer,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::model_support::goldens;

/// More than the size of any vocabulary here.
const D_VOCAB: usize = 2000;

/// The content of a file of a case: another file, a patched copy of one, a text, or JSON.
fn content(value: &Value) -> Vec<u8> {
    let beside = |name: &str| std::fs::read(goldens().join("tokenizers").join(name)).unwrap();
    if let Some(name) = value.as_str().and_then(|s| s.strip_prefix('@')) {
        return beside(name);
    }
    let Some(base) = value.get("base").and_then(Value::as_str) else {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned).into_bytes();
    };
    let mut made: Value = serde_json::from_slice(&beside(base)).unwrap();
    for (pointer, new) in value["set"].as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        made.pointer_mut(parent).unwrap()[key] = new.clone();
    }
    made.to_string().into_bytes()
}

fn folder(files: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files.as_object().unwrap() {
        std::fs::write(folder.path().join(name), content(value)).unwrap();
    }
    folder
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(goldens().join("tokenizers/cases.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn case(name: &str) -> Value {
    cases().into_iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no case {name:?}"))
}

fn load(files: &Value) -> Result<TextTokenizer, String> {
    TextTokenizer::from_folder(folder(files).path(), D_VOCAB).map_err(|e| e.reason().to_owned())
}

fn codes(tokenizer: &TextTokenizer) -> Vec<WarningCode> {
    tokenizer.warnings().iter().map(|w| w.code).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

fn encode(tokenizer: &TextTokenizer, text: &str, prepend_bos: Option<bool>) -> Vec<u32> {
    match tokenizer.encode(text, prepend_bos) {
        Ok(encoded) => encoded.ids,
        Err(problem) => {
            assert_eq!(problem.code, Code::EmptyInput, "{text:?}: {problem:?}");
            Vec::new()
        }
    }
}

/// How a case differs from AutoTokenizer.
fn differences(case: &Value, strings: &[String]) -> String {
    let mut found = String::new();
    let tokenizer = match load(&case["files"]) {
        Ok(tokenizer) => tokenizer,
        Err(e) => return format!("does not load: {e}\n"),
    };
    let (prefix, suffix) = (ids(&case["prefix"]), ids(&case["suffix"]));
    for (text, expected) in strings.iter().zip(case["ids"].as_array().unwrap()) {
        let expected = ids(expected);
        let bare = encode(&tokenizer, text, Some(false));
        if bare != expected {
            writeln!(found, "{text:?}\n     ours {bare:?}\n   theirs {expected:?}").unwrap();
        }
        // AutoTokenizer adds BOS even if the text begins with one.
        let brought = tokenizer.bos_token().is_some_and(|(bos, _)| prefix == [bos] && expected.first() == Some(&bos));
        let whole = [if brought { &[][..] } else { &prefix[..] }, &expected, &suffix].concat();
        let own = encode(&tokenizer, text, None);
        if own != whole {
            writeln!(found, "with special tokens {text:?}\n     ours {own:?}\n   theirs {whole:?}").unwrap();
        }
    }
    for (token, id) in case["special"].as_object().unwrap() {
        let id = u32::try_from(id.as_u64().unwrap()).unwrap();
        if tokenizer.special_mask(&[id]) != [true] || tokenizer.token_strings(&[id]) != [token.as_str()] {
            writeln!(found, "{id} is not the special token {token:?}").unwrap();
        }
    }
    if case["bos"].as_str().is_some_and(|bos| tokenizer.bos_token().map(|(_, own)| own) != Some(bos)) {
        writeln!(found, "BOS is {:?}, theirs {}", tokenizer.bos_token(), case["bos"]).unwrap();
    }
    if case["rebuilt"] == true && !codes(&tokenizer).contains(&WarningCode::TokenizerRebuilt) {
        writeln!(found, "nothing says that tokenizer.json does not count; warnings {:?}", tokenizer.warnings())
            .unwrap();
    }
    found
}

#[test]
fn folders_give_the_tokens_of_autotokenizer() {
    let strings = std::fs::read(goldens().join("tokenizers/strings.json")).unwrap();
    let strings: Vec<String> = serde_json::from_slice(&strings).unwrap();
    let mut wrong = String::new();
    for case in cases().iter().filter(|case| case.get("error").is_none()) {
        let found = differences(case, &strings);
        if !found.is_empty() {
            writeln!(wrong, "# {}\n{found}", case["name"]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn folders_that_autotokenizer_does_not_open_are_refused_or_warned_of() {
    // transformers uses the tokenizer class of the model, which does not read vocab.json; the folder names a class that
    // does.
    let named = load(&case("vocab.json, granite with GPT2Tokenizer")["files"]).unwrap();
    assert_eq!(codes(&named), [WarningCode::TokenizerClassAssumed]);
    let refused = load(&case("vocab.json, bloom")["files"]).unwrap_err();
    assert!(refused.contains("`tokenizer_class` must name the class of vocab.json"), "{refused}");
    let nothing = load(&json!({"config.json": {"model_type": "gpt2"}, "vocab.json": "@vocab.json"})).unwrap_err();
    assert!(
        nothing.contains("is missing, and so are its alternatives: tokenizer.model, vocab.json with merges.txt"),
        "{nothing}"
    );
    let foreign = json!({"tokenizer_class": "T5Tokenizer"});
    let serialized = load(&json!({"tokenizer.json": "@llama.json", "tokenizer_config.json": foreign})).unwrap();
    assert_eq!(codes(&serialized), [WarningCode::TokenizerClassUnknown]);
    let model = load(&json!({"tokenizer.model": "@unigram.model", "tokenizer_config.json": foreign})).unwrap_err();
    assert!(model.contains("T5Tokenizer"), "{model}");
    let damaged = load(&json!({"tokenizer.model": "IQ== 0\n", "config.json": {"model_type": "llama"}})).unwrap_err();
    assert!(damaged.contains("is not a SentencePiece model"), "{damaged}");
    let wrong = json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": "yes"});
    let wrong = load(&json!({"tokenizer.json": "@byte_level.json", "tokenizer_config.json": wrong})).unwrap_err();
    assert!(wrong.contains("`add_prefix_space` is \"yes\", not true or false"), "{wrong}");
}

#[test]
fn unusual_tokens_are_warned_of() {
    let moved = load(&case("another id than declared")["files"]).unwrap();
    assert_eq!(codes(&moved), [WarningCode::AddedTokenMoved]);
    assert!(moved.warnings()[0].detail.contains("declared as token 900; it is token 426"), "{:?}", moved.warnings());
    let files = folder(&case("eos_token, GPT2Tokenizer")["files"]);
    let beyond = TextTokenizer::from_folder(files.path(), 426).unwrap();
    assert_eq!(codes(&beyond), [WarningCode::TokenBeyondVocabulary]);
    let problem = beyond.encode("the<|im_end|>", None).unwrap_err();
    assert_eq!(problem.code, Code::TokenOutOfVocabulary);
    let basic = json!({"do_basic_tokenize": false, "never_split": null});
    let basic = load(
        &json!({"vocab.txt": "@vocab.txt", "config.json": {"model_type": "bert"}, "tokenizer_config.json": basic}),
    );
    assert!(basic.unwrap().warnings()[0].detail.contains("do not count: do_basic_tokenize."));
    let lost = load(&case("added_tokens_decoder leaves one out")["files"]).unwrap();
    assert!(lost.warnings()[0].detail.contains("added_tokens"), "{:?}", lost.warnings());
}

#[test]
fn a_tokenizer_that_its_class_does_not_change_has_no_warnings() {
    for name in
        ["BERT, {}", "gemma, GemmaTokenizer", "byte level, PreTrainedTokenizerFast", "null roles", "no class, llama"]
    {
        let tokenizer = load(&case(name)["files"]).unwrap();
        assert_eq!(tokenizer.warnings(), [], "{name}");
    }
}

/// A vocabulary as large as those that were published with the wrong pattern.
fn large(folder: &Path, model: &Value, config: &Value) -> TextTokenizer {
    let mut vocab: Vec<(String, usize)> = (0..100_001).map(|i| (format!("t{i}"), i)).collect();
    vocab.extend([("th".to_owned(), 100_001), ("e".to_owned(), 100_002)]);
    let vocab: serde_json::Map<String, Value> = vocab.into_iter().map(|(t, i)| (t, json!(i))).collect();
    let pattern = r"(?i:'s)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+";
    let cut = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    let json = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": cut, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    for (name, value) in [("tokenizer.json", &json), ("config.json", model), ("tokenizer_config.json", config)] {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    }
    TextTokenizer::from_folder(folder, 200_000).unwrap()
}

#[test]
fn the_wrong_pattern_of_mistral_is_warned_of_and_corrected_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let old = json!({"model_type": "mistral", "transformers_version": "4.50.0"});
    assert_eq!(codes(&large(folder.path(), &old, &json!({}))), [WarningCode::MistralRegex]);
    for quiet in [
        json!({"model_type": "llama", "transformers_version": "4.50.0"}),
        json!({"model_type": "mistral", "transformers_version": "5.0.0"}),
    ] {
        assert_eq!(codes(&large(folder.path(), &quiet, &json!({}))), []);
    }
    assert_eq!(codes(&large(folder.path(), &old, &json!({"fix_mistral_regex": false}))), []);
    let fixed = large(folder.path(), &old, &json!({"fix_mistral_regex": true}));
    assert_eq!(codes(&fixed), []);
}

/// Texts with few tokens per byte: long tokens, characters that normalise to shorter ones, spaces.
fn dense_texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "the",
            " the",
            "tower",
            "    ",
            "\u{212a}",
            "\u{1fbe}\u{308}\u{301}",
            "\u{1d7ce}",
            "\u{fb01}",
            "<s>",
            "<|endoftext|>",
            "<pad>",
            "\u{2581}",
            "e\u{301}",
            "\u{1100}\u{1161}\u{11a8}",
            "\u{4eac}",
            "\u{1f600}",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    (piece, 1..40_usize)
        .prop_flat_map(|(piece, n)| prop::collection::vec(Just(piece), n..=n).prop_map(|pieces| pieces.concat()))
}

#[test]
fn a_text_longer_than_what_fits_never_fits() {
    let mut bounded = Vec::new();
    let cases = cases();
    let cases = cases.iter().filter(|case| case.get("error").is_none());
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    for case in cases {
        let tokenizer = load(&case["files"]).unwrap();
        let Some(one) = tokenizer.longest_text_that_fits(1) else { continue };
        assert_eq!(tokenizer.longest_text_that_fits(1000), Some(1000 * one));
        assert!(one <= 1000, "{}: {one} bytes a token", case["name"]);
        assert_eq!(tokenizer.longest_text_that_fits(usize::MAX), if one == 1 { Some(usize::MAX) } else { None });
        let strings = std::fs::read(goldens().join("tokenizers/strings.json")).unwrap();
        let strings: Vec<String> = serde_json::from_slice(&strings).unwrap();
        let fits = |text: &str| {
            let n = encode(&tokenizer, text, Some(false)).len();
            assert!(text.len() <= n * one, "{}: {} bytes in {n} tokens, {text:?}", case["name"], text.len());
        };
        strings.iter().for_each(|text| fits(text));
        runner
            .run(&dense_texts(), |text| {
                fits(&text);
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{e}"));
        bounded.push(case["name"].as_str().unwrap().to_owned());
    }
    // Tokenizers of words have no bound; byte-level ones and those with a token for every byte have one.
    assert!(bounded.len() > 10, "{bounded:?}");
    for kind in ["llama", "gpt2", "gemma"] {
        assert!(bounded.iter().any(|name| name.to_lowercase().contains(kind)), "{kind}: {bounded:?}");
    }
}

#[test]
fn word_pieces_and_the_demo_model_have_the_expected_bound() {
    let bert = crate::model_support::load_golden(&goldens().join("bert/masked_lm"));
    assert_eq!(bert.tokenizer().longest_text_that_fits(8), None);
    let bytes = load(&json!({"tokenizer.json": "@byte_level.json"})).unwrap().longest_text_that_fits(1).unwrap();
    assert!((4..100).contains(&bytes), "{bytes}");
}
