//! Where forward passes run, and in which type: parses the settings and opens devices. It knows no model.

use std::{fmt, str::FromStr};

use candle_core::{DType, Device};

/// Where the forward passes of a model run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// On the CPU, with kernels of our own, in float32.
    #[default]
    Cpu,
    /// On the CPU, but through the code for accelerators. It is slow and meant for testing that code.
    CandleCpu,
    /// On an NVIDIA GPU, by its number.
    Cuda(usize),
    /// On an Apple GPU, by its number.
    Metal(usize),
}

impl Placement {
    /// Checks that this build supports devices of this kind, and that they support this type.
    ///
    /// # Errors
    /// What is not supported, and what is instead.
    pub(crate) fn check(self, compute_dtype: Option<ComputeDtype>) -> Result<(), String> {
        let (driven, what, feature) = match self {
            Self::Cpu => {
                let other = compute_dtype.filter(|dtype| *dtype != ComputeDtype::Float32);
                return other.map_or(Ok(()), |other| Err(format!("the CPU computes in float32, not in {other}")));
            }
            Self::CandleCpu => return Ok(()),
            Self::Cuda(_) => (cfg!(feature = "cuda"), "NVIDIA GPU", "cuda"),
            Self::Metal(_) => (cfg!(feature = "metal"), "Apple GPU", "metal"),
        };
        if driven { Ok(()) } else { Err(format!("this build drives no {what}: build it with --features {feature}")) }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) fn open(self) -> Result<Device, String> {
        match self {
            Self::Cpu | Self::CandleCpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(n) => super::nvidia::open(n).map_err(|e| format!("there is no {self}: {e}")),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(format!("there is no {self} in this build")),
            Self::Metal(n) => Device::new_metal(n).map_err(|e| format!("there is no {self}: {e}")),
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::CandleCpu => f.write_str("candle-cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Metal(n) => write!(f, "metal:{n}"),
        }
    }
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').map_or((text, None), |(kind, n)| (kind, Some(n)));
        let number = number.map(str::parse::<usize>).transpose();
        match (kind, number) {
            ("cpu", Ok(None)) => Ok(Self::Cpu),
            ("candle-cpu", Ok(None)) => Ok(Self::CandleCpu),
            ("cuda", Ok(n)) => Ok(Self::Cuda(n.unwrap_or(0))),
            ("metal", Ok(n)) => Ok(Self::Metal(n.unwrap_or(0))),
            _ => Err("write cpu, cuda, cuda:1, metal or candle-cpu; several of a kind with commas".to_owned()),
        }
    }
}

/// One or more devices of one kind. Each runs batches on its own, and holds every model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placements(Vec<Placement>);

impl Placements {
    /// Checks and combines placements.
    ///
    /// # Errors
    /// When there are none, they are of several kinds, or one of them appears twice.
    pub fn new(places: Vec<Placement>) -> Result<Self, String> {
        let Some((first, others)) = places.split_first() else { return Err("name a device".to_owned()) };
        if others.iter().any(|p| std::mem::discriminant(p) != std::mem::discriminant(first)) {
            return Err("devices of one kind only: numbers of different kinds are not the same".to_owned());
        }
        let twice = (1..places.len()).find(|i| places[..*i].contains(&places[*i]));
        match twice.map(|i| places[i]) {
            // `Reference` exists for testing only
            None | Some(Placement::CandleCpu) => Ok(Self(places)),
            Some(Placement::Cpu) => Err("the CPU is one place, with --threads".to_owned()),
            Some(place) => Err(format!("{place} is named twice")),
        }
    }

    /// The placements; at least one.
    #[must_use]
    pub fn all(&self) -> &[Placement] {
        &self.0
    }
}

impl Default for Placements {
    fn default() -> Self {
        Placement::default().into()
    }
}

impl From<Placement> for Placements {
    fn from(place: Placement) -> Self {
        Self(vec![place])
    }
}

impl fmt::Display for Placements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, place) in self.0.iter().enumerate() {
            write!(f, "{}{place}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Placements {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text.split(',').map(|place| place.trim().parse()).collect::<Result<_, _>>()?)
    }
}

/// The type in which an accelerator computes products with weights. Everything between them (residual stream,
/// norms, attention, activations) is float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeDtype {
    /// IEEE single precision, without TF32.
    Float32,
    /// bfloat16: 8 bits of exponent, 8 of precision.
    Bfloat16,
    /// IEEE half precision.
    Float16,
}

impl ComputeDtype {
    /// The type of a checkpoint's weights, as [`residuum_domain::ModelInfo::weights_dtype`] spells it; float32 for any other type.
    pub(crate) fn of_weights(weights_dtype: &str) -> Self {
        match weights_dtype.split('+').next() {
            Some("bfloat16") => Self::Bfloat16,
            Some("float16") => Self::Float16,
            _ => Self::Float32,
        }
    }

    pub(super) fn candle(self) -> DType {
        match self {
            Self::Float32 => DType::F32,
            Self::Bfloat16 => DType::BF16,
            Self::Float16 => DType::F16,
        }
    }
}

impl fmt::Display for ComputeDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
        })
    }
}

impl FromStr for ComputeDtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "float32" => Ok(Self::Float32),
            "bfloat16" => Ok(Self::Bfloat16),
            "float16" => Ok(Self::Float16),
            _ => Err("write float32, bfloat16 or float16".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_they_are_read() {
        for text in ["cpu", "candle-cpu", "cuda:0", "cuda:3", "metal:1"] {
            assert_eq!(text.parse::<Placement>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Placement::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "cuda:1:2"] {
            assert!(text.parse::<Placement>().is_err(), "{text}");
        }
    }

    #[test]
    fn several_places_are_of_one_kind() {
        for text in ["cpu", "cuda:0,cuda:2", "candle-cpu,candle-cpu"] {
            assert_eq!(text.parse::<Placements>().unwrap().to_string(), text);
        }
        assert_eq!("cuda, cuda:1".parse::<Placements>().unwrap().all(), [Placement::Cuda(0), Placement::Cuda(1)]);
        for text in ["", ",", "cuda:0,", "cuda:0,cpu", "cpu,cpu", "cuda,cuda:0", "cuda:0,metal:0"] {
            assert!(text.parse::<Placements>().is_err(), "{text}");
        }
        assert!(Placements::new(Vec::new()).is_err());
        assert_eq!(Placements::default().all(), [Placement::Cpu]);
    }

    #[test]
    fn the_type_is_the_checkpoints_own() {
        assert_eq!(ComputeDtype::of_weights("bfloat16"), ComputeDtype::Bfloat16);
        assert_eq!(ComputeDtype::of_weights("float16+float32"), ComputeDtype::Float16);
        assert_eq!(ComputeDtype::of_weights("Q4_1+Q8_0+float32"), ComputeDtype::Float32);
        for text in ["float32", "bfloat16", "float16"] {
            assert_eq!(text.parse::<ComputeDtype>().unwrap().to_string(), text);
        }
    }
}
