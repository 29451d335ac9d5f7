//! Sparse autoencoders as JSON.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::dto::warning::WarningDto;
use residuum_engine::questions::sae::catalogue::{Kind, Normalization, SaeDescription, Settings};

fn example() -> Value {
    json!({
        "id": "res-12", "model": "smollm2-135m", "status": "ready", "architecture": "topk", "hook": "blocks.12.hook_resid_post", "layer": 12,
        "d_in": 576, "d_sae": 16384, "fingerprint": "5e1f8a…",
        "settings": {
            "k": 32, "rescale_acts_by_decoder_norm": true, "hook_head_index": null, "normalize_activations": "none", "scaling_factor": null,
            "apply_b_dec_to_input": true, "finetuning_scaling_factor": false, "prepend_bos": true, "fold_ln": null,
            "center_writing_weights": false, "fold_value_biases": null, "model_name": "HuggingFaceTB/SmolLM2-135M", "context_size": 512,
            "seqpos_slice": null, "exclude_special_tokens": null, "dtype": "float32", "sae_lens_version": "6.5.0",
            "sae_lens_training_version": "6.5.0"
        },
        "centred": false, "warnings": []
    })
}

fn example_of_several() -> Value {
    json!({"items": [example()], "next_cursor": null})
}

/// A sparse autoencoder beside a model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sae, example = example)]
pub struct SaeDto {
    /// The name that clients use.
    id: String,
    /// The model it stands beside.
    model: String,
    /// `loading` or `ready`.
    status: &'static str,
    /// `standard`, `jumprelu`, `topk` or `gated`.
    architecture: &'static str,
    /// The hook whose rows it encodes.
    hook: String,
    /// Its layer.
    layer: Option<usize>,
    /// Numbers it encodes.
    d_in: usize,
    /// Features.
    d_sae: usize,
    /// blake3 of weights and settings; null while it loads.
    fingerprint: Option<String>,
    /// What its `cfg.json` says.
    settings: SaeSettings,
    /// Whether the mean of each row is subtracted first, as centred writing weights would; null while it loads.
    centred: Option<bool>,
    /// What is unusual: what `cfg.json` leaves open, and keys that were passed over.
    warnings: Vec<WarningDto>,
}

/// What `cfg.json` says, in its own words; null where it does not say.
#[derive(Debug, Serialize, ToSchema)]
struct SaeSettings {
    /// Of `topk`: how many features are active at most.
    k: Option<usize>,
    /// Of `topk`: whether activations are measured in lengths of decoder rows.
    rescale_acts_by_decoder_norm: Option<bool>,
    /// The head it was trained on; null: all heads side by side, or a hook without heads.
    hook_head_index: Option<usize>,
    /// What is done to a row first and undone in the reconstruction.
    normalize_activations: &'static str,
    /// The factor of `expected_average_only_in`, where it is not folded into the weights.
    scaling_factor: Option<f32>,
    /// Whether the decoder's bias is subtracted from the input.
    apply_b_dec_to_input: bool,
    /// Whether activations have factors of their own in the decoder.
    finetuning_scaling_factor: bool,
    /// Whether texts began with a BOS token in training.
    prepend_bos: Option<bool>,
    /// Whether norms were folded into the weights behind them.
    fold_ln: Option<bool>,
    /// Whether what is written to the residual stream was given mean zero.
    center_writing_weights: Option<bool>,
    /// Whether biases of values were moved behind the attention.
    fold_value_biases: Option<bool>,
    /// The model it was trained on.
    model_name: Option<String>,
    /// Tokens of a text in training.
    context_size: Option<usize>,
    /// Positions of a text in training, as bounds and step of a Python slice; null: all.
    #[schema(value_type = Option<Vec<i64>>)]
    seqpos_slice: Option<Value>,
    /// Tokens it was not trained on: true for special tokens, or ids; null: trained on all. They are left out where a request
    /// does not say otherwise.
    #[schema(value_type = Option<ExcludedTokensSchema>)]
    exclude_special_tokens: Option<Value>,
    /// Type its weights were trained in; it computes in float32.
    dtype: Option<String>,
    /// The SAELens that wrote the file; before version 6 only some files say.
    sae_lens_version: Option<String>,
    /// The SAELens that trained it.
    sae_lens_training_version: Option<String>,
}

/// True for the special tokens of the model's tokenizer, or the ids of some tokens.
#[derive(Serialize, ToSchema)]
#[schema(as = ExcludedTokens, example = true)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes ExcludedTokens for the specification")]
enum ExcludedTokensSchema {
    /// Special tokens.
    Special(bool),
    /// These.
    Listed(Vec<u32>),
}

/// A list of sparse autoencoders.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Saes, example = example_of_several)]
pub struct SaesDto {
    /// The autoencoders, by name.
    pub items: Vec<SaeDto>,
    /// Always null: there are few.
    pub next_cursor: Option<String>,
}

impl From<SaeDescription> for SaeDto {
    fn from(sae: SaeDescription) -> Self {
        let SaeDescription { id, model, settings, loaded, warnings } = sae;
        Self {
            id,
            model,
            status: if loaded.is_some() { "ready" } else { "loading" },
            architecture: settings.kind.name(),
            hook: settings.hook.to_string(),
            layer: settings.hook.layer(),
            d_in: settings.d_in,
            d_sae: settings.d_sae,
            centred: loaded.as_ref().map(|loaded| loaded.centred),
            fingerprint: loaded.map(|loaded| loaded.fingerprint),
            settings: settings.into(),
            warnings: WarningDto::list(&warnings),
        }
    }
}

impl From<Settings> for SaeSettings {
    fn from(settings: Settings) -> Self {
        let by_rank = match settings.kind {
            Kind::TopK { k, rescale } => Some((k, rescale)),
            _ => None,
        };
        let processing = settings.processing.unwrap_or_default();
        Self {
            k: by_rank.map(|(k, _)| k),
            rescale_acts_by_decoder_norm: by_rank.map(|(_, rescale)| rescale),
            hook_head_index: settings.head,
            normalize_activations: settings.normalization.name(),
            scaling_factor: match settings.normalization {
                Normalization::Scale(factor) => Some(factor),
                _ => None,
            },
            apply_b_dec_to_input: settings.apply_b_dec_to_input,
            finetuning_scaling_factor: settings.finetuned,
            prepend_bos: settings.prepend_bos,
            fold_ln: processing.fold_ln,
            center_writing_weights: processing.center_writing_weights,
            fold_value_biases: processing.fold_value_biases,
            model_name: settings.model_name,
            context_size: settings.context_size,
            seqpos_slice: settings.seqpos_slice,
            exclude_special_tokens: settings.exclude_special_tokens.to_json(),
            dtype: settings.dtype,
            sae_lens_version: settings.sae_lens_version,
            sae_lens_training_version: settings.sae_lens_training_version,
        }
    }
}
