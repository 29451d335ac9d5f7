//! Sparse autoencoders in responses.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::api::dto::{
    serving::{ReadyStatus, ServingDto, UnreadyStatus},
    warning::WarningDto,
};
use residuum_engine::questions::sae::catalogue::{Kind, Normalization, SaeDescription, Settings};

fn example() -> Value {
    json!({
        "id": "res-12", "model": "smollm2-135m", "status": "ready", "source": "saes/layer_12",
        "at_run_time": true, "memory_bytes": 75_563_008, "progress": null, "error": null, "architecture": "topk", "hook": "blocks.12.hook_resid_post", "layer": 12,
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

/// A sparse autoencoder of a model; `status` decides what is known about it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Sae, example = example, discriminator(property_name = "status", mapping(
    ("ready" = "#/components/schemas/ReadySae"),
    ("loading" = "#/components/schemas/UnreadySae"),
    ("unloading" = "#/components/schemas/UnreadySae"),
    ("failed" = "#/components/schemas/UnreadySae")
)))]
pub enum SaeDto {
    /// It answers questions.
    Ready(Box<ReadySae>),
    /// It answers no questions.
    Unready(Box<UnreadySae>),
}

/// A sparse autoencoder that is loaded.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(example = example)]
pub struct ReadySae {
    /// The name that clients use.
    id: String,
    /// The model that it belongs to.
    model: String,
    /// `ready`.
    #[schema(value_type = ReadyStatus)]
    status: &'static str,
    /// How it is served.
    #[serde(flatten)]
    serving: ServingDto,
    /// What its `cfg.json` says.
    #[serde(flatten)]
    details: SaeDetails,
    /// blake3 of weights and settings.
    fingerprint: String,
    /// Whether the mean of each row is subtracted first, which has the effect of centred writing weights.
    centred: bool,
    /// What is unusual: missing settings in `cfg.json`, and keys that were ignored.
    warnings: Vec<WarningDto>,
}

/// A sparse autoencoder that is being loaded or unloaded, or could not be loaded.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct UnreadySae {
    /// The name that clients use.
    id: String,
    /// The model that it belongs to.
    model: String,
    /// `loading`, `unloading` or `failed`.
    #[schema(value_type = UnreadyStatus)]
    status: &'static str,
    /// How it is served.
    #[serde(flatten)]
    serving: ServingDto,
    /// What is unusual, as far as its files were read.
    warnings: Vec<WarningDto>,
}

/// What the `cfg.json` of an autoencoder says.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct SaeDetails {
    /// `standard`, `jumprelu`, `topk` or `gated`.
    #[schema(value_type = SaeArchitecture)]
    architecture: &'static str,
    /// The hook whose rows it encodes.
    hook: String,
    /// Layer of the hook.
    layer: Option<usize>,
    /// Width of its input.
    d_in: usize,
    /// Number of features.
    d_sae: usize,
    /// Settings in its `cfg.json`.
    settings: SaeSettings,
}

/// How an autoencoder computes its features.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes `architecture` for the specification")]
enum SaeArchitecture {
    /// ReLU.
    Standard,
    /// ReLU with a threshold for each feature.
    JumpRelu,
    /// The `k` largest.
    TopK,
    /// A gate and a magnitude for each feature.
    Gated,
}

/// Settings with their names and values in `cfg.json`; null if it does not have them.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct SaeSettings {
    /// For `topk`: maximum number of active features.
    k: Option<usize>,
    /// For `topk`: whether activations are multiplied by the lengths of the decoder rows.
    rescale_acts_by_decoder_norm: Option<bool>,
    /// The head it was trained on; null for all heads concatenated, or a hook without heads.
    hook_head_index: Option<usize>,
    /// Normalisation of a row before encoding, undone in the reconstruction.
    normalize_activations: &'static str,
    /// The factor of `expected_average_only_in`, if it is not folded into the weights.
    scaling_factor: Option<f32>,
    /// Whether the decoder's bias is subtracted from the input.
    apply_b_dec_to_input: bool,
    /// Whether each activation has its own factor in the decoder.
    finetuning_scaling_factor: bool,
    /// Whether texts began with a BOS token in training.
    prepend_bos: Option<bool>,
    /// Whether the parameters of norms were folded into the weights after them.
    fold_ln: Option<bool>,
    /// Whether weights that write to the residual stream were centred, so that what they write has mean zero.
    center_writing_weights: Option<bool>,
    /// Whether the biases of values were folded into the output bias of attention.
    fold_value_biases: Option<bool>,
    /// The model it was trained on.
    model_name: Option<String>,
    /// Number of tokens of a text in training.
    context_size: Option<usize>,
    /// Positions of a text used in training, as start, stop and step of a Python slice; null for all.
    #[schema(value_type = Option<Vec<i64>>)]
    seqpos_slice: Option<Value>,
    /// Tokens it was not trained on: true for special tokens, or a list of ids; null if it was trained on all. By
    /// default requests leave these tokens out.
    #[schema(value_type = Option<ExcludedTokensSchema>)]
    exclude_special_tokens: Option<Value>,
    /// Type of its weights in training; the server computes in float32.
    dtype: Option<String>,
    /// Version of SAELens that wrote the file; before version 6 only some files have it.
    sae_lens_version: Option<String>,
    /// Version of SAELens that trained it.
    sae_lens_training_version: Option<String>,
}

/// True for the special tokens of the model's tokenizer, or a list of token ids.
#[derive(Serialize, ToSchema)]
#[schema(as = ExcludedTokens, example = true)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes ExcludedTokens for the specification")]
enum ExcludedTokensSchema {
    /// Special tokens.
    Special(bool),
    /// Token ids.
    Listed(Vec<u32>),
}

/// An event of an autoencoder.
#[derive(Serialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes the stream for the specification")]
pub enum SaeEvent {
    /// The autoencoder, now and after every change.
    Sae(SaeDto),
}

/// A list of sparse autoencoders.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Saes, example = example_of_several)]
pub struct SaesDto {
    /// The autoencoders, by name.
    pub items: Vec<SaeDto>,
    /// Always null: all fit on one page.
    pub next_cursor: Option<String>,
}

impl From<SaeDescription> for SaeDto {
    fn from(sae: SaeDescription) -> Self {
        let SaeDescription { id, model, settings, loaded, warnings, serving } = sae;
        let (status, serving) = (serving.status, ServingDto::from(serving));
        let warnings = WarningDto::list(&warnings);
        match (settings, loaded) {
            (Some(settings), Some(loaded)) if status == "ready" => Self::Ready(Box::new(ReadySae {
                id,
                model,
                status,
                serving,
                details: settings.into(),
                fingerprint: loaded.fingerprint,
                centred: loaded.centred,
                warnings,
            })),
            _ => Self::Unready(Box::new(UnreadySae { id, model, status, serving, warnings })),
        }
    }
}

impl From<Settings> for SaeDetails {
    fn from(settings: Settings) -> Self {
        Self {
            architecture: settings.kind.name(),
            hook: settings.hook.to_string(),
            layer: settings.hook.layer(),
            d_in: settings.d_in,
            d_sae: settings.d_sae,
            settings: settings.into(),
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
