//! Gemma, Gemma 2 and Gemma 3: scaled embedding, and norms whose gain is stored minus one. Gemma 2 and 3 also have norms after the
//! sublayers and alternating windows; Gemma 2 has softcaps, Gemma 3 QK-norm and two rotary embeddings.

use super::{
    Family, float_opt, layer_windows,
    llama::{self, Defaults},
    reference::FamilyReference,
    ropes_by_kind, unembedding,
};
use crate::{
    architecture::{Architecture, NormKind, QkNorm, rope::Rope},
    checkpoint::Checkpoint,
    config::Config,
    error::LoadError,
    ops::activation::Activation,
    sources::{LayerSources, LinearSource},
};
use residuum_domain::WarningCode;

const GEMMA: Defaults =
    Defaults { activation_key: "hidden_activation", activation: "gelu_pytorch_tanh", ..Defaults::LLAMA };

/// Gemma.
pub fn gemma(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let mut a = architecture(config, checkpoint, &Defaults { activation_key: "hidden_act", ..GEMMA })?;
    // The first releases say "gelu" and mean the tanh approximation.
    if a.activation == Activation::Gelu {
        a.activation = Activation::GeluTanh;
    }
    let bias = config.flag("attention_bias")?;
    Ok(llama::named(a, checkpoint, move |block| llama::layer_sources(block, [bias; 4], false)))
}

/// Gemma 2.
pub fn gemma2(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let mut a = architecture(config, checkpoint, &GEMMA)?;
    a.score_softcap = softcap(config, "attn_logit_softcapping")?;
    set_softcap(config, &mut a)?;
    set_scale(config, &mut a)?;
    let window = config.count_opt("sliding_window")?;
    set_windows(config, &mut a, window, |l| l % 2 == 0)?;
    with_post_norms(config, a, checkpoint)
}

/// Gemma 3, text only.
pub fn gemma3(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    // Declared and written by transformers 5, but never read.
    config.unread(&["attn_logit_softcapping"]);
    config.ignore(&["_sliding_window_pattern"]);
    let period = config.count_opt("sliding_window_pattern")?.unwrap_or(6);
    let mut a = architecture(config, checkpoint, &Defaults { ropes: two_ropes, ..GEMMA })?;
    a.qk_norm = Some(QkNorm::PerHead);
    set_scale(config, &mut a)?;
    set_softcap(config, &mut a)?;
    let window = config.count_opt("sliding_window")?;
    set_windows(config, &mut a, window, |l| !(l + 1).is_multiple_of(period))?;
    a.layers.iter_mut().for_each(|layer| layer.rope = Some(usize::from(layer.window.is_some())));
    with_post_norms(config, a, checkpoint)
}

/// Keys of a multimodal configuration that are about images.
const OF_IMAGES: &[&str] = &[
    "boi_token_id",
    "boi_token_index",
    "eoi_token_id",
    "eoi_token_index",
    "image_token_id",
    "image_token_index",
    "mm_tokens_per_image",
    "vision_config",
];

/// The text part of a multimodal Gemma 3.
pub fn gemma3_of_images(config: &Config, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    config.ignore(OF_IMAGES);
    let text = config.object_opt("text_config")?.ok_or_else(|| config.refuse("text_config", "is missing"))?;
    text.only("model_type", "gemma3_text")?;
    let text = match FamilyReference::of("gemma3_text") {
        Some(reference) => text.of_family(reference)?,
        None => text,
    };
    let tied = config.flag("tie_word_embeddings")?;
    let Family { mut architecture, mut sources, .. } = gemma3(&text, checkpoint)?;
    text.finish()?;
    let nested = "language_model.lm_head";
    let head = if checkpoint.has(&format!("{nested}.weight")) { nested } else { "lm_head" };
    sources.unembed = LinearSource::new(head, false);
    if architecture.unembedding.is_some_and(|u| u.softcap.is_some()) {
        let detail = "`text_config.final_logit_softcapping` is set; transformers does not read it in a multimodal model, and it is ignored";
        text.warnings().add(WarningCode::UnknownConfigKey, detail);
    }
    architecture.unembedding = unembedding(config, checkpoint, head, tied)?;
    architecture.model_type = config.text_or("model_type", "gemma3")?;
    Ok(Family::new(architecture, sources))
}

/// The rotary embeddings of full and of sliding layers.
fn two_ropes(config: &Config, d_head: usize) -> Result<Vec<Rope>, LoadError> {
    let old = config.rope_opt("rope_scaling")?;
    ropes_by_kind(config, d_head, ["rope_theta", "rope_local_base_freq"], [old.as_ref(), None])
}

fn architecture(config: &Config, checkpoint: &Checkpoint, defaults: &Defaults) -> Result<Architecture, LoadError> {
    if config.flag("use_bidirectional_attention")? {
        return Err(config.refuse("use_bidirectional_attention", "is true; only causal attention is understood"));
    }
    let mut a = llama::architecture(config, checkpoint, defaults)?;
    if let NormKind::Rms { gain_offset, .. } = &mut a.norm {
        *gain_offset = 1.0;
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a width is small")]
    let scale = (a.d_model as f64).sqrt() as f32;
    a.embedding.scale = Some(scale);
    Ok(a)
}

#[expect(clippy::cast_possible_truncation, reason = "the forward pass computes in float32")]
fn set_scale(config: &Config, a: &mut Architecture) -> Result<(), LoadError> {
    let scalar = config.number_or("query_pre_attn_scalar", 256.0)?;
    if scalar <= 0.0 {
        return Err(config.refuse("query_pre_attn_scalar", format!("is {scalar}, not a positive number")));
    }
    a.attention_scale = scalar.powf(-0.5) as f32;
    Ok(())
}

/// A softcap. It must not be 0, since logits are divided by it.
fn softcap(config: &Config, key: &str) -> Result<Option<f32>, LoadError> {
    match float_opt(config, key)? {
        Some(0.0) => Err(config.refuse(key, "is 0; logits are divided by it")),
        cap => Ok(cap),
    }
}

fn set_softcap(config: &Config, a: &mut Architecture) -> Result<(), LoadError> {
    let cap = softcap(config, "final_logit_softcapping")?;
    if let Some(unembedding) = &mut a.unembedding {
        unembedding.softcap = cap;
    }
    Ok(())
}

fn set_windows(
    config: &Config,
    a: &mut Architecture,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<(), LoadError> {
    let windows = layer_windows(config, a.layers.len(), window, slides)?;
    a.layers.iter_mut().zip(windows).for_each(|(layer, window)| layer.window = window);
    Ok(())
}

/// Norms before and after each sublayer.
fn with_post_norms(config: &Config, mut a: Architecture, checkpoint: &Checkpoint) -> Result<Family, LoadError> {
    let bias = config.flag("attention_bias")?;
    for layer in &mut a.layers {
        (layer.ln1_post, layer.ln2_post) = (true, true);
    }
    Ok(llama::named(a, checkpoint, move |block| LayerSources {
        ln2: format!("{block}pre_feedforward_layernorm"),
        ..llama::layer_sources(block, [bias; 4], false)
    }))
}
