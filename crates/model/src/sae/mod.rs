//! Sparse autoencoders for a loaded model: reads a folder in SAELens's format (`cfg.json`, `sae_weights.safetensors`), encodes rows of
//! activations to features, and decodes them.
//!
//! [`Settings`] reads `cfg.json` and refuses by name what is not supported. [`Sae::load`] checks the settings against the model and
//! reads the weights. This module knows rows of one hook; it must not know caches or requests.

mod cfg_keys;
mod encoder;
mod fit;
mod input;
mod settings;
mod training_keys;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use encoder::Chosen;
pub use input::Normalization;
pub use settings::{ExcludedTokens, Kind, Settings};

use super::{
    Model,
    checkpoint::Checkpoint,
    error::LoadError,
    estimate::bytes_of,
    fingerprint::fingerprint,
    load_progress::{LoadProgress, LoadStage},
};
use encoder::Encoder;
use input::Input;
use residuum_domain::{Hook, Warning};

/// Name of the settings in the folder.
pub const SETTINGS: &str = "cfg.json";
/// Name of the weights in the folder.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// Name of the activation scale of a training checkpoint in the folder.
const SCALER: &str = "activation_scaler.json";

/// Which of a feature's two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The decoder direction: what one unit of the feature adds to the reconstruction, its row of `W_dec`.
    Decoder,
    /// The encoder direction: its column of `W_enc`.
    Encoder,
}

/// A sparse autoencoder, ready to encode rows of its hook. It runs on the current rayon pool.
#[derive(Debug)]
pub struct Sae {
    id: String,
    model: String,
    model_fingerprint: String,
    fingerprint: String,
    settings: Settings,
    warnings: Vec<Warning>,
    input: Input,
    encoder: Encoder,
    /// `[d_sae, d_in]`, as stored.
    decoder: Vec<f32>,
    /// The factor of each feature's activation in the decoder; empty if all are one.
    gains: Vec<f32>,
}

impl Sae {
    /// Loads the autoencoder of `folder`, given its settings.
    ///
    /// # Errors
    /// [`LoadError`] naming the file, and the setting or tensor that does not match the model, is missing, has another shape,
    /// or is not supported.
    pub fn load(
        id: &str,
        settings: Settings,
        folder: &Path,
        model: &Model,
        progress: &LoadProgress,
    ) -> Result<Self, LoadError> {
        let fitted = fit::fit(&settings, model).map_err(|why| LoadError::file(&folder.join(SETTINGS), why))?;
        let (weights, mut files) = (folder.join(WEIGHTS), vec![folder.join(SETTINGS), folder.join(WEIGHTS)]);
        files.extend(Some(folder.join(SCALER)).filter(|path| path.is_file()));
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        progress.begin(LoadStage::Reading, bytes_of(&files));
        let fingerprint = fingerprint("residuum sae", files.into_iter(), progress)?;
        let mut checkpoint = Checkpoint::open_files(vec![weights.clone()])?;
        checkpoint.report_to(progress);
        checkpoint.begin_weights();
        let (d_in, d_sae) = (settings.d_in, settings.d_sae);
        let decoder = checkpoint.whole("W_dec", &[d_sae, d_in])?;
        let b_dec = checkpoint.whole("b_dec", &[d_in])?;
        let encoder = Encoder::load(&settings, &checkpoint, &decoder)?;
        let finetuned = finetuning(&settings, &checkpoint)?;
        if let Some(unknown) = checkpoint.unused().first() {
            let reason = format!("tensor `{unknown}` does not belong to a {} autoencoder", settings.kind.name());
            return Err(LoadError::file(&weights, reason));
        }
        let gains = gains(&encoder, finetuned);
        let (normalization, subtract_b_dec) = (settings.normalization, settings.apply_b_dec_to_input);
        let input = Input::new(normalization, subtract_b_dec, fitted.columns, fitted.width, fitted.centre, b_dec);
        Ok(Self {
            id: id.to_owned(),
            model: model.info().id.clone(),
            model_fingerprint: model.info().fingerprint.clone(),
            fingerprint,
            warnings: settings.warnings.iter().cloned().chain(fitted.warnings).collect(),
            settings,
            input,
            encoder,
            decoder,
            gains,
        })
    }

    /// Bytes of memory that the autoencoder in `folder` takes once it is loaded, from the header of its weights.
    ///
    /// # Errors
    /// When there are no weights, or they are damaged.
    pub fn memory_needed(folder: &Path) -> Result<u64, LoadError> {
        Ok(Checkpoint::open_files(vec![folder.join(WEIGHTS)])?.bytes_as_float32())
    }

    /// Checks settings against the model, before any weights are read.
    ///
    /// # Errors
    /// The setting that does not match, and why.
    pub fn check(settings: &Settings, model: &Model) -> Result<(), String> {
        fit::fit(settings, model).map(drop)
    }

    /// The name that clients use.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Name of its model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Fingerprint of its model.
    #[must_use]
    pub fn model_fingerprint(&self) -> &str {
        &self.model_fingerprint
    }

    /// blake3 of weights and settings, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The settings of its `cfg.json`.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Warnings: what its `cfg.json` does not say, and keys that were ignored.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The hook whose rows it encodes.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.settings.hook
    }

    /// Width of a row of its hook, with heads flattened.
    #[must_use]
    pub fn row_width(&self) -> usize {
        self.input.row_width()
    }

    /// Width of its input.
    #[must_use]
    pub fn d_in(&self) -> usize {
        self.settings.d_in
    }

    /// Number of features.
    #[must_use]
    pub fn d_sae(&self) -> usize {
        self.settings.d_sae
    }

    /// Whether the mean of each row is subtracted first, which is what centred writing weights (TransformerLens) would do.
    #[must_use]
    pub fn centres(&self) -> bool {
        self.input.centres()
    }

    /// The targets of reconstruction, `[n, d_in]`, from the hook's rows `[n, row_width]`: one head if it was trained on one,
    /// centred if it was trained on centred weights, before normalisation.
    #[must_use]
    pub fn targets(&self, rows: &[f32]) -> Vec<f32> {
        self.input.targets(rows)
    }

    /// The feature activations `[n, d_sae]` of targets `[n, d_in]`. They are NaN for a target that is not finite, or that is
    /// divided by its norm and has norm zero.
    #[must_use]
    pub fn encode(&self, targets: &[f32]) -> Vec<f32> {
        self.encoder.encode(self.input.normalised(targets))
    }

    /// The reconstruction `[n, d_in]` of targets, from their activations `[n, d_sae]`.
    #[must_use]
    pub fn decode(&self, targets: &[f32], activations: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; targets.len()];
        let (d_in, d_sae) = (self.d_in(), self.d_sae());
        let rows = out.par_chunks_exact_mut(d_in).zip(targets.par_chunks_exact(d_in));
        rows.zip(activations.par_chunks_exact(d_sae)).for_each(|((out, target), activations)| {
            let mut sum: Vec<f64> = self.input.b_dec().iter().map(|b| f64::from(*b)).collect();
            for (i, activation) in activations.iter().enumerate().filter(|(_, a)| **a != 0.0) {
                let activation = f64::from(*activation) * f64::from(self.gains.get(i).copied().unwrap_or(1.0));
                let row = &self.decoder[i * d_in..][..d_in];
                sum.iter_mut().zip(row).for_each(|(s, w)| *s += activation * f64::from(*w));
            }
            self.input.denormalise(target, &sum, out);
        });
        out
    }

    /// An encoder for some features only; it skips the others if they do not affect these.
    ///
    /// # Panics
    /// When a feature does not exist; the caller must check.
    #[must_use]
    pub fn choose(&self, features: &[usize]) -> Chosen<'_> {
        assert!(features.iter().all(|f| *f < self.d_sae()), "a feature that is not there");
        Chosen::new(&self.input, &self.encoder, features)
    }

    /// A feature as a direction in the space of the hook's rows, `[row_width]`: zero outside the head if it encodes one head.
    ///
    /// # Panics
    /// When the feature does not exist; the caller must check.
    #[must_use]
    pub fn direction(&self, feature: usize, side: Side) -> Vec<f32> {
        let mut vector = vec![0.0; self.d_in()];
        let factor = match side {
            Side::Decoder => {
                vector.copy_from_slice(&self.decoder[feature * self.d_in()..][..self.d_in()]);
                self.gains.get(feature).copied().unwrap_or(1.0) / self.input.scale()
            }
            Side::Encoder => {
                self.encoder.column(feature, &mut vector);
                self.input.scale()
            }
        };
        vector.iter_mut().for_each(|v| *v *= factor);
        self.input.place(&vector)
    }
}

/// The finetuned factors of the activations, unless all are one.
fn finetuning(settings: &Settings, checkpoint: &Checkpoint) -> Result<Option<Vec<f32>>, LoadError> {
    let name = ["finetuning_scaling_factor", "scaling_factor"].into_iter().find(|name| checkpoint.has(name));
    let refuse =
        |reason: &str| Err(LoadError::new(checkpoint.place(), format!("`finetuning_scaling_factor` {reason}")));
    let Some(name) = name else {
        return if settings.finetuned { refuse("is true, and the weights have no such tensor") } else { Ok(None) };
    };
    let factors = checkpoint.whole(name, &[settings.d_sae])?;
    match (factors.iter().all(|f| (f - 1.0).abs() <= 1e-5), settings.finetuned) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(factors)),
        (false, false) => refuse("is false, and the weights have factors that are not one"),
    }
}

fn gains(encoder: &Encoder, finetuned: Option<Vec<f32>>) -> Vec<f32> {
    match (encoder.norms(), finetuned) {
        (None, factors) => factors.unwrap_or_default(),
        (Some(norms), factors) => {
            let inverse = |norm: &f32| if *norm > 0.0 { 1.0 / norm } else { 0.0 };
            let factors = factors.unwrap_or_else(|| vec![1.0; norms.len()]);
            norms.iter().zip(factors).map(|(norm, factor)| inverse(norm) * factor).collect()
        }
    }
}
