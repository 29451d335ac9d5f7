//! Every tiny checkpoint against transformers: each hook the reference has, at every position.

use std::{collections::BTreeSet, path::Path};

use residuum::domain::Hook;

use crate::model_support::{all_rows, capture, every_hook, goldens, ids, load_golden, read_tensors, relative_error};

/// Largest difference allowed, in units of the reference's root mean square.
const TOLERANCE: f64 = 1e-4;

/// Compares one checkpoint; gives the worst relative error and where it is.
fn compare(folder: &Path) -> (f64, String) {
    let model = load_golden(folder);
    let reference = read_tensors(&folder.join("reference.safetensors"));
    let mut worst = (0.0, String::new());
    let prompts: BTreeSet<&str> = reference.keys().map(|k| k.split_once('/').unwrap().0).collect();
    assert!(prompts.len() >= 3);
    for prompt in prompts {
        let tokens = ids(&reference[&format!("{prompt}/ids")]);
        let named: Vec<(Hook, &[f64])> = reference
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix(&format!("{prompt}/"))?, v)))
            .filter(|(k, _)| *k != "ids")
            .map(|(k, v)| (k.parse().unwrap_or_else(|e| panic!("{e}")), v.as_slice()))
            .collect();
        let hooks: Vec<Hook> = named.iter().map(|(h, _)| *h).collect();
        let got = capture(&model, &hooks, &[(&tokens, all_rows(tokens.len()))]).unwrap();
        for (hook, expected) in named {
            let error = relative_error(&format!("{}: {hook}", folder.display()), got.item(hook, 0), expected);
            if error > worst.0 {
                worst = (error, format!("prompt {prompt}, {hook}"));
            }
        }
    }
    worst
}

/// Compares all checkpoints of a family.
fn compare_family(family: &str) {
    let mut folders: Vec<_> = std::fs::read_dir(goldens().join(family)).unwrap().map(|f| f.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    let mut failures = Vec::new();
    for folder in &folders {
        let (error, place) = compare(folder);
        let line = format!("{:<50} {error:.2e} at {place}", folder.strip_prefix(goldens()).unwrap().display());
        println!("{line}");
        if error > TOLERANCE {
            failures.push(line);
        }
    }
    assert!(failures.is_empty(), "above {TOLERANCE:e}:\n{}", failures.join("\n"));
    assert!(folders.iter().any(|f| covers_catalogue(f)), "no {family} checkpoint checks every hook");
}

/// Whether the reference of a checkpoint has every hook of the model.
fn covers_catalogue(folder: &Path) -> bool {
    let reference = read_tensors(&folder.join("reference.safetensors"));
    every_hook(&load_golden(folder)).iter().all(|hook| reference.contains_key(&format!("0/{hook}")))
}

#[test]
fn llama_agrees_with_transformers() {
    compare_family("llama");
}

#[test]
fn mistral_agrees_with_transformers() {
    compare_family("mistral");
}

#[test]
fn qwen2_agrees_with_transformers() {
    compare_family("qwen2");
}

#[test]
fn qwen3_agrees_with_transformers() {
    compare_family("qwen3");
}

#[test]
fn gemma_agrees_with_transformers() {
    compare_family("gemma");
}

#[test]
fn gemma2_agrees_with_transformers() {
    compare_family("gemma2");
}

#[test]
fn gemma3_text_agrees_with_transformers() {
    compare_family("gemma3_text");
}

#[test]
fn gpt2_agrees_with_transformers() {
    compare_family("gpt2");
}

#[test]
fn gpt_neox_agrees_with_transformers() {
    compare_family("gpt_neox");
}

#[test]
fn olmo2_agrees_with_transformers() {
    compare_family("olmo2");
}

#[test]
fn phi3_agrees_with_transformers() {
    compare_family("phi3");
}

#[test]
fn granite_agrees_with_transformers() {
    compare_family("granite");
}

#[test]
fn olmo_agrees_with_transformers() {
    compare_family("olmo");
}

#[test]
fn phi_agrees_with_transformers() {
    compare_family("phi");
}

#[test]
fn smollm3_agrees_with_transformers() {
    compare_family("smollm3");
}

#[test]
fn stablelm_agrees_with_transformers() {
    compare_family("stablelm");
}

#[test]
fn starcoder2_agrees_with_transformers() {
    compare_family("starcoder2");
}
