//! GGUF files of every architecture against transformers: activations, tokens, and refusals.

use std::{collections::BTreeSet, fs, path::Path};

use residuum::model::{ChatEnd, LoadOptions, Model};
use serde_json::{Map, json};

use crate::{
    model_goldens::{TOLERANCE, compare},
    model_support::{goldens, load_golden},
};

/// Names of the tiny files; each has a folder.
fn names() -> BTreeSet<String> {
    let folders = fs::read_dir(goldens().join("gguf")).unwrap().map(|f| f.unwrap());
    let with_model = folders.filter(|f| f.path().join("model.gguf").is_file());
    with_model.map(|f| f.file_name().into_string().unwrap()).collect()
}

fn load(name: &str) -> Model {
    load_golden(&goldens().join("gguf").join(name).join("model.gguf"))
}

fn refusal(path: &Path) -> String {
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    match Model::load("x", path.to_str().unwrap(), &options) {
        Ok(_) => panic!("it should be refused"),
        Err(error) => error.to_string(),
    }
}

/// The refusal of a tiny file after replacing each `from` by `to`, which has the same length.
fn refusal_of(name: &str, changes: &[(&[u8], &[u8])]) -> String {
    let mut bytes = fs::read(goldens().join("gguf").join(name).join("model.gguf")).unwrap();
    for (from, to) in changes {
        assert_eq!(from.len(), to.len());
        let found: Vec<usize> =
            bytes.windows(from.len()).enumerate().filter(|(_, w)| w == from).map(|(i, _)| i).collect();
        assert!(!found.is_empty(), "{}", from.escape_ascii());
        found.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    refusal(&path)
}

#[test]
fn every_file_gives_the_activations_of_transformers() {
    let mut failures = Vec::new();
    for name in names() {
        let (error, place) = compare(&load(&name), &goldens().join("gguf").join(&name));
        let line = format!("gguf/{name:<24} {error:.2e} at {place}");
        println!("{line}");
        if error > TOLERANCE {
            failures.push(line);
        }
    }
    assert!(failures.is_empty(), "above {TOLERANCE:e}:\n{}", failures.join("\n"));
}

#[test]
fn every_architecture_has_a_file() {
    let error = refusal_of("gemma", &[(b"gemma", b"gemmb")]);
    let (_, supported) = error.split_once("`general.architecture` \"gemmb\" is not supported; supported are ").unwrap();
    let supported: BTreeSet<String> = supported.split(", ").map(str::to_owned).collect();
    assert!(supported.len() >= 16 && supported.is_subset(&names()), "{supported:?}");
}

#[test]
fn strings_have_the_tokens_of_the_models_own_tokenizer() {
    let mut n = 0;
    for name in names() {
        let model = load(&name);
        let file = goldens().join("gguf").join(&name).join("tokens.json");
        let cases: Vec<(String, Vec<u32>)> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        n += cases.len();
        for (text, expected) in cases {
            let ids = model.tokenizer().encode(&text, None).map(|e| e.ids).unwrap_or_default();
            assert_eq!(ids, expected, "{name}: {text:?}");
        }
    }
    assert!(n > 2000);
}

#[test]
fn sentencepiece_tokens_show_their_text() {
    let llama = load("llama");
    let t = llama.tokenizer();
    assert!(t.adds_bos());
    assert_eq!(t.bos_token(), Some((1, "<s>")));
    let tokens = t.encode("the 日", Some(false)).unwrap();
    // A space is put in front, and text without a piece is split into bytes.
    assert_eq!(tokens.tokens.concat(), " the \u{fffd}\u{fffd}\u{fffd}");
    assert_eq!(tokens.offsets.unwrap().last(), Some(&Some((4, 5))));
    assert_eq!(t.encode("</s>a", Some(false)).unwrap().special[..2], [true, false]);
    let gemma = load("gemma");
    let spaces = gemma.tokenizer().encode("a  b", Some(false)).unwrap();
    assert_eq!(spaces.tokens.concat(), "a  b");
    assert!(spaces.tokens.iter().any(|t| t.contains("  ")), "{:?}", spaces.tokens);
}

#[test]
fn bos_follows_the_file_and_the_defaults_of_its_tokenizer() {
    for (name, adds) in [("gpt2", false), ("mistral", true), ("llama_biases_llama3", true), ("gemma2", true)] {
        assert_eq!(load(name).tokenizer().adds_bos(), adds, "{name}");
    }
    let phi = load("phi3");
    let messages = [json!({"role": "user", "content": "the"})];
    assert_eq!(phi.tokenizer().render_chat(&messages, ChatEnd::Prompt, &Map::new(), None).unwrap(), "<s><|user|>the");
}

#[test]
fn a_model_is_described_by_its_family() {
    for (name, architecture) in [
        ("gemma3", "gemma3_text"),
        ("gptneox", "gpt_neox"),
        ("phi2", "phi"),
        ("mistral", "mistral"),
        ("llama", "llama"),
    ] {
        assert_eq!(load(name).info().architecture, architecture);
    }
    assert_eq!(load("qwen2_quantised").info().weights_dtype, "float16+Q8_0+float32");
}

#[test]
fn keys_and_tensors_that_are_not_understood_are_refused_by_name() {
    for (name, changes, expected) in [
        (
            "qwen2",
            &[(&b"qwen2.rope.freq_base"[..], &b"qwen2.rope.freq_bass"[..])][..],
            "`qwen2.rope.freq_bass` is not understood",
        ),
        // A tensor that nothing reads, and a missing one.
        ("qwen3", &[(b"blk.0.attn_q_norm", b"blk.0.attn_Q_norm")], "tensor `blk.0.attn_q_norm.weight` is missing"),
        (
            "llama_biases_llama3",
            &[(b"blk.1.attn_q.bias", b"blk.1.attn_q.bios")],
            "tensor `blk.1.attn_q.bios` is not understood",
        ),
        ("qwen2", &[(b"blk.1.attn_q.bias", b"blk.1.attn_q.bios")], "tensor `blk.1.attn_q.bias` is missing"),
        ("llama", &[(b"attn_q.weight", b"attn_q.weighs")], "tensor `blk.0.attn_q.weight` is missing"),
        (
            "phi3",
            &[(b"rope_factors_long", b"rope_factors_lung")],
            "`phi3.rope.scaling.attn_factor` is not understood without `rope_factors_long.weight`",
        ),
        // Numbers that contradict each other: blocks, rotated dimensions, heads.
        (
            "qwen2",
            &[(b"block_count\x04\0\0\0\x02\0\0\0", b"block_count\x04\0\0\0\xff\xff\xff\x7f")],
            "`qwen2.block_count` is 2147483647",
        ),
        (
            "phi2",
            &[(b"dimension_count\x04\0\0\0\x04\0\0\0", b"dimension_count\x04\0\0\0\x09\0\0\0")],
            "`phi2.rope.dimension_count` is 9, but a head has 8 dimensions",
        ),
        (
            "qwen3",
            &[(b"value_length\x04\0\0\0\x0c\0\0\0", b"value_length\x04\0\0\0\x0d\0\0\0")],
            "`qwen3.attention.value_length` is not understood",
        ),
        (
            "gemma2",
            &[(b"head_count\x04\0\0\0\x04\0\0\0", b"head_count\x04\0\0\0\0\0\0\0")],
            "`num_attention_heads` is 0",
        ),
        // An unknown kind of rotary embedding, and an epsilon that is not a number.
        (
            "llama_yarn",
            &[(b"\x04\0\0\0\0\0\0\0yarn", b"\x04\0\0\0\0\0\0\0corn")],
            "`rope_scaling.rope_type` \"corn\" is not understood",
        ),
        (
            "qwen2",
            &[(b"rms_epsilon\x06\0\0\0\xbd\x37\x86\x35", b"rms_epsilon\x06\0\0\0\0\0\xc0\x7f")],
            "`qwen2.attention.layer_norm_rms_epsilon` is not a number",
        ),
        (
            "qwen2",
            &[(b"qwen2.attention.layer_norm_rms", b"qwen9.attention.layer_norm_rms")],
            "`qwen2.attention.layer_norm_rms_epsilon` is missing",
        ),
        // Tokenizers.
        (
            "qwen2",
            &[(b"ggml.pre\x08\0\0\0\x05\0\0\0\0\0\0\0qwen2", b"ggml.pre\x08\0\0\0\x05\0\0\0\0\0\0\0qwen9")],
            "`tokenizer.ggml.pre` \"qwen9\" is not a known pre-tokeniser",
        ),
        (
            "qwen2",
            &[(b"tokenizer.ggml.pre", b"tokenizer.ggml.pra")],
            "`tokenizer.ggml.pre` is missing: nothing says how",
        ),
        (
            "llama",
            &[(b"tokenizer.ggml.scores", b"tokenizer.ggml.scares")],
            "`tokenizer.ggml.scores` is missing or not 384 numbers",
        ),
        ("gpt2", &[(b"tokenizer.ggml.model", b"tokenizer.ggml.modal")], "`tokenizer.ggml.model` is missing"),
    ] {
        let error = refusal_of(name, changes);
        assert!(error.contains("model.gguf: ") && error.contains(expected), "{name}: {error}");
    }
}

/// A panic, or an allocation of a size that the file states, would end the test.
#[test]
fn a_file_with_one_byte_changed_loads_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    let mut loaded = 0;
    for name in ["gemma3", "gpt2", "llama_yarn", "phi3"] {
        let whole = fs::read(goldens().join("gguf").join(name).join("model.gguf")).unwrap();
        for at in (0..20_000).step_by(61) {
            let mut bytes = whole.clone();
            bytes[at] ^= [0x01, 0x80, 0xff][at % 3];
            fs::write(&path, bytes).unwrap();
            loaded += usize::from(Model::load("x", path.to_str().unwrap(), &options).is_ok());
        }
    }
    assert!(loaded > 0);
}
