//! Folders with settings that nobody meant: each loads or is refused by name. A panic, or an allocation that a number in a
//! file asks for, would end the test.

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use residuum::model::{LoadOptions, Model};
use serde_json::{Map, Value, json};

use crate::model_support::goldens;

/// Checkpoints that have little in common.
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

/// What a setting may be changed to.
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

/// Which of a file's settings is changed, to what; or dropped.
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

/// Copies a checkpoint; what is read is small.
fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.path().is_file() {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

/// Loads what changes of `file` make of the checkpoints; gives how many loaded and how many were refused.
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
