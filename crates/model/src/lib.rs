//! From a checkpoint to an instrumented transformer.
//!
//! [`Model::load`] opens a Hugging Face folder, a GGUF file or a hub name; [`Model::forward`] runs a packed batch and
//! hands the tensors asked for to a [`CaptureSink`]; [`sae::Sae`] encodes rows of one hook to features. The crate owns
//! checkpoints, tokenizers and forward passes; it must not know HTTP, queues or the store.
//!
//! Loading a model: `hub` finds the checkpoint, `checkpoint` opens its tensors, `config` and `families` turn its configuration into an
//! `architecture` and say where its weights are (`sources`). Running a batch: `packing` lays it out, `cpu` or `device` runs it, and
//! `capture` records tensors and applies interventions. `ops` has the CPU kernels.

mod architecture;
mod capture;
mod checkpoint;
mod config;
mod cpu;
mod device;
mod end_tokens;
pub mod error;
mod estimate;
mod families;
mod fingerprint;
pub mod generate;
mod hub;
mod leftovers;
mod load_progress;
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
pub use estimate::memory_needed;
pub use hub::{Location, from_hub, is_hub_name};
pub use load_progress::{LoadProgress, LoadSnapshot, LoadStage};
pub use readout::{FrozenNorm, LinearReading, Readout};
pub use tokenizer::{ChatEnd, Encoded, GivenTemplate, TextTokenizer};

use capture::taps::Taps;
use checkpoint::{Checkpoint, GgufFile};
use config::Config;
use cpu::{sub_batches, transformer::Transformer};
use device::{DeviceTransformer, keeper::Keeper, selfcheck};
use families::Family;
use packing::Packing;
use residuum_domain::{Applied, Edits, ModelInfo, PackLayout, Rows, Warning, Warnings};

/// Version of the numbers that passes on the CPU compute. Raised whenever a change may alter a captured value, so that stored
/// results of older versions are not reused.
pub const NUMERICS_VERSION: u32 = 2;

/// As [`NUMERICS_VERSION`], for passes on devices.
pub const DEVICE_NUMERICS_VERSION: u32 = 3;

/// How a checkpoint is found, and where it runs.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Never download; a hub name must then be in the local hub cache. `HF_HUB_OFFLINE=1` means the same.
    pub offline: bool,
    /// Hub cache folder, instead of `HF_HUB_CACHE`, `HF_HOME/hub` or `~/.cache/huggingface/hub`.
    pub hub_cache: Option<PathBuf>,
    /// Where forward passes run.
    pub placements: Placements,
    /// The type in which devices compute products with weights. `None`: the type of the checkpoint's weights. The CPU always
    /// computes in float32.
    pub compute_dtype: Option<ComputeDtype>,
    /// Where the load reports its progress, and is told to stop.
    pub progress: LoadProgress,
}

/// One input of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its tokens, BOS included, at least one.
    pub token_ids: &'a [u32],
    /// The rows of every captured tensor that are kept.
    pub rows: &'a Rows,
    /// Interventions, if any.
    pub edits: Option<InputEdits<'a>>,
}

/// The interventions on one input.
#[derive(Debug, Clone, Copy)]
pub struct InputEdits<'a> {
    /// The interventions.
    pub edits: &'a Edits,
    /// Which tokens of the input each intervention touches.
    pub applied: &'a [Applied],
}

/// Inputs that run in one pass, and what is captured.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The inputs; `layout.items[i]` belongs to `inputs[i]`.
    pub inputs: &'a [Input<'a>],
    /// The hooks to capture.
    pub layout: &'a PackLayout,
}

/// Values in a buffer that belongs to someone else. Dropping this returns the buffer to its owner.
pub type Lent = Box<dyn AsRef<[f32]> + Send>;

/// Why a sink refused values.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// Receives the captured tensors of a forward pass.
pub trait CaptureSink: Send {
    /// Receives the float32 values of hook `hook` (an index into `layout.hooks`) for the consecutive items `items`.
    ///
    /// Hooks come in the order of `layout.hooks`, and the items of a hook in ascending order, each item once. An item with very
    /// many values comes in chunks: consecutive calls for that item alone. Rows follow each other as [`PackLayout`] describes.
    /// The sink may keep the buffer and leave another one in its place, whatever that holds.
    ///
    /// # Errors
    /// Any reason why the sink cannot accept the values. It ends the forward pass.
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal>;

    /// As [`Self::write`], without a copy: values from a device come in the buffer that they were copied to.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        self.write(hook, items, &mut (*values).as_ref().to_vec())
    }

    /// Splits the sink, so that the sub-batches of a batch can write at the same time: one sink for each sub-batch, in the order
    /// of `sub_batches`, which are consecutive and cover all items. Each of these sinks receives the items of its sub-batch,
    /// counted from 0, in the order that [`Self::write`] describes. `None`: the sink cannot be split, and the batch runs whole.
    fn split(&mut self, sub_batches: &[Range<usize>]) -> Option<Vec<Box<dyn CaptureSink + '_>>> {
        let _ = sub_batches;
        None
    }
}

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Model {
    info: ModelInfo,
    tokenizer: Arc<TextTokenizer>,
    transformer: Arc<Transformer>,
    /// Copies of the weights on devices; empty where forward passes run on the CPU.
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
        // Check devices first: reading a checkpoint takes long.
        Self::check_devices(id, options)?;
        Self::load_from(id, &hub::locate(path_or_hub, options)?, options)
    }

    /// As [`Self::load`], from a checkpoint that was found.
    ///
    /// # Errors
    /// As [`Self::load`], or when the load is cancelled.
    pub fn load_from(id: &str, location: &Location, options: &LoadOptions) -> Result<Self, LoadError> {
        Self::check_devices(id, options)?;
        let mut model = match location {
            Location::Folder(folder) => Self::from_folder(id, folder, &options.progress)?,
            Location::Gguf(path) => Self::from_gguf(id, path, &options.progress)?,
        };
        options.progress.begin(LoadStage::Placing, 0);
        model.place(options)?;
        options.progress.check()?;
        Ok(model)
    }

    fn check_devices(id: &str, options: &LoadOptions) -> Result<(), LoadError> {
        let mut places = options.placements.all().iter();
        places.try_for_each(|place| place.check(options.compute_dtype).map_err(|e| LoadError::new(id, e)))
    }

    fn from_folder(id: &str, folder: &Path, progress: &LoadProgress) -> Result<Self, LoadError> {
        progress.begin(LoadStage::Reading, 0);
        let config_path = folder.join("config.json");
        let config = families::with_defaults(Config::read(&config_path)?)?;
        let mut checkpoint = Checkpoint::open_folder(folder)?;
        checkpoint.report_to(progress);
        let family = families::from_config(&config, &checkpoint)?;
        let tokenizer = TextTokenizer::from_folder(folder, family.architecture.d_vocab)?;
        let extra: Vec<PathBuf> = [config_path].into_iter().chain(tokenizer::folder_files(folder)?).collect();
        let end_tokens = end_tokens::of_folder(folder, &config)?;
        Self::assemble(id, family, tokenizer, end_tokens, &checkpoint, &extra, |warnings| {
            leftovers::report_unused(&checkpoint, warnings)
        })
    }

    fn from_gguf(id: &str, path: &Path, progress: &LoadProgress) -> Result<Self, LoadError> {
        progress.begin(LoadStage::Reading, 0);
        let mut file = GgufFile::open(path)?;
        file.report_to(progress);
        let family = families::from_gguf(&file)?;
        let tokenizer = TextTokenizer::from_gguf(&file, family.architecture.d_vocab)?;
        let end_tokens = end_tokens::of_gguf(&file);
        // No key of a GGUF file says what its tensors are for, so a tensor that is not read might change what the model computes.
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
        // The description is part of the fingerprint: the same files, understood differently, are another model.
        let description = family.architecture.describe();
        let files: Vec<&Path> = checkpoint.files().chain(other_files.iter().map(PathBuf::as_path)).collect();
        checkpoint.progress().begin(LoadStage::Reading, estimate::bytes_of(&files));
        let fingerprint = fingerprint::fingerprint(&description, files.into_iter(), checkpoint.progress())?;
        checkpoint.begin_weights();
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

    /// Copies the weights to the devices that forward passes run on, and checks what the devices compute with them.
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

    /// Working memory of one token of a batch, in bytes: the buffers that a block needs at once. Where passes run on a device,
    /// this counts the server's own memory only: the rows of the embedding and the pinned buffer through which they are copied.
    #[must_use]
    pub fn working_bytes_per_token(&self) -> u64 {
        let a = self.transformer.architecture();
        if !self.on_devices.is_empty() {
            return (2 * a.d_model * size_of::<f32>()) as u64;
        }
        let mlp = a.experts.map_or(a.d_mlp, |e| e.d_expert * e.top_k + e.d_shared.unwrap_or(0));
        let heads = (a.n_heads + a.n_kv_heads) * a.d_head;
        // The residual stream, input and output of both sublayers and spare buffers; gate and up; queries and z, keys and values.
        ((8 * a.d_model + 2 * mlp + 2 * heads) * size_of::<f32>()) as u64
    }

    /// Reads rows of the residual stream as logits, without a forward pass.
    ///
    /// # Errors
    /// The reason, when this model's residual stream cannot be read as logits.
    pub fn readout(&self) -> Result<Readout<'_>, &'static str> {
        Readout::of(&self.transformer)
    }

    /// Version of the numbers that this model's passes compute.
    #[must_use]
    pub fn numerics_version(&self) -> u32 {
        if self.on_devices.is_empty() { NUMERICS_VERSION } else { DEVICE_NUMERICS_VERSION }
    }

    /// The device on which [`Self::forward_on`] runs for this worker.
    #[must_use]
    pub fn device(&self, worker: usize) -> String {
        self.on_device(worker).map_or_else(|| self.info.device.clone(), |on| on.place.to_string())
    }

    /// Whether this worker's device has stopped working and has not been reopened yet.
    #[must_use]
    pub fn is_lost(&self, worker: usize) -> bool {
        self.on_device(worker).is_some_and(|on| on.kept.is_lost())
    }

    fn on_device(&self, worker: usize) -> Option<&OnDevice> {
        self.on_devices.get(worker % self.on_devices.len().max(1))
    }

    /// [`Self::forward_on`] for worker 0.
    ///
    /// # Errors
    /// As [`Self::forward_on`].
    pub fn forward(
        &self,
        batch: &Batch<'_>,
        sink: &mut dyn CaptureSink,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        self.forward_on(0, batch, sink, cancelled)
    }

    /// Runs the packed batch and hands every captured tensor to the sink, hook by hook in the order of `layout.hooks`; on the CPU
    /// a large batch may run as several sub-batches, if the sink can be split. The pass stops after the last layer needed, and
    /// calls `cancelled` before every layer. It runs on the device of this worker (counted from 0) and on the current rayon pool.
    ///
    /// On the CPU the numbers of an input depend on its tokens and interventions alone, bit for bit: not on the other inputs of the
    /// batch, what else is captured, or the number of threads. On a device they may differ in the last bits.
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
            // On the caller's thread: a thread of the rayon pool that waits for a device could not do other work meanwhile.
            let packing = Packing::new(batch, None, &self.info)?;
            let mut taps = Taps::new(batch, &packing, sink);
            let pass =
                |device: &DeviceTransformer| device.forward(&self.transformer, batch, &packing, &mut taps, cancelled);
            return on.kept.with(pass);
        }
        // Enter the pool once: from outside, every parallel kernel would have to hand its work over and wake a thread.
        rayon::scope(|_| {
            sub_batches::run(batch, sink, cancelled, &|batch, sink, cancelled| {
                let packing = Packing::new(batch, None, &self.info)?;
                let mut taps = Taps::new(batch, &packing, sink);
                self.transformer.forward(batch, &packing, None, &mut taps, cancelled)
            })
        })
    }
}
