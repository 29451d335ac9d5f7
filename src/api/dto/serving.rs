//! How models and autoencoders are loaded and unloaded, in requests and responses.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::error::ProblemDto;
use residuum_engine::questions::served_models::{LoadSnapshot, ServingState};

/// How a model or autoencoder is served.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Serving)]
pub struct ServingDto {
    /// Where a request loaded it from; null for one of the server's flags, and for an upload.
    pub source: Option<String>,
    /// Whether a request loaded it, now or before a restart; false for one of the server's flags.
    pub at_run_time: bool,
    /// Estimated bytes of memory that it takes; null if they are not known.
    pub memory_bytes: Option<u64>,
    /// How far its load has come; null unless it is being loaded.
    pub progress: Option<LoadProgressDto>,
    /// Why it could not be loaded; null unless it failed.
    pub error: Option<ProblemDto>,
}

/// The status of a model or autoencoder that takes requests.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes `status` for the specification")]
pub enum ReadyStatus {
    /// It takes requests.
    Ready,
}

/// The status of a model or autoencoder that takes no requests.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes `status` for the specification")]
pub enum UnreadyStatus {
    /// It is being loaded.
    Loading,
    /// Accepted work ends first, then its memory is freed.
    Unloading,
    /// It could not be loaded; `error` says why.
    Failed,
}

/// What a load does now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes `stage` for the specification")]
pub enum LoadStageName {
    /// Another load runs.
    Queued,
    /// Files come from the hub.
    Downloading,
    /// Files are read and hashed.
    Reading,
    /// Weights are converted.
    Weights,
    /// Weights are copied to devices.
    Placing,
    /// The load has ended.
    Ready,
}

/// How far a load has come.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LoadProgress, example = json!({"stage": "weights", "bytes_done": 41_943_040, "bytes_total": 98_566_144}))]
pub struct LoadProgressDto {
    /// `queued` (another load runs), `downloading`, `reading` (files are hashed), `weights`, `placing` (on devices) or
    /// `ready`.
    #[schema(value_type = LoadStageName)]
    pub stage: &'static str,
    /// Bytes of this stage that are done.
    pub bytes_done: u64,
    /// Bytes of this stage; 0 if they are not known.
    pub bytes_total: u64,
}

impl From<LoadSnapshot> for LoadProgressDto {
    fn from(now: LoadSnapshot) -> Self {
        Self { stage: now.stage.name(), bytes_done: now.bytes_done, bytes_total: now.bytes_total }
    }
}

impl From<ServingState> for ServingDto {
    fn from(state: ServingState) -> Self {
        Self {
            source: state.source,
            at_run_time: state.at_run_time,
            memory_bytes: state.memory_bytes,
            progress: state.progress.map(Into::into),
            error: state.error.map(Into::into),
        }
    }
}

/// A model to load.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "smollm2-135m", "source": "SmolLM2-135M-Instruct.Q4_1.gguf"}))]
pub struct LoadModel {
    /// The name to use in requests: 1 to 100 letters, digits, dots, dashes and underscores, the first not a dot.
    pub id: String,
    /// The path of a Hugging Face folder or a `.gguf` file in the folder `--models-dir`; or a hub name, `org/name`, if
    /// the server was started with `--allow-hub`.
    pub source: String,
    /// Load it even if there does not seem to be enough memory.
    #[schema(default = false)]
    pub force: Option<bool>,
}

/// An autoencoder to load.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "res-12", "model": "smollm2-135m", "source": "saes/layer_12"}))]
pub struct LoadSae {
    /// The name to use in requests, as that of a model.
    pub id: String,
    /// The model that it belongs to, which must be loaded.
    pub model: String,
    /// The path of a folder with `cfg.json` and `sae_weights.safetensors` in the folder `--models-dir`.
    pub source: String,
    /// Load it even if there does not seem to be enough memory.
    #[schema(default = false)]
    pub force: Option<bool>,
}

/// An autoencoder to upload and load.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read field by field")]
pub struct UploadSae {
    /// The name to use in requests, as that of a model.
    pub id: String,
    /// The model that it belongs to, which must be loaded.
    pub model: String,
    /// `cfg.json`.
    #[schema(value_type = String, content_media_type = "application/json")]
    pub cfg: Vec<u8>,
    /// `sae_weights.safetensors`. It is streamed to the data folder, and may have as many bytes as an import.
    #[schema(value_type = String, content_media_type = "application/octet-stream")]
    pub weights: Vec<u8>,
    /// Load it even if there does not seem to be enough memory.
    #[schema(default = false)]
    pub force: Option<bool>,
}

/// How long to wait for a load.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LoadQuery {
    /// Seconds to wait for the load to end, at most 600. If it ends in that time, the response has status 201.
    #[param(minimum = 0, maximum = 600, example = 60)]
    pub wait: Option<f64>,
}

/// How a model is unloaded.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UnloadModelQuery {
    /// Seconds to wait until it is gone, at most 600.
    #[param(minimum = 0, maximum = 600, example = 60)]
    pub wait: Option<f64>,
    /// Cancel the runs of the model that have not ended, of all tenants, instead of computing them first.
    #[param(default = false)]
    pub cancel_runs: Option<bool>,
}

/// How an autoencoder is unloaded.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UnloadSaeQuery {
    /// Seconds to wait until it is gone, at most 600.
    #[param(minimum = 0, maximum = 600, example = 60)]
    pub wait: Option<f64>,
}
