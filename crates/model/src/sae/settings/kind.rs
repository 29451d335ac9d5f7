//! Reads `architecture`, and the activation function that SAELens before version 6 has next to it.

use serde_json::Value;

use crate::sae::cfg_keys::{Keys, Read, Refused};

/// The activation function of an autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ReLU.
    Standard,
    /// JumpReLU, with a threshold for each feature.
    JumpRelu,
    /// TopK: the `k` largest.
    TopK {
        /// Number of active features.
        k: usize,
        /// Whether activations are scaled by the lengths of the decoder's rows.
        rescale: bool,
    },
    /// Gated, with a gate and a magnitude.
    Gated,
}

impl Kind {
    /// The spelling in `cfg.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::JumpRelu => "jumprelu",
            Self::TopK { .. } => "topk",
            Self::Gated => "gated",
        }
    }
}

/// Reads the architecture. `old`: the file is from SAELens before version 6.
pub(super) fn kind(keys: &mut Keys, old: bool) -> Read<Kind> {
    let named = keys.string("architecture")?;
    let activation = keys.take_of(&["activation_fn", "activation_fn_str"])?;
    let mut k = keys.size_of(&["k"])?;
    match keys.take("activation_fn_kwargs") {
        None => {}
        Some(Value::Object(kwargs)) => {
            for (key, value) in kwargs {
                match (key.as_str(), value.as_u64().and_then(|n| usize::try_from(n).ok())) {
                    ("k", Some(n)) if k.is_none_or(|k| k == n) => k = Some(n),
                    _ => return Err(Refused::new("activation_fn_kwargs", format!("has `{key}`: {value}"))),
                }
            }
        }
        Some(other) => return Err(Refused::new("activation_fn_kwargs", format!("is {other}; expected an object"))),
    }
    let rescale = keys.flag("rescale_acts_by_decoder_norm")?.unwrap_or(false);
    let named = match named.as_deref() {
        None if old => "standard",
        None => return Err(Refused::new("architecture", "is missing")),
        Some(name) => name,
    };
    let by_rank = match activation {
        None => named == "topk",
        Some((_, Value::String(name))) if name == "relu" => named == "topk" && !old,
        Some((_, Value::String(name))) if name == "topk" => true,
        Some((key, value)) => return Err(Refused::new(&key, format!("is {value}; relu and topk are understood"))),
    };
    let kind = match (named, by_rank) {
        ("topk", true) | ("standard", true) => {
            Kind::TopK { k: k.take().ok_or_else(|| Refused::new("k", "is missing"))?, rescale }
        }
        ("standard", false) => Kind::Standard,
        ("jumprelu", false) => Kind::JumpRelu,
        ("gated", false) => Kind::Gated,
        (other, _) if !["standard", "jumprelu", "gated", "topk"].contains(&other) => {
            let detail = format!("is \"{other}\"; standard, jumprelu, topk and gated are understood");
            return Err(Refused::new("architecture", detail));
        }
        (other, _) => {
            return Err(Refused::new("activation_fn", format!("does not go with the architecture \"{other}\"")));
        }
    };
    match (kind, k, rescale) {
        (Kind::TopK { .. }, ..) | (_, None, false) => Ok(kind),
        (_, Some(k), _) => Err(Refused::new("k", format!("is {k} in a {} autoencoder", kind.name()))),
        (.., true) => {
            Err(Refused::new("rescale_acts_by_decoder_norm", format!("is true in a {} autoencoder", kind.name())))
        }
    }
}
