//! GGUF files: their metadata as the Hugging Face configuration it was made from, and their own weight names.
//!
//! The keys are those of the GGUF specification (`docs/gguf.md` in ggml-org/ggml).

use serde_json::{Map, Value};

use super::{Family, llama};
use crate::model::{
    checkpoint::{GgufFile, MetadataValue},
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource, RowOrder, Sources},
};

/// Architectures (`general.architecture`) that can be loaded.
const SUPPORTED: &[&str] = &["llama"];

/// Keys below the architecture's name that have a Hugging Face spelling.
const RENAMED: &[(&str, &str)] = &[
    ("context_length", "max_position_embeddings"),
    ("block_count", "num_hidden_layers"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("rope.freq_base", "rope_theta"),
    ("vocab_size", "vocab_size"),
];

/// Understands a GGUF file.
///
/// # Errors
/// When the architecture or one of its options is not understood.
pub fn from_gguf(file: &GgufFile) -> Result<Family, LoadError> {
    let architecture = file.text("general.architecture").unwrap_or_default();
    if !SUPPORTED.contains(&architecture) {
        let reason = format!("{architecture:?} is not supported; supported are {}", SUPPORTED.join(", "));
        return Err(file.refuse("general.architecture", reason));
    }
    let config = configuration(file, architecture)?;
    let checkpoint = file.checkpoint();
    let mut spec = llama::architecture(&config, checkpoint, &llama::Defaults::LLAMA)?;
    config.finish()?;
    if checkpoint.has("rope_freqs.weight") {
        let n = spec.ropes[0].inv_freq.len();
        let factors = checkpoint.whole("rope_freqs.weight", &[n])?;
        spec.ropes = spec.ropes.into_iter().map(|r| r.divided_by(&factors)).collect();
    }
    let d_head = spec.d_head;
    let layer = move |l| layer_sources(l, d_head);
    let sources = Sources {
        unembed: LinearSource::new("output", false),
        ..Sources::new("token_embd.weight".to_owned(), "output_norm".to_owned(), layer)
    };
    Ok(Family { architecture: spec, sources })
}

/// The metadata below the architecture's name, spelled as `config.json` would; a key without a translation is
/// refused.
fn configuration(file: &GgufFile, architecture: &str) -> Result<Config, LoadError> {
    let prefix = format!("{architecture}.");
    let mut map = Map::new();
    map.insert("model_type".to_owned(), architecture.into());
    let mut rotated = None;
    for (key, value) in file.metadata() {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        let same_as = |other: &str| file.integer(key) == file.integer(&format!("{prefix}{other}"));
        let json = || number(value).ok_or_else(|| file.refuse(key, "is not a number"));
        match (name, RENAMED.iter().find(|(gguf, _)| *gguf == name)) {
            (_, Some((_, hf))) => drop(map.insert((*hf).to_owned(), json()?)),
            ("rope.dimension_count", _) => rotated = json()?.as_u64(),
            ("rope.scaling.type", _) if file.text(key) == Some("none") => {}
            ("attention.value_length", _) if same_as("attention.key_length") => {}
            _ => return Err(file.refuse(key, "is not understood and might change what the model computes")),
        }
    }
    if let (None, Some(n)) = (map.get("head_dim"), rotated) {
        map.insert("head_dim".to_owned(), n.into());
    } else if let (Some(d), Some(n)) = (map.get("head_dim").and_then(Value::as_u64), rotated)
        && d != n
    {
        return Err(file.refuse(&format!("{prefix}rope.dimension_count"), format!("is {n}; only {d} is understood")));
    }
    if !map.contains_key("vocab_size") {
        let rows = file.checkpoint().shape("token_embd.weight").and_then(|s| s.first().copied());
        map.insert("vocab_size".to_owned(), rows.into());
    }
    map.insert("tie_word_embeddings".to_owned(), (!file.checkpoint().has("output.weight")).into());
    Ok(Config::new(file.path().display().to_string(), map))
}

/// A number as JSON. Float32 values keep their exact value.
fn number(value: &MetadataValue) -> Option<Value> {
    match value {
        MetadataValue::F32(v) => Some(f64::from(*v).into()),
        MetadataValue::F64(v) => Some((*v).into()),
        MetadataValue::U8(v) => Some((*v).into()),
        MetadataValue::U16(v) => Some((*v).into()),
        MetadataValue::U32(v) => Some((*v).into()),
        MetadataValue::U64(v) => Some((*v).into()),
        MetadataValue::I8(v) => Some((*v).into()),
        MetadataValue::I16(v) => Some((*v).into()),
        MetadataValue::I32(v) => Some((*v).into()),
        MetadataValue::I64(v) => Some((*v).into()),
        _ => None,
    }
}

fn layer_sources(l: usize, d_head: usize) -> LayerSources {
    let name = |part: &str| format!("blk.{l}.{part}");
    let linear = |part: &str| LinearSource::new(name(part), false);
    let rotary = RowOrder::Unpermuted { d_head };
    LayerSources {
        ln1: name("attn_norm"),
        q: linear("attn_q").order(rotary),
        k: linear("attn_k").order(rotary),
        v: linear("attn_v"),
        o: linear("attn_output"),
        q_norm: name("attn_q_norm"),
        k_norm: name("attn_k_norm"),
        ln1_post: name("post_attention_norm"),
        ln2: name("ffn_norm"),
        gate: linear("ffn_gate"),
        up: Some(linear("ffn_up")),
        down: linear("ffn_down"),
        experts: None,
        ln2_post: name("post_ffw_norm"),
    }
}
