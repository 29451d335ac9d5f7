//! GGUF files: translates their metadata back to the Hugging Face configuration it was made from, which the families then read, and
//! replaces the names of weights by GGUF's.

mod draft;
mod formats;
mod gguf_config;
mod names;

use super::{Family, from_config};
use crate::{architecture::NormKind, checkpoint::GgufFile, error::LoadError};
use formats::FORMATS;

/// Reads the architecture of a GGUF file.
///
/// # Errors
/// When the architecture or one of its options is not supported.
pub fn from_gguf(file: &GgufFile) -> Result<Family, LoadError> {
    let name = file.text("general.architecture").unwrap_or_default();
    let Some(format) = FORMATS.iter().find(|f| f.name == name) else {
        let names: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
        let reason = format!("{name:?} is not supported; supported are {}", names.join(", "));
        return Err(file.refuse("general.architecture", reason));
    };
    let config = gguf_config::configuration(file, format)?;
    let checkpoint = file.checkpoint();
    let Family { mut architecture, sources, warnings } = from_config(&config, checkpoint)?;
    // GGUF stores gains with the one already added, also for families that add it (Gemma).
    if let NormKind::Rms { gain_offset, .. } = &mut architecture.norm {
        *gain_offset = 0.0;
    }
    if let (Some(rope), true) = (architecture.ropes.first(), checkpoint.has("rope_freqs.weight")) {
        let factors = checkpoint.whole("rope_freqs.weight", &[rope.inv_freq.len()])?;
        architecture.ropes = architecture.ropes.into_iter().map(|r| r.divided_by(&factors)).collect();
    }
    let sources = names::sources(&architecture, &sources, checkpoint, format.interleaved, &warnings);
    Ok(Family { architecture, sources, warnings })
}
