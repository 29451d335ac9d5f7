//! Translates the metadata of a GGUF file to the keys of `config.json` (`docs/gguf.md` in ggml-org/ggml).

use serde_json::Value;

use super::{
    super::{reference::FamilyReference, with_defaults},
    draft::Draft,
    formats::Format,
};
use crate::{checkpoint::GgufFile, config::Config, error::LoadError};

/// Keys after the prefix of the architecture, and their spelling in most families.
const COMMON: &[(&str, &str)] = &[
    ("context_length", "max_position_embeddings"),
    ("block_count", "num_hidden_layers"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("vocab_size", "vocab_size"),
];

/// Keys of the rotary embedding.
const ROPE: &[(&str, &str)] = &[
    ("rope.freq_base", "rope_theta"),
    ("rope.scaling.factor", "factor"),
    ("rope.scaling.original_context_length", "original_max_position_embeddings"),
    ("rope.scaling.yarn_beta_fast", "beta_fast"),
    ("rope.scaling.yarn_beta_slow", "beta_slow"),
];

/// Keys of the norms' epsilon; one of them is required.
const EPSILONS: [&str; 2] = ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"];

/// Translates the metadata under the architecture's prefix; a key without a translation is refused.
pub fn configuration(file: &GgufFile, format: &Format) -> Result<Config, LoadError> {
    let mut draft = Draft::default();
    draft.config.insert("model_type".to_owned(), format.model_type.into());
    let prefix = format!("{}.", format.name);
    let below = file.metadata().iter().filter_map(|(key, value)| Some((key, key.strip_prefix(&prefix)?, value)));
    for (key, name, value) in below {
        let spelled = |table: &[(&'static str, &'static str)]| table.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
        let json = || value.number().ok_or_else(|| file.refuse(key, "is not a number"));
        if let Some(spelled) = spelled(format.keys).or_else(|| spelled(COMMON)) {
            draft.config.insert(spelled.to_owned(), json()?);
        } else if let Some(spelled) = spelled(ROPE) {
            draft.rope.insert(spelled.to_owned(), json()?);
        } else if !says_nothing_new(file, format, key, name) {
            return Err(file.refuse(key, "is not understood and might change what the model computes"));
        }
    }
    if !EPSILONS.iter().any(|name| file.metadata().contains_key(&format!("{prefix}{name}"))) {
        return Err(file.refuse(&format!("{prefix}{}", EPSILONS[0]), "is missing"));
    }
    // The number of blocks becomes the length of lists, so check it: the file has several tensors for each block.
    if let Some(n) = file.integer(&format!("{prefix}block_count")).filter(|n| *n > file.checkpoint().len() as u64) {
        return Err(file.refuse(&format!("{prefix}block_count"), format!("is {n}, but there are fewer tensors")));
    }
    // A window of 0 means no window, and so does an absent key, as in llama.cpp. But early Gemma 2 files lack the key and have
    // the window of their family.
    let windowless = draft.config.get("sliding_window").is_none_or(|window| *window == 0);
    if windowless && (format.model_type != "gemma2" || draft.config.contains_key("sliding_window")) {
        draft.config.insert("sliding_window".to_owned(), Value::Null);
    }
    // Sizes have no defaults: those of the family's class are the sizes of some other model.
    for (name, common) in COMMON.iter().filter(|(name, _)| *name != "vocab_size") {
        let spelled = format.keys.iter().find(|(key, _)| key == name).map_or(*common, |(_, spelled)| *spelled);
        draft.config.entry(spelled).or_insert(Value::Null);
    }
    (format.implied)(file, &mut draft)?;
    rotary(file, &prefix, format.model_type, &mut draft)?;
    let Draft { mut config, rope } = draft;
    if !rope.is_empty() {
        config.insert("rope_scaling".to_owned(), rope.into());
    }
    if !config.contains_key("vocab_size") {
        let rows = file.checkpoint().shape("token_embd.weight").and_then(|s| s.first().copied());
        config.insert("vocab_size".to_owned(), rows.into());
    }
    // There is always an unembedding, tied or not.
    config.insert("architectures".to_owned(), vec!["ForCausalLM"].into());
    config.insert("tie_word_embeddings".to_owned(), (!file.checkpoint().has("output.weight")).into());
    with_defaults(Config::new(file.path().display().to_string(), config))
}

/// Whether a key has the only value that needs no translation, or is translated by `implied` or by [`rotary`].
fn says_nothing_new(file: &GgufFile, format: &Format, key: &str, name: &str) -> bool {
    let of = |other: &str| file.integer(&format!("{}.{other}", format.name));
    match name {
        "rope.scaling.finetuned" => true,
        "rope.scaling.type" => file.text(key).is_some(),
        "rope.dimension_count" => of(name).is_some(),
        "attention.value_length" => of(name).is_some() && of(name) == of("attention.key_length"),
        "attention.causal" => file.flag(key) == Some(true),
        "expert_count" | "expert_used_count" => of(name) == Some(0),
        "tensor_data_layout" => format.interleaved && file.text(key) == Some("Meta AI original pth"),
        _ => format.implied_keys.contains(&name),
    }
}

/// The kind of the rotary embedding, and the fraction of a head that is rotated: all of it unless the file says otherwise.
fn rotary(file: &GgufFile, prefix: &str, model_type: &str, draft: &mut Draft) -> Result<(), LoadError> {
    let kind = match file.text(&format!("{prefix}rope.scaling.type")) {
        Some("none") => Some("default"),
        None if draft.rope.contains_key("factor") => Some("linear"),
        other => other,
    };
    if let Some(kind) = kind {
        draft.rope.entry("rope_type").or_insert_with(|| kind.into());
    }
    let (key, d_head) = (format!("{prefix}rope.dimension_count"), draft.d_head());
    let rotated = file.integer(&key);
    if rotated.is_none() && draft.rope.is_empty() {
        return Ok(());
    }
    let rotated = rotated.unwrap_or(d_head);
    if rotated == 0 || rotated > d_head {
        return Err(file.refuse(&key, format!("is {rotated}, but a head has {d_head} dimensions")));
    }
    // The reader truncates to whole dimensions, so add half of one, lest rounding lose one.
    #[expect(clippy::cast_precision_loss, reason = "a head is small")]
    let partial = if rotated == d_head { 1.0 } else { (rotated as f64 + 0.5) / d_head as f64 };
    let whole_heads = FamilyReference::of(model_type).is_some_and(|reference| !reference.partial_rotary);
    if whole_heads && rotated != d_head {
        return Err(
            file.refuse(&key, format!("is {rotated}, but {model_type} rotates all {d_head} dimensions of a head"))
        );
    }
    draft.rope.insert("partial_rotary_factor".to_owned(), partial.into());
    Ok(())
}
