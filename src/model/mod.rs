//! From a checkpoint to an instrumented transformer.
//!
//! [`Model::load`] opens a Hugging Face folder, a GGUF file or a hub name; [`Model::forward`] runs a packed batch and
//! hands the tensors asked for to a [`CaptureSink`]. The module knows checkpoints, tokens and tensors; it knows
//! nothing of HTTP, queues or the store.

pub mod error;
pub mod tokenizer;

use std::{ops::Range, path::PathBuf, sync::Arc};

pub use error::{ForwardError, LoadError};
pub use tokenizer::{Encoded, TextTokenizer};

use crate::domain::{ModelInfo, PackLayout, Rows};

/// Version of the numbers: raised whenever a change may alter a captured value, so that stored results of older
/// versions are not taken for new ones.
pub const NUMERICS_VERSION: u32 = 1;

/// How checkpoints are found.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Never download; a hub name must then be in the local hub cache. `HF_HUB_OFFLINE=1` means the same.
    pub offline: bool,
    /// Hub cache folder, instead of `HF_HUB_CACHE`, `HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub hub_cache: Option<PathBuf>,
}

/// One input of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its tokens, BOS included, at least one.
    pub token_ids: &'a [u32],
    /// The rows to keep of every captured tensor.
    pub rows: &'a Rows,
}

/// Inputs that run together, and where their tensors go.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The inputs; `layout.items[i]` belongs to `inputs[i]`.
    pub inputs: &'a [Input<'a>],
    /// The hooks to capture.
    pub layout: &'a PackLayout,
}

/// Takes the captured tensors.
pub trait CaptureSink {
    /// The float32 values of hook `hook` (an index into `layout.hooks`) for the consecutive items `items`.
    ///
    /// Hooks come in the order of `layout.hooks`, the items of a hook in ascending order, each item once and whole.
    /// Rows lie one after the other as [`PackLayout`] describes.
    ///
    /// # Errors
    /// Whatever keeps the values from being taken; it ends the forward pass.
    fn write(
        &mut self,
        hook: usize,
        items: Range<usize>,
        values: &[f32],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Model {
    info: ModelInfo,
    tokenizer: Arc<TextTokenizer>,
}

impl Model {
    /// Loads a checkpoint.
    ///
    /// `path_or_hub` is a Hugging Face folder, a `.gguf` file, or a hub name `org/name` (local hub cache first, then
    /// a download).
    ///
    /// # Errors
    /// [`LoadError`] naming the file and what is wrong with it.
    pub fn load(id: &str, path_or_hub: &str, options: &LoadOptions) -> Result<Self, LoadError> {
        let _ = options;
        Err(LoadError::new(path_or_hub, format!("{id} cannot be loaded by this build")))
    }

    /// What the rest of the server needs to know.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The tokenizer, shared with request handlers.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// Runs the packed batch and hands every captured tensor to the sink, hook by hook in the order of
    /// `layout.hooks`. It stops after the last layer needed. `cancelled` is asked before every layer.
    ///
    /// # Errors
    /// [`ForwardError::Cancelled`], an error of the sink, or a batch that does not fit the model.
    pub fn forward(
        &self,
        batch: &Batch<'_>,
        sink: &mut dyn CaptureSink,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        let _ = (batch, sink, cancelled);
        Err(ForwardError::Failed("this build cannot run a forward pass".to_owned()))
    }
}
