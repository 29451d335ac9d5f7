//! Folders with nonsensical settings: each loads, or is refused by name. A panic, or an allocation of a size that a
//! file states, would end the test.

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use residuum::model::{LoadOptions, Model};
use serde_json::{Map, Value, json};

use crate::model_support::{change_config, copy as copied, goldens, refusal};

/// Checkpoints that differ as much as possible.
const FOLDERS: [&str; 9] = [
    "gpt2/plain",
    "llama/rope_yarn",
    "llama/rope_longrope",
    "gemma3_text/two_ropes",
    "mixtral/window",
    "phi3/fused",
    "bloom/six_heads",
    "bert/masked_lm",
    "falcon/grouped",
];

/// A new value of a setting.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0_i64, 1, -1, 2, 3, 7, 63, 65_536, 4_294_967_296, i64::MAX, i64::MIN])
            .prop_map(Value::from),
        prop::sample::select(vec![0.0, -0.5, 1e-300, 1e300, 0.1]).prop_map(Value::from),
        prop::sample::select(vec!["", "llama", "linear", "yarn", "gelu", "no such thing", "../../etc/passwd"])
            .prop_map(Value::from),
        Just(json!([])),
        Just(json!([1, "a", null])),
        Just(json!({})),
        Just(json!({"rope_type": "yarn", "factor": -1.0, "type": 3})),
    ]
}

/// Which setting of a file is changed to what, or removed.
type Change = (prop::sample::Index, Option<Value>);

fn changes() -> impl Strategy<Value = (usize, Vec<Change>)> {
    let change = (any::<prop::sample::Index>(), prop::option::weighted(0.85, value()));
    (0..FOLDERS.len(), prop::collection::vec(change, 1..4))
}

fn changed(settings: &Map<String, Value>, changes: &[Change]) -> Value {
    let mut settings = settings.clone();
    for (which, value) in changes {
        let Some(key) = settings.keys().nth(which.index(settings.len().max(1))).cloned() else { break };
        match value {
            Some(value) => settings.insert(key, value.clone()),
            None => settings.remove(&key),
        };
    }
    settings.into()
}

/// Copies a checkpoint; the files that are read are small.
fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.path().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// Loads the checkpoints with changes to `file`. Returns how many loaded and how many were refused.
fn load_changed(file: &str, cases: u32) -> (usize, usize) {
    let folders: Vec<_> = FOLDERS
        .iter()
        .map(|name| {
            let folder = tempfile::tempdir().unwrap();
            copy(&goldens().join(name), folder.path());
            let settings: Value = serde_json::from_slice(&fs::read(folder.path().join(file)).unwrap()).unwrap();
            (folder, settings.as_object().unwrap().clone())
        })
        .collect();
    let counts = std::cell::Cell::new((0, 0));
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&changes(), |(which, changes)| {
        let (folder, settings) = &folders[which];
        fs::write(folder.path().join(file), changed(settings, &changes).to_string()).unwrap();
        let (loaded, refused) = counts.get();
        match Model::load("x", folder.path().to_str().unwrap(), &options) {
            Ok(_) => counts.set((loaded + 1, refused)),
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                counts.set((loaded, refused + 1));
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    counts.get()
}

#[test]
fn any_configuration_loads_or_is_refused() {
    let (loaded, refused) = load_changed("config.json", 800);
    assert!(loaded > 50 && refused > 50, "{loaded} loaded, {refused} refused");
}

#[test]
fn any_settings_of_a_tokenizer_load_or_are_refused() {
    let (loaded, refused) = load_changed("tokenizer_config.json", 300);
    assert!(loaded > 20, "{loaded} loaded, {refused} refused");
}

/// Changes a setting of a golden checkpoint, and returns why it is refused.
fn refusal_of(checkpoint: &str, pointer: &str, value: &Value) -> String {
    let folder = copied(checkpoint);
    change_config(folder.path(), |config| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = config.pointer_mut(parent).unwrap_or_else(|| panic!("{checkpoint} has no {parent}"));
        parent[key] = value.clone();
    });
    // JSON cannot spell NaN and infinity; these files spell them like Python
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"NaN!\"", "NaN").replace("\"-inf!\"", "-Infinity");
    fs::write(&path, text).unwrap();
    refusal(folder.path())
}

#[test]
fn numbers_that_make_a_model_meaningless_are_refused_by_name() {
    let (zero, minus, nan, inf) = (json!(0), json!(-1.0), json!("NaN!"), json!("-inf!"));
    let theta = "/rope_parameters/rope_theta";
    let cases: Vec<(&str, &str, Vec<&Value>)> = vec![
        ("llama/gqa_tied", theta, vec![&zero, &minus, &nan, &inf]),
        ("llama/rope_yarn", theta, vec![&zero, &minus, &nan]),
        ("llama/rope_dynamic", theta, vec![&zero, &minus, &nan]),
        ("llama/rope_llama3", theta, vec![&zero, &minus]),
        ("llama/rope_longrope", theta, vec![&zero, &minus]),
        ("gpt_neox/parallel", theta, vec![&zero, &minus]),
        ("gemma3_text/two_ropes", "/rope_parameters/full_attention/rope_theta", vec![&zero, &minus]),
        ("gemma3_text/two_ropes", "/rope_parameters/sliding_attention/rope_theta", vec![&zero, &minus]),
        ("modernbert/biases_old_spelling", "/global_rope_theta", vec![&zero, &minus]),
        ("modernbert/biases_old_spelling", "/local_rope_theta", vec![&zero, &minus]),
        ("llama/rope_yarn", "/rope_parameters/factor", vec![&zero, &minus, &nan]),
        ("llama/rope_yarn", "/rope_parameters/beta_fast", vec![&minus, &nan]),
        ("llama/rope_yarn", "/rope_parameters/beta_slow", vec![&minus]),
        ("llama/rope_yarn", "/rope_parameters/original_max_position_embeddings", vec![&zero, &minus]),
        ("llama/rope_dynamic", "/rope_parameters/factor", vec![&zero, &minus]),
        ("llama/rope_llama3", "/rope_parameters/factor", vec![&zero, &minus]),
        ("llama/rope_llama3", "/rope_parameters/low_freq_factor", vec![&zero, &minus]),
        ("llama/rope_llama3", "/rope_parameters/high_freq_factor", vec![&zero, &minus]),
        ("gemma3_text/two_ropes", "/rope_parameters/full_attention/factor", vec![&zero, &minus]),
        ("phi/parallel", "/rope_parameters/partial_rotary_factor", vec![&zero, &minus, &nan]),
        ("gpt_neox/parallel", "/rope_parameters/partial_rotary_factor", vec![&zero, &minus]),
        ("llama/gqa_tied", "/rms_norm_eps", vec![&minus, &nan, &inf]),
        ("gpt_neox/parallel", "/layer_norm_eps", vec![&minus, &nan]),
        ("bert/masked_lm", "/layer_norm_eps", vec![&minus]),
        ("gemma2/softcaps", "/rms_norm_eps", vec![&minus]),
        ("gemma2/softcaps", "/attn_logit_softcapping", vec![&zero, &nan]),
        ("gemma2/softcaps", "/final_logit_softcapping", vec![&zero, &nan]),
        ("gemma2/softcaps", "/query_pre_attn_scalar", vec![&zero, &minus, &nan]),
        ("granite/multipliers", "/logits_scaling", vec![&zero, &nan]),
        ("llama/gqa_tied", "/num_attention_heads", vec![&zero, &minus]),
        ("llama/gqa_tied", "/num_key_value_heads", vec![&zero, &minus]),
        ("llama/gqa_tied", "/head_dim", vec![&zero, &minus]),
        ("llama/gqa_tied", "/hidden_size", vec![&zero, &minus]),
        ("llama/gqa_tied", "/intermediate_size", vec![&zero, &minus]),
        ("llama/gqa_tied", "/num_hidden_layers", vec![&zero, &minus]),
        ("llama/gqa_tied", "/vocab_size", vec![&zero, &minus]),
        ("llama/gqa_tied", "/max_position_embeddings", vec![&zero, &minus]),
        ("mixtral/window", "/num_experts_per_tok", vec![&zero, &minus]),
        ("mixtral/window", "/num_local_experts", vec![&zero, &minus]),
    ];
    for (checkpoint, pointer, values) in cases {
        let key = pointer.rsplit('/').next().unwrap();
        for value in values {
            let error = refusal_of(checkpoint, pointer, value);
            assert!(error.contains(&format!("{key}`")), "{checkpoint} {pointer} {value}: {error}");
        }
    }
    for (checkpoint, pointer, value, said) in [
        ("llama/rope_yarn", theta, json!(1), "`rope_parameters.rope_theta` is 1"),
        ("llama/gqa_tied", theta, json!(1e-300), "`rope_parameters.rope_theta` is"),
        ("llama/rope_longrope", "/rope_parameters/short_factor", json!([0.0, 1.0, 1.0, 1.0]), "not finite numbers"),
        ("llama/rope_longrope", "/rope_parameters/original_max_position_embeddings", json!(1), "not finite numbers"),
        ("phi/parallel", "/rope_parameters/partial_rotary_factor", json!(1.5), "partial_rotary_factor` is 1.5"),
        ("mixtral/window", "/num_experts_per_tok", json!(6), "num_experts_per_tok` is 6"),
        ("llama/gqa_tied", "/num_key_value_heads", json!(3), "num_key_value_heads"),
    ] {
        let error = refusal_of(checkpoint, pointer, &value);
        assert!(error.contains(said), "{checkpoint} {pointer} {value}: {error}");
    }
}

/// A checkpoint with a changed `tokenizer.json`.
fn with_tokenizer(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = copied("llama/gqa_tied");
    let path = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
    folder
}

fn replace(pattern: &str, content: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
}

#[test]
fn tokenizers_that_lengthen_texts_excessively_are_refused() {
    let megabyte = "b".repeat(1 << 20);
    let doubling = vec![replace("a", "aa"); 40];
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let token = |content: String| {
        json!({"id": 271, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
            "special": false})
    };
    let around = |n: usize, pieces: Value| {
        json!({"type": "TemplateProcessing", "single": pieces, "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": vec![1; n], "tokens": vec!["<s>"; n]}}})
    };
    let (bos, text) =
        (json!({"SpecialToken": {"id": "<s>", "type_id": 0}}), json!({"Sequence": {"id": "A", "type_id": 0}}));
    let changes: Vec<(&str, Value, &str)> = vec![
        ("normalizer", replace("a", &megabyte), "`normalizer` can make"),
        (
            "normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "x*"}, "content": megabyte}),
            "`normalizer` can make",
        ),
        ("normalizer", json!({"type": "Prepend", "prepend": megabyte}), "`normalizer` can make"),
        ("normalizer", json!({"type": "Sequence", "normalizers": doubling}), "`normalizer` can make"),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFKD"}); 12]}),
            "`normalizer` can make",
        ),
        ("normalizer", json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 65]}), "has 65 steps"),
        ("pre_tokenizer", json!({"type": "Sequence", "pretokenizers": vec![byte_level; 40]}), "can make"),
        ("decoder", json!({"type": "Sequence", "decoders": vec![replace("a", "aa"); 40]}), "`decoder` can make text"),
        ("decoder", replace("a", &megabyte), "`decoder` can make text"),
        ("post_processor", around(1_000_000, json!([bos, text])), "puts 1000000 tokens around each text"),
        ("post_processor", around(1, json!([text, text, text])), "repeats the text"),
        ("added_tokens", json!([token("c".repeat(1 << 20))]), "has a token of 1048576 bytes"),
        ("added_tokens", json!([token("c".repeat(5000))]), "has a token of 5000 bytes"),
    ];
    for (key, value, said) in changes {
        let folder = with_tokenizer(|json| json[key] = value.clone());
        let error = refusal(folder.path());
        assert!(error.contains("tokenizer.json") && error.contains(said), "{key} {said}: {error}");
    }
    // the normaliser lengthens an added token while the file is read
    let folder = with_tokenizer(|json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": vec![replace("a", "aa"); 11]});
        json["added_tokens"] = json!([token("a".repeat(4000)), token("ab".repeat(2000)), token("a".repeat(3000))]);
    });
    let error = refusal(folder.path());
    assert!(error.contains("`added_tokens` may have"), "{error}");
}

#[test]
fn a_tokenizer_that_may_grow_a_text_takes_shorter_ones() {
    let folder = with_tokenizer(|json| json["normalizer"] = replace("a", &"b".repeat(100)));
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    let model = Model::load("x", folder.path().to_str().unwrap(), &options).unwrap();
    let tokenizer = model.tokenizer();
    assert!(tokenizer.encode(&"a".repeat(50), None).is_ok());
    let problem = tokenizer.encode(&"a".repeat(1 << 20), None).unwrap_err();
    assert_eq!(problem.code, residuum::domain::Code::TooManyTokens);
    assert!(problem.detail.contains("at most"), "{}", problem.detail);
}

#[test]
fn parts_that_the_library_panics_on_are_refused() {
    let map = |bytes: &str| json!({"type": "Precompiled", "precompiled_charsmap": bytes});
    // not base64; a map without a trie; a trie that leads out of its bounds
    for bytes in ["!!!", "", "AAAAAA=="] {
        let folder = with_tokenizer(|json| json["normalizer"] = map(bytes));
        let options = LoadOptions { offline: true, ..LoadOptions::default() };
        match Model::load("x", folder.path().to_str().unwrap(), &options) {
            Err(error) => assert!(error.to_string().contains("tokenizer.json"), "{error}"),
            Ok(model) => drop(model.tokenizer().encode("a text", None)),
        }
    }
}

#[test]
fn a_pattern_that_backtracks_without_bound_ends() {
    let split =
        json!({"type": "Split", "pattern": {"Regex": "(?:(a+)+)\\1b|(?=x)y"}, "behavior": "Isolated", "invert": false});
    let folder = with_tokenizer(|json| json["pre_tokenizer"] = split);
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    let model = Model::load("x", folder.path().to_str().unwrap(), &options).unwrap();
    // text on which the pattern gives up is one piece
    let encoded = model.tokenizer().encode(&"a".repeat(200), Some(false)).unwrap();
    assert!(!encoded.ids.is_empty());
}
