//! From a checkpoint to an instrumented transformer.
//!
//! [`Model::load`] opens a Hugging Face folder, a GGUF file or a hub name; [`Model::forward`] runs a packed batch and
//! hands the tensors asked for to a [`CaptureSink`]; [`sae::Sae`] encodes rows of one hook to features. The module knows checkpoints, tokens and tensors; it knows
//! nothing of HTTP, queues or the store.

mod architecture;
mod capture;
mod checkpoint;
mod config;
mod cpu;
mod device;
mod end_tokens;
pub mod error;
mod families;
mod fingerprint;
pub mod generate;
mod hub;
mod leftovers;
mod model_info;
pub mod ops;
mod packing;
pub mod patching;
mod python_json;
mod readout;
pub mod sae;
mod sources;
pub mod tokenizer;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use device::{ComputeDtype, Placement, Placements};
pub use error::{ForwardError, LoadError};
pub use readout::{FrozenNorm, LinearReading, Readout};
pub use tokenizer::{ChatEnd, Encoded, GivenTemplate, TextTokenizer};

use capture::taps::Taps;
use checkpoint::{Checkpoint, GgufFile};
use config::Config;
use cpu::{sub_batches, transformer::Transformer};
use device::{DeviceTransformer, keeper::Keeper, selfcheck};
use families::Family;
use hub::Location;
use packing::Packing;
use residuum_domain::{Applied, Edits, ModelInfo, PackLayout, Rows, Warning, Warnings};

/// Version of the numbers: raised whenever a change may alter a captured value, so that stored results of older
/// versions are not taken for new ones.
pub const NUMERICS_VERSION: u32 = 2;

/// The same for passes on devices.
pub const DEVICE_NUMERICS_VERSION: u32 = 3;

/// How checkpoints are found.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Never download; a hub name must then be in the local hub cache. `HF_HUB_OFFLINE=1` means the same.
    pub offline: bool,
    /// Hub cache folder, instead of `HF_HUB_CACHE`, `HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub hub_cache: Option<PathBuf>,
    /// Where forward passes run.
    pub placements: Placements,
    /// The type of products with weights there; that of the checkpoint's weights when nothing is said. On the CPU always float32.
    pub compute_dtype: Option<ComputeDtype>,
}

/// One input of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its tokens, BOS included, at least one.
    pub token_ids: &'a [u32],
    /// The rows to keep of every captured tensor.
    pub rows: &'a Rows,
    /// What is changed on the way.
    pub edits: Option<InputEdits<'a>>,
}

/// What is changed while one input goes through the model.
#[derive(Debug, Clone, Copy)]
pub struct InputEdits<'a> {
    /// The changes.
    pub edits: &'a Edits,
    /// Which of its tokens each intervention touches.
    pub applied: &'a [Applied],
}

/// Inputs that run together, and where their tensors go.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The inputs; `layout.items[i]` belongs to `inputs[i]`.
    pub inputs: &'a [Input<'a>],
    /// The hooks to capture.
    pub layout: &'a PackLayout,
}

/// Values in a buffer that is someone else's, who has it back once this is dropped.
pub type Lent = Box<dyn AsRef<[f32]> + Send>;

/// Why a sink did not take what it was given.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// Takes the captured tensors.
pub trait CaptureSink: Send {
    /// The float32 values of hook `hook` (an index into `layout.hooks`) for the consecutive items `items`.
    ///
    /// Hooks come in the order of `layout.hooks`, the items of a hook in ascending order, each item once. One with very many
    /// values comes in pieces, in calls of its own that follow each other. Rows lie one after the other as [`PackLayout`] describes.
    /// The sink may keep the buffer and leave another one, whatever it holds.
    ///
    /// # Errors
    /// Whatever keeps the values from being taken; it ends the forward pass.
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal>;

    /// As [`Self::write`], of values that need not be copied: those of a device come in the buffer they were copied to.
    ///
    /// # Errors
    /// As there.
    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        self.write(hook, items, &mut (*values).as_ref().to_vec())
    }

    /// A way of its own for each of `lanes`, which follow each other and have all items: exactly one each, in their order. The
    /// items of a lane, counted from 0 there, come in the order of [`Self::write`] while those of others come. `None`: there is
    /// one way only.
    fn lanes(&mut self, lanes: &[Range<usize>]) -> Option<Vec<Box<dyn CaptureSink + '_>>> {
        let _ = lanes;
        None
    }
}

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Model {
    info: ModelInfo,
    tokenizer: Arc<TextTokenizer>,
    transformer: Arc<Transformer>,
    /// Its copies on the devices that forward passes run on; none where that is the CPU.
    on_devices: Vec<OnDevice>,
    /// Tokens that end a text.
    end_tokens: Vec<u32>,
    /// What is unusual about the checkpoint.
    warnings: Vec<Warning>,
}

/// A copy of the weights on a device.
#[derive(Debug)]
struct OnDevice {
    place: Placement,
    kept: Keeper<DeviceTransformer>,
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
        // Before a checkpoint is read for nothing.
        for place in options.placements.all() {
            place.check(options.compute_dtype).map_err(|e| LoadError::new(id, e))?;
        }
        let mut model = match hub::locate(path_or_hub, options)? {
            Location::Folder(folder) => Self::from_folder(id, &folder)?,
            Location::Gguf(path) => Self::from_gguf(id, &path)?,
        };
        model.place(options)?;
        Ok(model)
    }

    fn from_folder(id: &str, folder: &Path) -> Result<Self, LoadError> {
        let config_path = folder.join("config.json");
        let config = families::with_defaults(Config::read(&config_path)?)?;
        let checkpoint = Checkpoint::open_folder(folder)?;
        let family = families::from_config(&config, &checkpoint)?;
        let tokenizer = TextTokenizer::from_folder(folder, family.architecture.d_vocab)?;
        let extra: Vec<PathBuf> = [config_path].into_iter().chain(tokenizer::folder_files(folder)?).collect();
        let end_tokens = end_tokens::of_folder(folder, &config)?;
        Self::assemble(id, family, tokenizer, end_tokens, &checkpoint, &extra, |warnings| {
            leftovers::report_unused(&checkpoint, warnings)
        })
    }

    fn from_gguf(id: &str, path: &Path) -> Result<Self, LoadError> {
        let file = GgufFile::open(path)?;
        let family = families::from_gguf(&file)?;
        let tokenizer = TextTokenizer::from_gguf(&file, family.architecture.d_vocab)?;
        let end_tokens = end_tokens::of_gguf(&file);
        // No key of such a file says what its tensors are for: one that is not read might change what the model computes.
        Self::assemble(id, family, tokenizer, end_tokens, file.checkpoint(), &[], |_| file.finish())
    }

    fn assemble(
        id: &str,
        mut family: Family,
        tokenizer: TextTokenizer,
        end_tokens: Vec<u32>,
        checkpoint: &Checkpoint,
        other_files: &[PathBuf],
        check_unused: impl FnOnce(&Warnings) -> Result<(), LoadError>,
    ) -> Result<Self, LoadError> {
        let warnings = family.warnings.clone();
        leftovers::resolve_tied(&mut family, checkpoint, &warnings)?;
        // The description is part of the fingerprint: the same files read in another way are another model.
        let description = family.architecture.describe();
        let files = checkpoint.files().chain(other_files.iter().map(PathBuf::as_path));
        let fingerprint = fingerprint::fingerprint(&description, files)?;
        let transformer = Transformer::load(family.architecture, &family.sources, checkpoint)?;
        check_unused(&warnings)?;
        let info = model_info::model_info(id, fingerprint, transformer.architecture(), checkpoint.census());
        let tokenizer = tokenizer.for_context(info.n_ctx);
        let warnings = warnings.list().into_iter().chain(tokenizer.warnings().iter().cloned()).collect();
        Ok(Self {
            info,
            tokenizer: Arc::new(tokenizer),
            transformer: Arc::new(transformer),
            on_devices: Vec::new(),
            end_tokens,
            warnings,
        })
    }

    /// Copies the weights to where forward passes are to run, and has them checked there.
    fn place(&mut self, options: &LoadOptions) -> Result<(), LoadError> {
        let places = &options.placements;
        if *places == Placements::default() {
            return Ok(());
        }
        let dtype = options.compute_dtype.unwrap_or_else(|| ComputeDtype::of_weights(&self.info.weights_dtype));
        self.info.device = places.to_string();
        self.info.compute_dtype = dtype.to_string();
        for place in places.all().iter().copied() {
            let (info, host) = (self.info.clone(), Arc::clone(&self.transformer));
            let make = move || {
                let on_device = DeviceTransformer::upload(&host, dtype, place.open()?)
                    .map_err(|e| format!("the weights cannot be copied to {place}: {e}"))?;
                let deviation = selfcheck::run(&info, &host, &on_device, dtype)
                    .map_err(|e| format!("{place} does not compute what the CPU computes: {e}"))?;
                tracing::info!(model = info.id, device = %place, compute_dtype = %dtype, deviation, "a device is ready");
                Ok(on_device)
            };
            let kept =
                Keeper::new(make, DeviceTransformer::works).map_err(|e| LoadError::new(self.info.id.clone(), e))?;
            self.on_devices.push(OnDevice { place, kept });
        }
        Ok(())
    }

    /// What the rest of the server needs to know.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What is unusual about the checkpoint and did not stop it from loading.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The tokenizer, shared with request handlers.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// Memory that one token of a batch takes between the layers, in bytes: what a block has at once. On a device that is not
    /// the server's memory: only the rows of the embedding are, and the pinned memory that they travel in.
    #[must_use]
    pub fn working_bytes_per_token(&self) -> u64 {
        let a = self.transformer.architecture();
        if !self.on_devices.is_empty() {
            return (2 * a.d_model * size_of::<f32>()) as u64;
        }
        let mlp = a.experts.map_or(a.d_mlp, |e| e.d_expert * e.top_k + e.d_shared.unwrap_or(0));
        let heads = (a.n_heads + a.n_kv_heads) * a.d_head;
        // The stream, what both sublayers receive and give, and a spare; gate and up; queries and z, keys and values.
        ((8 * a.d_model + 2 * mlp + 2 * heads) * size_of::<f32>()) as u64
    }

    /// Reads rows of the residual stream as logits, without a forward pass.
    ///
    /// # Errors
    /// Why this model's residual stream cannot be read.
    pub fn readout(&self) -> Result<Readout<'_>, &'static str> {
        Readout::of(&self.transformer)
    }

    /// Version of the numbers that its passes give.
    #[must_use]
    pub fn numerics_version(&self) -> u32 {
        if self.on_devices.is_empty() { NUMERICS_VERSION } else { DEVICE_NUMERICS_VERSION }
    }

    /// Where the passes of [`Self::forward_on`] run for this worker.
    #[must_use]
    pub fn device(&self, worker: usize) -> String {
        self.on_device(worker).map_or_else(|| self.info.device.clone(), |on| on.place.to_string())
    }

    /// Whether this worker's device stopped working, and is not there again.
    #[must_use]
    pub fn is_lost(&self, worker: usize) -> bool {
        self.on_device(worker).is_some_and(|on| on.kept.is_lost())
    }

    fn on_device(&self, worker: usize) -> Option<&OnDevice> {
        self.on_devices.get(worker % self.on_devices.len().max(1))
    }

    /// [`Self::forward_on`] the first device.
    ///
    /// # Errors
    /// As there.
    pub fn forward(
        &self,
        batch: &Batch<'_>,
        sink: &mut dyn CaptureSink,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        self.forward_on(0, batch, sink, cancelled)
    }

    /// Runs the packed batch and hands every captured tensor to the sink, hook by hook in the order of
    /// `layout.hooks`, or in several lanes. It stops after the last layer needed. `cancelled` is asked before every layer. Work runs on
    /// the device of this worker, counted from 0, and on the current rayon pool.
    ///
    /// On the CPU the numbers of an input depend on its tokens and interventions alone: not on its neighbours in the batch, on what
    /// else is captured, nor on the number of threads. On a device they may differ in the last bits.
    ///
    /// # Errors
    /// [`ForwardError::Cancelled`], an error of the sink, or a batch that does not fit the model.
    pub fn forward_on(
        &self,
        worker: usize,
        batch: &Batch<'_>,
        sink: &mut dyn CaptureSink,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        if let Some(on) = self.on_device(worker) {
            // On a thread of its own: one of the pool would be kept from the others while it waits for the device.
            let packing = Packing::new(batch, None, &self.info)?;
            let mut taps = Taps::new(batch, &packing, sink);
            let pass =
                |device: &DeviceTransformer| device.forward(&self.transformer, batch, &packing, &mut taps, cancelled);
            return on.kept.with(pass);
        }
        // Inside the pool from the start: from outside, every parallel kernel would pay a hand-over and a wake-up.
        rayon::scope(|_| {
            sub_batches::run(batch, sink, cancelled, &|batch, sink, cancelled| {
                let packing = Packing::new(batch, None, &self.info)?;
                let mut taps = Taps::new(batch, &packing, sink);
                self.transformer.forward(batch, &packing, None, &mut taps, cancelled)
            })
        })
    }
}
