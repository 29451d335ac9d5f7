//! Rotary position embeddings: from the configuration's rope parameters to inverse frequencies.
//!
//! The formulas are those of transformers' `modeling_rope_utils.py`, in float32 where it uses float32. The
//! kinds are default, linear, dynamic (NTK), YaRN (arXiv 2309.00071), LongRoPE (arXiv 2402.13753) and Llama 3's.

use std::f64::consts::PI;

use serde_json::Value;

use crate::{config::Config, error::LoadError};
use residuum_domain::WarningCode;

/// A rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// One frequency per rotated pair of dimensions, in radians per position.
    pub inv_freq: Vec<f32>,
    /// Factor of sine and cosine.
    pub attention_factor: f32,
    /// Other frequencies for long inputs, if the kind has them.
    pub long: Option<LongInputs>,
}

/// Frequencies of inputs with more than `from` tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LongInputs {
    /// Longest input that still uses the ordinary frequencies.
    pub from: usize,
    /// What they are.
    pub kind: LongKind,
}

/// How the frequencies of long inputs are made.
#[derive(Debug, Clone, PartialEq)]
pub enum LongKind {
    /// The base grows with the length (NTK).
    Dynamic {
        /// The base of inputs that are not long.
        base: f64,
        /// How much longer than trained inputs may be.
        factor: f64,
        /// Rotated dimensions of a head.
        dim: usize,
    },
    /// A second, fixed set.
    Fixed(Vec<f32>),
}

impl Rope {
    /// The frequencies for an input of `n_tokens`, if they differ from the ordinary ones.
    #[must_use]
    pub fn long_inv_freq(&self, n_tokens: usize) -> Option<Vec<f32>> {
        let long = self.long.as_ref().filter(|l| n_tokens > l.from)?;
        Some(match &long.kind {
            LongKind::Fixed(inv_freq) => inv_freq.clone(),
            LongKind::Dynamic { base, factor, dim } => {
                #[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
                let (length, from, d) = (n_tokens as f64, long.from as f64, *dim as f64);
                let growth = factor * length / from - (factor - 1.0);
                inverse_frequencies(base * growth.powf(d / (d - 2.0)), *dim)
            }
        })
    }

    /// Longest input of a model that was trained for `n_ctx` tokens: dynamic scaling extends the context by its factor.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "lengths are positive and far below 2^52"
    )]
    pub fn context(&self, n_ctx: usize) -> usize {
        match &self.long {
            Some(LongInputs { kind: LongKind::Dynamic { factor, .. }, .. }) => {
                (n_ctx as f64 * factor.max(1.0)) as usize
            }
            _ => n_ctx,
        }
    }

    /// Reads the rope parameters of a configuration, in the spelling of transformers 4 (`rope_theta` beside
    /// `rope_scaling`) or 5 (`rope_parameters`). `partial` is the default for the fraction of a head that is rotated.
    ///
    /// # Errors
    /// When a parameter is missing or the kind is not understood.
    pub fn from_config(config: &Config, d_head: usize, partial: f64) -> Result<Self, LoadError> {
        let default = config.reference().and_then(|reference| reference.theta(None)).unwrap_or(10_000.0);
        let theta = config.number_or("rope_theta", default)?;
        let partial = config.number_or("partial_rotary_factor", partial)?;
        let (old, new) = (config.rope_opt("rope_scaling")?, config.rope_opt("rope_parameters")?);
        Self::from_parameters(config, old.or(new).as_ref(), d_head, theta, partial)
    }

    /// Reads one object of rope parameters; `config` is the whole configuration it belongs to.
    pub fn from_parameters(
        config: &Config,
        parameters: Option<&Config>,
        d_head: usize,
        theta: f64,
        partial: f64,
    ) -> Result<Self, LoadError> {
        let Some(p) = parameters else {
            check_base(config, theta)?;
            let partial = rotated_share(config, "default", partial)?;
            return Ok(Self::of_dimensions(theta, rotary_dim(config, d_head, partial)?));
        };
        let key = if p.value("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = p.text_or(key, "default")?;
        p.value("type");
        let own = p.number_opt("rope_theta")?;
        let theta = own.unwrap_or(theta);
        check_base(if own.is_some() { p } else { config }, theta)?;
        let partial = rotated_share(config, &kind, p.number_or("partial_rotary_factor", partial)?)?;
        let dim = rotary_dim(config, d_head, partial)?;
        let rope = match kind.as_str() {
            "default" => Self::of_dimensions(theta, dim),
            "linear" => {
                let factor = positive(p, "factor")?;
                #[expect(clippy::cast_possible_truncation, reason = "float32 arithmetic is what the reference does")]
                Self::plain(inverse_frequencies(theta, dim).into_iter().map(|f| f / factor as f32).collect())
            }
            "dynamic" => dynamic(config, p, theta, dim)?,
            "yarn" => yarn(config, p, theta, dim)?,
            "longrope" => longrope(config, p, theta, dim)?,
            // Phi-3's first name for it
            "su" if config.reference().is_none_or(|family| family.class == "Phi3Config") => {
                longrope(config, p, theta, dim)?
            }
            "llama3" => llama3(config, p, theta, dim)?,
            other => return Err(p.refuse(key, format!("{other:?} is not understood"))),
        };
        p.finish()?;
        if !rope.is_finite() {
            return Err(p.error(format!("the parameters of {kind} rope make frequencies that are not finite numbers")));
        }
        Ok(rope)
    }

    /// Whether all frequencies are finite. Parameters can lead to a division by zero or to the logarithm of a negative number.
    fn is_finite(&self) -> bool {
        let long: &[f32] = match &self.long {
            Some(LongInputs { kind: LongKind::Fixed(inv_freq), .. }) => inv_freq,
            _ => &[],
        };
        self.attention_factor.is_finite() && self.inv_freq.iter().chain(long).all(|f| f.is_finite())
    }

    /// The first `dim` dimensions of each head, `theta^(-2i/dim)` for pair i, without scaling.
    #[must_use]
    pub fn of_dimensions(theta: f64, dim: usize) -> Self {
        Self::plain(inverse_frequencies(theta, dim))
    }

    fn plain(inv_freq: Vec<f32>) -> Self {
        Self { inv_freq, attention_factor: 1.0, long: None }
    }

    /// Divides each frequency by its factor (the `rope_freqs` tensor of GGUF files).
    #[must_use]
    pub fn divided_by(mut self, factors: &[f32]) -> Self {
        self.inv_freq.iter_mut().zip(factors).for_each(|(f, d)| *f /= d);
        self
    }
}

/// Refuses a base whose powers are not positive float32 numbers, under the name that the file has for it.
fn check_base(config: &Config, base: f64) -> Result<(), LoadError> {
    // its smallest power is about its reciprocal
    if base > f64::from(f32::MIN_POSITIVE) {
        return Ok(());
    }
    let names = ["rotary_emb_base", "rope_local_base_freq", "local_rope_theta", "global_rope_theta"];
    let name = names.into_iter().find(|name| config.value(name).and_then(Value::as_f64) == Some(base));
    Err(config.refuse(name.unwrap_or("rope_theta"), format!("is {base}, not a positive number that has powers")))
}

fn positive(p: &Config, key: &str) -> Result<f64, LoadError> {
    let v = p.number(key)?;
    if v > 0.0 { Ok(v) } else { Err(p.refuse(key, format!("is {v}, not a positive number"))) }
}

/// The fraction of a head that is rotated. The code of many families rotates whole heads: there, transformers ignores this fraction
/// in unscaled rope, and fails on it in scaled rope.
fn rotated_share(config: &Config, kind: &str, partial: f64) -> Result<f64, LoadError> {
    let whole_heads = config.reference().is_some_and(|reference| !reference.partial_rotary);
    if !whole_heads || partial == 1.0 {
        return Ok(partial);
    }
    if kind != "default" {
        let reason =
            format!("is {partial}, but this family rotates whole heads, and {kind} rope cannot be computed so");
        return Err(config.refuse("partial_rotary_factor", reason));
    }
    let detail = format!(
        "`partial_rotary_factor` is {partial}; transformers does not read it in this family, and whole heads are rotated"
    );
    config.warnings().add(WarningCode::UnknownConfigKey, detail);
    Ok(1.0)
}

/// Rotated dimensions of a head: `int(d_head · partial)`.
fn rotary_dim(config: &Config, d_head: usize, partial: f64) -> Result<usize, LoadError> {
    if !(partial > 0.0 && partial <= 1.0) {
        return Err(config.refuse("partial_rotary_factor", format!("is {partial}, not in (0, 1]")));
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a head is small and positive"
    )]
    let dim = (d_head as f64 * partial) as usize;
    if dim == 0 || !dim.is_multiple_of(2) {
        return Err(config.error(format!("rotary embeddings need an even number of dimensions, not {dim}")));
    }
    Ok(dim)
}

/// `base^(2i/dim)` for each pair i, in float32.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the exponent is a float32 in the reference; the power is rounded once"
)]
fn periods(base: f64, dim: usize) -> impl Iterator<Item = f32> {
    (0..dim / 2).map(move |i| base.powf(f64::from((2 * i) as f32 / dim as f32)) as f32)
}

fn inverse_frequencies(base: f64, dim: usize) -> Vec<f32> {
    periods(base, dim).map(|p| 1.0 / p).collect()
}

/// The context length of training: next to the rope parameters (Phi-3) or among them, else the model's context.
#[expect(clippy::cast_precision_loss, reason = "lengths are far below 2^52")]
fn original_length(config: &Config, p: &Config) -> Result<f64, LoadError> {
    let inner = p.count_opt("original_max_position_embeddings")?;
    let beside = if p.is_of_some_layers() { None } else { config.count_opt("original_max_position_embeddings")? };
    let n = match (beside, inner) {
        (Some(n), _) | (None, Some(n)) => n,
        (None, None) => config.count("max_position_embeddings")?,
    };
    Ok(n as f64)
}

fn dynamic(config: &Config, p: &Config, base: f64, dim: usize) -> Result<Rope, LoadError> {
    let factor = positive(p, "factor")?;
    if dim < 4 {
        return Err(p.error("dynamic rope needs at least four rotated dimensions"));
    }
    let from = config.count("max_position_embeddings")?;
    let long = Some(LongInputs { from, kind: LongKind::Dynamic { base, factor, dim } });
    Ok(Rope { long, ..Rope::plain(inverse_frequencies(base, dim)) })
}

#[expect(clippy::cast_possible_truncation, reason = "float32 arithmetic is what the reference does")]
fn llama3(config: &Config, p: &Config, base: f64, dim: usize) -> Result<Rope, LoadError> {
    let factor = positive(p, "factor")? as f32;
    let (low, high) = (positive(p, "low_freq_factor")?, positive(p, "high_freq_factor")?);
    let context = original_length(config, p)?;
    let scale = |inv_freq: f32| {
        let wavelength = (2.0 * PI) as f32 / inv_freq;
        if wavelength < (context / high) as f32 {
            inv_freq
        } else if wavelength > (context / low) as f32 {
            inv_freq / factor
        } else {
            let smooth = (context as f32 / wavelength - low as f32) / (high - low) as f32;
            (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
        }
    };
    Ok(Rope::plain(inverse_frequencies(base, dim).into_iter().map(scale).collect()))
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "float32 arithmetic is what the reference does"
)]
fn yarn(config: &Config, p: &Config, base: f64, dim: usize) -> Result<Rope, LoadError> {
    let context = original_length(config, p)?;
    let factor = positive(p, "factor")?;
    let mscale = |scale: f64, m: f64| if scale <= 1.0 { 1.0 } else { 0.1 * m * scale.ln() + 1.0 };
    let (m, m_all) = (p.number_or("mscale", 0.0)?, p.number_or("mscale_all_dim", 0.0)?);
    let attention_factor = match p.number_opt("attention_factor")? {
        Some(f) => f,
        None if m != 0.0 && m_all != 0.0 => mscale(factor, m) / mscale(factor, m_all),
        None => mscale(factor, 1.0),
    };
    let or = |v: f64, default: f64| if v == 0.0 { default } else { v };
    let (fast, slow) = (or(p.number_or("beta_fast", 0.0)?, 32.0), or(p.number_or("beta_slow", 0.0)?, 1.0));
    for (key, rotations) in [("beta_fast", fast), ("beta_slow", slow)] {
        if rotations < 0.0 {
            return Err(p.refuse(key, format!("is {rotations}, not a positive number")));
        }
    }
    if base == 1.0 {
        return Err(p.refuse("rope_theta", "is 1, which has no logarithm to divide by"));
    }
    let correction = |rotations: f64| dim as f64 * (context / (rotations * 2.0 * PI)).ln() / (2.0 * base.ln());
    let (mut low, mut high) = (correction(fast), correction(slow));
    if p.flag_or("truncate", true)? {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min((dim - 1) as f64));
    if low == high {
        high += 0.001;
    }
    let blend = |(i, period): (usize, f32)| {
        let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let keep = 1.0 - ramp;
        1.0 / (factor as f32 * period) * (1.0 - keep) + 1.0 / period * keep
    };
    let inv_freq = periods(base, dim).enumerate().map(blend).collect();
    Ok(Rope { inv_freq, attention_factor: attention_factor as f32, long: None })
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "float32 arithmetic is what the reference does; lengths are positive and small"
)]
fn longrope(config: &Config, p: &Config, base: f64, dim: usize) -> Result<Rope, LoadError> {
    let original = original_length(config, p)?;
    let factor = match p.number_opt("factor")? {
        Some(f) => f,
        None => config.count("max_position_embeddings")? as f64 / original,
    };
    let attention_factor = match p.number_opt("attention_factor")? {
        Some(f) => f,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    let frequencies = |key: &str| {
        let factors = p.numbers(key)?;
        if factors.len() != dim / 2 {
            return Err(p.refuse(key, format!("has {} factors, not {}", factors.len(), dim / 2)));
        }
        Ok(periods(base, dim).zip(&factors).map(|(period, f)| 1.0 / (*f as f32 * period)).collect::<Vec<_>>())
    };
    let long = LongInputs { from: original as usize, kind: LongKind::Fixed(frequencies("long_factor")?) };
    let inv_freq = frequencies("short_factor")?;
    Ok(Rope { inv_freq, attention_factor: attention_factor as f32, long: Some(long) })
}
