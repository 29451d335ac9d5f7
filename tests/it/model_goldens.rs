//! Every tiny checkpoint against transformers: each hook of the reference, at every position.

use std::{collections::BTreeSet, path::Path};

use residuum::{
    domain::Hook,
    model::{Model, Placement},
};

use crate::model_support::{
    accelerator, all_rows, capture, every_hook, goldens, ids, load_golden, load_golden_on, read_tensors, relative_error,
};

/// Largest difference allowed, in units of the reference's root mean square.
pub const TOLERANCE: f64 = 1e-4;

/// Compares a checkpoint with the reference in `folder`. Returns the worst relative error and where it occurs.
pub fn compare(model: &Model, folder: &Path) -> (f64, String) {
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
        let got = capture(model, &hooks, &[(&tokens, all_rows(tokens.len()))]).unwrap();
        for (hook, expected) in named {
            let error = relative_error(&format!("{}: {hook}", folder.display()), got.item(hook, 0), expected);
            if error > worst.0 {
                worst = (error, format!("prompt {prompt}, {hook}"));
            }
        }
    }
    worst
}

/// Compares all checkpoints of a family, on the CPU and through the code that drives accelerators.
fn compare_family(family: &str) {
    let mut folders: Vec<_> = std::fs::read_dir(goldens().join(family)).unwrap().map(|f| f.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    let mut failures = Vec::new();
    for folder in &folders {
        for placement in [Placement::Cpu, accelerator()] {
            let (error, place) = compare(&load_golden_on(folder, placement), folder);
            let name = folder.strip_prefix(goldens()).unwrap().display();
            let line = format!("{name:<50} {placement:<10} {error:.2e} at {place}");
            println!("{line}");
            if error > TOLERANCE {
                failures.push(line);
            }
        }
    }
    assert!(failures.is_empty(), "above {TOLERANCE:e}:\n{}", failures.join("\n"));
    assert!(folders.iter().any(|f| covers_catalogue(f)), "no {family} checkpoint checks every hook");
}

/// Whether the reference of a checkpoint has all hooks of the model.
fn covers_catalogue(folder: &Path) -> bool {
    let reference = read_tensors(&folder.join("reference.safetensors"));
    every_hook(&load_golden(folder)).iter().all(|hook| reference.contains_key(&format!("0/{hook}")))
}

/// Makes one test for each family, and one that checks that no golden is left out.
macro_rules! families {
    ($($family:ident)*) => {
        $(
            #[test]
            fn $family() {
                compare_family(stringify!($family));
            }
        )*

        #[test]
        fn every_golden_family_is_compared() {
            let folders = std::fs::read_dir(goldens()).unwrap().map(Result::unwrap).filter(|f| f.path().is_dir());
            let found: BTreeSet<String> = folders.map(|f| f.file_name().into_string().unwrap()).collect();
            // GGUF files are compared in `model_gguf`, tokenizers in `model_tokenizer_folders`.
            let compared: BTreeSet<String> = [$(stringify!($family),)* "gguf", "tokenizers"].map(str::to_owned).into();
            assert_eq!(found, compared);
        }
    };
}

families! {
    bert
    bloom
    distilbert
    falcon
    gemma
    gemma2
    gemma3
    gemma3_text
    gpt2
    gpt_neo
    gpt_neox
    gptj
    granite
    llama
    mistral
    mixtral
    modernbert
    olmo
    olmo2
    olmoe
    opt
    phi
    phi3
    qwen2
    qwen2_moe
    qwen3
    qwen3_moe
    roberta
    smollm3
    stablelm
    starcoder2
}
