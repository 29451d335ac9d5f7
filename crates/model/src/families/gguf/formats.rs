//! The architectures of GGUF files: which family reads each, and where its keys or tensors differ from the others.
//!
//! What no key says is as in llama.cpp (`conversion/*.py` writes the files, `src/llama-model.cpp` reads them).

use super::draft::Draft;
use crate::{
    checkpoint::{GgufFile, MetadataValue},
    error::LoadError,
};

/// One `general.architecture`.
pub struct Format {
    /// Its name, and the prefix of its keys.
    pub name: &'static str,
    /// The `model_type` of the family that reads it.
    pub model_type: &'static str,
    /// Keys with their spelling in `config.json`, where they differ from those of most architectures.
    pub keys: &'static [(&'static str, &'static str)],
    /// Whether rows of W_Q and W_K are stored in the order of interleaved rotary pairs.
    pub interleaved: bool,
    /// Adds keys that follow from tensors, from several keys, or from a rule.
    pub implied: fn(&GgufFile, &mut Draft) -> Result<(), LoadError>,
    /// Keys that `implied` reads, or ignores in favour of the tensors.
    pub implied_keys: &'static [&'static str],
}

/// An architecture with RMS norms, keys like Llama's, and rotary pairs half a head apart.
const PLAIN: Format = Format {
    name: "",
    model_type: "",
    keys: &[RMS_EPS],
    interleaved: false,
    implied: |_, _| Ok(()),
    implied_keys: &[],
};

const RMS_EPS: (&str, &str) = ("attention.layer_norm_rms_epsilon", "rms_norm_eps");
const LAYER_EPS: (&str, &str) = ("attention.layer_norm_epsilon", "layer_norm_eps");
const WINDOW: (&str, &str) = ("attention.sliding_window", "sliding_window");
const FINAL_CAP: (&str, &str) = ("final_logit_softcapping", "final_logit_softcapping");

/// The architectures that can be loaded.
pub const FORMATS: &[Format] = &[
    Format { name: "gemma", model_type: "gemma", ..PLAIN },
    Format {
        name: "gemma2",
        model_type: "gemma2",
        keys: &[RMS_EPS, WINDOW, FINAL_CAP, ("attn_logit_softcapping", "attn_logit_softcapping")],
        implied: gemma2,
        ..PLAIN
    },
    Format {
        name: "gemma3",
        model_type: "gemma3_text",
        keys: &[RMS_EPS, WINDOW, FINAL_CAP, ("rope.freq_base_swa", "rope_local_base_freq")],
        implied: |_, draft| query_scale(draft, GEMMA3_27B_BLOCKS),
        ..PLAIN
    },
    Format {
        name: "gpt2",
        model_type: "gpt2",
        keys: &[
            ("context_length", "n_positions"),
            ("block_count", "n_layer"),
            ("embedding_length", "n_embd"),
            ("feed_forward_length", "n_inner"),
            ("attention.head_count", "n_head"),
            ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        ],
        ..PLAIN
    },
    Format {
        name: "gptneox",
        model_type: "gpt_neox",
        keys: &[LAYER_EPS, ("use_parallel_residual", "use_parallel_residual")],
        ..PLAIN
    },
    Format {
        name: "granite",
        model_type: "granite",
        keys: &[
            RMS_EPS,
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        ],
        interleaved: true,
        ..PLAIN
    },
    Format {
        name: "llama",
        model_type: "llama",
        keys: &[RMS_EPS, WINDOW],
        interleaved: true,
        implied: mistral,
        ..PLAIN
    },
    Format {
        name: "olmo",
        model_type: "olmo",
        keys: &[("attention.clamp_kqv", "clip_qkv")],
        interleaved: true,
        implied: olmo,
        implied_keys: &["attention.layer_norm_epsilon"],
    },
    Format { name: "olmo2", model_type: "olmo2", ..PLAIN },
    Format { name: "phi2", model_type: "phi", keys: &[LAYER_EPS], ..PLAIN },
    Format {
        name: "phi3",
        model_type: "phi3",
        keys: &[RMS_EPS, WINDOW, ("rope.scaling.original_context_length", "original_max_position_embeddings")],
        implied: long_rope,
        implied_keys: &["rope.scaling.attn_factor"],
        ..PLAIN
    },
    Format { name: "qwen2", model_type: "qwen2", ..PLAIN },
    Format { name: "qwen3", model_type: "qwen3", ..PLAIN },
    Format { name: "smollm3", model_type: "smollm3", interleaved: true, ..PLAIN },
    Format {
        name: "stablelm",
        model_type: "stablelm",
        keys: &[LAYER_EPS],
        implied: stablelm,
        implied_keys: &["use_parallel_residual"],
        ..PLAIN
    },
    Format {
        name: "starcoder2",
        model_type: "starcoder2",
        keys: &[("attention.layer_norm_epsilon", "norm_epsilon")],
        ..PLAIN
    },
];

/// Number of blocks of Gemma 2 27B and of Gemma 3 27B, which scale scores by `d_model / n_heads` instead of `d_head`.
const GEMMA2_27B_BLOCKS: u64 = 46;
const GEMMA3_27B_BLOCKS: u64 = 62;

fn gemma2(_: &GgufFile, draft: &mut Draft) -> Result<(), LoadError> {
    query_scale(draft, GEMMA2_27B_BLOCKS)
}

/// The files do not have `query_pre_attn_scalar`: it is the width of a head in all sizes but one.
fn query_scale(draft: &mut Draft, blocks_of_27b: u64) -> Result<(), LoadError> {
    let scalar = if draft.count("num_hidden_layers") == blocks_of_27b {
        draft.count("hidden_size").checked_div(draft.count("num_attention_heads")).unwrap_or_default()
    } else {
        draft.d_head()
    };
    draft.config.insert("query_pre_attn_scalar".to_owned(), scalar.into());
    Ok(())
}

/// A llama with a sliding window is a Mistral.
fn mistral(_: &GgufFile, draft: &mut Draft) -> Result<(), LoadError> {
    if draft.config.get("sliding_window").is_some_and(|window| !window.is_null()) {
        draft.config.insert("model_type".to_owned(), "mistral".into());
    }
    Ok(())
}

/// The sizes of StableLM differ in biases and in the second norm, so look at the tensors. The key for the parallel residual cannot
/// be used: it is true by mistake in files whose configuration did not have it.
fn stablelm(file: &GgufFile, draft: &mut Draft) -> Result<(), LoadError> {
    let has = |name: &str| file.checkpoint().has(name);
    draft.config.insert("use_qkv_bias".to_owned(), has("blk.0.attn_q.bias").into());
    draft.config.insert("use_parallel_residual".to_owned(), (!has("blk.0.ffn_norm.weight")).into());
    Ok(())
}

/// OLMo's epsilon is fixed.
fn olmo(file: &GgufFile, _: &mut Draft) -> Result<(), LoadError> {
    let key = "olmo.attention.layer_norm_epsilon";
    match file.metadata().get(key).and_then(MetadataValue::number).and_then(|v| v.as_f64()) {
        Some(eps) if (eps - 1e-5).abs() < 1e-10 => Ok(()),
        _ => Err(file.refuse(key, "is not 1e-5, the only one that is understood")),
    }
}

/// Phi-3's factors for long and short inputs are tensors.
fn long_rope(file: &GgufFile, draft: &mut Draft) -> Result<(), LoadError> {
    let (checkpoint, key) = (file.checkpoint(), "phi3.rope.scaling.attn_factor");
    let factor = match file.metadata().get(key) {
        None => None,
        Some(value) => Some(value.number().ok_or_else(|| file.refuse(key, "is not a number"))?),
    };
    if !checkpoint.has("rope_factors_long.weight") {
        return match factor {
            None => Ok(()),
            Some(_) => Err(file.refuse(key, "is not understood without `rope_factors_long.weight`")),
        };
    }
    draft.rope.insert("rope_type".to_owned(), "longrope".into());
    if let Some(factor) = factor {
        draft.rope.insert("attention_factor".to_owned(), factor);
    }
    for (name, spelled) in [("rope_factors_long.weight", "long_factor"), ("rope_factors_short.weight", "short_factor")]
    {
        let shape = checkpoint.shape(name).unwrap_or_default();
        let factors = checkpoint.whole(name, shape)?;
        draft.rope.insert(spelled.to_owned(), factors.into_iter().map(f64::from).collect());
    }
    Ok(())
}
