//! Families: each reads the configuration of one kind of model, and returns its [`Architecture`] and where its weights are. A family
//! reads keys and names tensors; it must not compute anything.

mod bert;
mod bloom;
mod distilbert;
mod experts;
mod falcon;
mod gemma;
mod gguf;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gptj;
mod granite;
mod llama;
mod masked_lm;
mod mistral;
mod mixtral;
mod modernbert;
mod olmo;
mod olmoe;
mod opt;
mod phi;
mod phi3;
mod qwen;
mod qwen_moe;
pub mod reference;
mod size;
mod smollm3;
mod stablelm;
mod starcoder2;

use super::{
    architecture::{Architecture, NormKind, Unembedding, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LayerSources, Sources},
};
use residuum_domain::Warnings;

pub use gguf::from_gguf;
use reference::FamilyReference;
use size::SizeKeys;

/// What a family found out about a checkpoint.
pub struct Family {
    /// What the model computes.
    pub architecture: Architecture,
    /// Where the model's weights are.
    pub sources: Sources,
    /// Warnings about the checkpoint.
    pub warnings: Warnings,
}

impl Family {
    /// A family without warnings.
    fn new(architecture: Architecture, sources: Sources) -> Self {
        Self { architecture, sources, warnings: Warnings::default() }
    }
}

/// Reads the configuration of one family.
type Understand = fn(&Config, &Checkpoint) -> Result<Family, LoadError>;

/// The `model_type`s that can be loaded from a Hugging Face folder, and the functions that read them.
const FAMILIES: &[(&str, Understand)] = &[
    ("bert", bert::bert),
    ("bloom", bloom::family),
    ("distilbert", distilbert::family),
    ("falcon", falcon::family),
    ("gemma", gemma::gemma),
    ("gemma2", gemma::gemma2),
    ("gemma3", gemma::gemma3_of_images),
    ("gemma3_text", gemma::gemma3),
    ("gpt2", gpt2::family),
    ("gpt_neo", gpt_neo::family),
    ("gpt_neox", gpt_neox::family),
    ("gptj", gptj::family),
    ("granite", granite::family),
    ("llama", llama::family),
    ("mistral", mistral::family),
    ("mixtral", mixtral::family),
    ("modernbert", modernbert::family),
    ("olmo", olmo::olmo),
    ("olmo2", olmo::olmo2),
    ("olmoe", olmoe::family),
    ("opt", opt::family),
    ("phi", phi::family),
    ("phi3", phi3::family),
    ("qwen2", qwen::qwen2),
    ("qwen2_moe", qwen_moe::qwen2),
    ("qwen3", qwen::qwen3),
    ("qwen3_moe", qwen_moe::qwen3),
    ("roberta", bert::roberta),
    ("smollm3", smollm3::family),
    ("stablelm", stablelm::family),
    ("starcoder2", starcoder2::family),
];

fn model_type(config: &Config) -> Result<String, LoadError> {
    config.text_opt("model_type")?.ok_or_else(|| config.refuse("model_type", "is missing"))
}

/// The configuration, with the defaults of the reference's class for its `model_type`.
///
/// # Errors
/// When it has no `model_type`, or two spellings of a key disagree.
pub fn with_defaults(config: Config) -> Result<Config, LoadError> {
    match FamilyReference::of(&model_type(&config)?) {
        Some(reference) => config.of_family(reference),
        None => Ok(config),
    }
}

/// Reads a Hugging Face configuration that [`with_defaults`] returned.
///
/// # Errors
/// When the family or one of its options is not supported.
pub fn from_config(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let model_type = model_type(config)?;
    // The formats of quantised Hugging Face checkpoints cannot be read.
    config.only("quantization_config", serde_json::Value::Null)?;
    let Some((_, understand)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
        let names: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let reason = format!("{model_type:?} is not supported; supported are {}", names.join(", "));
        return Err(config.refuse("model_type", reason));
    };
    let family = understand(config, checkpoint)?;
    config.finish()?;
    Ok(Family { warnings: config.warnings().clone(), ..family })
}

/// Reads the activation under `key`, in transformers' spelling.
fn activation(config: &Config, key: &str, default: &str) -> Result<Activation, LoadError> {
    let name = config.text_or(key, default)?;
    Ok(match name.as_str() {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "relu2" => Activation::ReluSquared,
        "quick_gelu" => Activation::QuickGelu,
        other => return Err(config.refuse(key, format!("{other:?} is not understood"))),
    })
}

/// The prefix of the weight names: in checkpoints that were saved with an LM head, it is the name of the base model.
fn weight_prefix(checkpoint: &Checkpoint, base: &str, probe: &str) -> String {
    let prefixed = format!("{base}.");
    // A tied embedding may be stored as the unembedding alone.
    let neither = || !checkpoint.has(probe) && checkpoint.has_below(&prefixed);
    if checkpoint.has(&format!("{prefixed}{probe}")) || neither() { prefixed } else { String::new() }
}

/// Sources of models whose base model is called `transformer` (GPT-2 and others): `embed` is the name of the token embedding, and
/// `layer` gets the prefix of a block and names its weights.
fn transformer_sources(
    checkpoint: &Checkpoint,
    embed: &str,
    layer: impl Fn(&str) -> LayerSources + 'static,
) -> Sources {
    let prefix = weight_prefix(checkpoint, "transformer", &format!("{embed}.weight"));
    let blocks = format!("{prefix}h.");
    let layer = move |l| layer(&format!("{blocks}{l}."));
    Sources::new(format!("{prefix}{embed}.weight"), format!("{prefix}ln_f"), layer)
}

/// Query heads, key/value heads and head width, checked against each other.
fn heads(config: &Config, d_model: usize) -> Result<(usize, usize, usize), LoadError> {
    let n_heads = config.count("num_attention_heads")?;
    let n_kv_heads = config.count_opt("num_key_value_heads")?.unwrap_or(n_heads);
    if !n_heads.is_multiple_of(n_kv_heads) {
        return Err(config.refuse("num_key_value_heads", format!("is {n_kv_heads}, which does not divide {n_heads}")));
    }
    let d_head = match config.count_opt("head_dim")? {
        Some(d) => d,
        None if d_model.is_multiple_of(n_heads) => d_model / n_heads,
        None => {
            return Err(config.refuse("num_attention_heads", format!("is {n_heads}, which does not divide {d_model}")));
        }
    };
    Ok((n_heads, n_kv_heads, d_head))
}

/// The sliding window, if `use_sliding_window` switches it on. If not, its size is ignored and may be 0.
fn switched_window(config: &Config) -> Result<Option<usize>, LoadError> {
    if config.flag("use_sliding_window")? {
        config.count_opt("sliding_window")
    } else {
        config.value("sliding_window");
        Ok(None)
    }
}

/// The limit that queries, keys and values are clamped to.
fn clip(config: &Config) -> Result<Option<f32>, LoadError> {
    match float_opt(config, "clip_qkv")? {
        Some(limit) if limit <= 0.0 => Err(config.refuse("clip_qkv", format!("is {limit}, not a positive number"))),
        limit => Ok(limit),
    }
}

/// The rotary embeddings of full and of sliding layers. `rope_parameters` has their parameters by kind of layer, which `scaling` (the
/// `rope_scaling` of transformers 4) overrides. If neither has a base, it is under `theta_keys`.
fn ropes_by_kind(
    config: &Config,
    d_head: usize,
    theta_keys: [&str; 2],
    scaling: [Option<&Config>; 2],
) -> Result<Vec<Rope>, LoadError> {
    let by_kind = config.object_opt("rope_parameters")?;
    let partial = config.number_or("partial_rotary_factor", 1.0)?;
    let kinds = [("full_attention", "global"), ("sliding_attention", "local")];
    let mut ropes = Vec::with_capacity(kinds.len());
    for (((kind, reach), theta_key), over) in kinds.into_iter().zip(theta_keys).zip(scaling) {
        let own = by_kind.as_ref().map(|all| all.rope_opt(kind)).transpose()?.flatten();
        let parameters = match over {
            Some(over) => Some(own.unwrap_or_else(|| config.default_rope("rope_scaling")).overlaid(over)),
            None => own,
        };
        let default = config.reference().and_then(|reference| reference.theta(Some(reach)));
        let theta = config.number_or(theta_key, default.unwrap_or(10_000.0))?;
        ropes.push(Rope::from_parameters(config, parameters.as_ref(), d_head, theta, partial)?);
    }
    by_kind.map_or(Ok(()), |all| all.finish())?;
    Ok(ropes)
}

/// The sliding window of each layer, as `layer_types` says; without that key, as `slides` says.
fn layer_windows(
    config: &Config,
    n_layers: usize,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, LoadError> {
    let Some(types) = config.texts_opt("layer_types")? else {
        return Ok((0..n_layers).map(|l| window.filter(|_| slides(l))).collect());
    };
    if types.len() != n_layers {
        return Err(config.refuse("layer_types", format!("has {} entries for {n_layers} layers", types.len())));
    }
    let of = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(None),
        "sliding_attention" => match window {
            Some(window) => Ok(Some(window)),
            None => Err(config.refuse("sliding_window", "is missing, but `layer_types` has sliding layers")),
        },
        other => Err(config.refuse("layer_types", format!("{other:?} is not understood"))),
    };
    types.iter().map(of).collect()
}

/// The unembedding that is stored as `name`; `None` if the checkpoint is a base model without an LM head.
fn unembedding(
    config: &Config,
    checkpoint: &Checkpoint,
    name: &str,
    tied: bool,
) -> Result<Option<Unembedding>, LoadError> {
    let architectures = config.texts_opt("architectures")?.unwrap_or_default();
    let heads = ["CausalLM", "LMHead", "ConditionalGeneration"];
    let with_head = |a: &String| heads.iter().any(|head| a.contains(head));
    let stored = !tied && checkpoint.has(&format!("{name}.weight"));
    // If no class is named, there is a head if its weights are stored.
    let base_only = if architectures.is_empty() { !tied && !stored } else { !architectures.iter().any(with_head) };
    Ok((!base_only || stored).then(|| Unembedding { tied, ..Unembedding::default() }))
}

/// A norm's epsilon.
#[expect(clippy::cast_possible_truncation, reason = "the forward pass computes in float32")]
fn epsilon(config: &Config, key: &str, default: f64) -> Result<f32, LoadError> {
    let eps = config.number_or(key, default)?;
    if eps < 0.0 {
        return Err(
            config.refuse(key, format!("is {eps}; a variance and it have a square root only if it is not negative"))
        );
    }
    Ok(eps as f32)
}

/// Layer norms with gain and bias, and the epsilon under `key`.
fn layer_norm(config: &Config, key: &str) -> Result<NormKind, LoadError> {
    Ok(NormKind::Layer { eps: epsilon(config, key, 1e-5)?, gain: true, bias: true })
}

/// An optional float32.
#[expect(clippy::cast_possible_truncation, reason = "the forward pass computes in float32")]
fn float_opt(config: &Config, key: &str) -> Result<Option<f32>, LoadError> {
    Ok(config.number_opt(key)?.map(|v| v as f32))
}
