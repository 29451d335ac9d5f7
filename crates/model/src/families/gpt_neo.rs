//! GPT-Neo (TinyStories): GPT-2 with sliding windows on some layers, scores that are not scaled, and no biases on queries, keys and
//! values.

use serde_json::Value;

use super::{Family, SizeKeys, activation, layer_norm, transformer_sources, unembedding};
use crate::{
    architecture::{Architecture, Embedding, LearnedPositions},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    sources::{LayerSources, LinearSource},
};

const KEYS: SizeKeys = SizeKeys {
    heads: &["num_heads", "num_attention_heads"],
    layers: &["num_layers", "num_hidden_layers"],
    ..SizeKeys::USUAL
};

/// GPT-Neo.
pub fn family(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let tied = config.flag("tie_word_embeddings")?;
    let size = KEYS.read(config)?;
    let windows = windows(config, size.n_layers)?;
    let mut architecture = Architecture {
        embedding: Embedding { positions: Some(LearnedPositions { offset: 0, padding: None }), ..Embedding::default() },
        norm: layer_norm(config, "layer_norm_epsilon")?,
        attention_scale: 1.0,
        activation: activation(config, "activation_function", "gelu_new")?,
        unembedding: unembedding(config, checkpoint, "lm_head", tied)?,
        ..Architecture::plain(size)
    };
    architecture.layers.iter_mut().zip(windows).for_each(|(layer, window)| layer.window = window);
    let mut sources = transformer_sources(checkpoint, "wte", layer_sources);
    sources.positions = Some(sources.embed.replace("wte", "wpe"));
    Ok(Family::new(architecture, sources))
}

/// The window of each layer: `local` layers have one, `global` layers see everything.
fn windows(config: &Config, n_layers: usize) -> Result<Vec<Option<usize>>, LoadError> {
    let window = config.count_opt("window_size")?.unwrap_or(256);
    let of = |kind: &String| match kind.as_str() {
        "global" => Ok(None),
        "local" => Ok(Some(window)),
        other => Err(config.refuse("attention_types", format!("{other:?} is not understood"))),
    };
    let listed = config.texts_opt("attention_layers")?;
    let kinds = match (&listed, config.value("attention_types")) {
        (Some(listed), None) => listed.clone(),
        _ => kinds(config, n_layers)?,
    };
    if kinds.len() != n_layers {
        return Err(config.refuse("attention_types", format!("does not describe {n_layers} layers")));
    }
    if listed.is_some_and(|listed| listed != kinds) {
        return Err(config.refuse("attention_layers", "does not say the same as `attention_types`"));
    }
    kinds.iter().map(of).collect()
}

/// The kind of each layer, from `attention_types`, a list of `[kinds, times]`. Entries after the last layer are not expanded.
fn kinds(config: &Config, n_layers: usize) -> Result<Vec<String>, LoadError> {
    let Some(value) = config.value("attention_types") else {
        return Ok(["global", "local"].map(str::to_owned).into_iter().cycle().take(24).collect());
    };
    let wrong = || config.refuse("attention_types", "is not a list of pairs of kinds and a number");
    let mut kinds = Vec::new();
    for pair in value.as_array().ok_or_else(wrong)? {
        let (names, times) = repeated(pair).ok_or_else(wrong)?;
        let room = (n_layers + 1).saturating_sub(kinds.len());
        let times = usize::try_from(times).unwrap_or(usize::MAX).saturating_mul(names.len());
        kinds.extend(names.into_iter().cycle().take(times.min(room)));
    }
    Ok(kinds)
}

fn repeated(pair: &Value) -> Option<(Vec<String>, u64)> {
    let [names, times] = pair.as_array()?.as_slice() else { return None };
    let names = names.as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
    Some((names.collect::<Option<_>>()?, times.as_u64()?))
}

fn layer_sources(block: &str) -> LayerSources {
    let attention = |part: &str, bias| LinearSource::new(format!("{block}attn.attention.{part}_proj"), bias);
    let mlp = |part: &str| LinearSource::new(format!("{block}mlp.{part}"), true);
    LayerSources {
        ln1: format!("{block}ln_1"),
        q: attention("q", false),
        k: attention("k", false),
        v: attention("v", false),
        o: attention("out", true),
        ln2: format!("{block}ln_2"),
        gate: mlp("c_fc"),
        down: mlp("c_proj"),
        ..LayerSources::default()
    }
}
