//! Element types of stored and served tensors.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A float type that activations are stored or served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE binary32.
    #[default]
    Float32,
    /// IEEE binary16: 11 significant bits, largest finite value 65,504.
    Float16,
    /// The upper half of a binary32: 8 significant bits, the range of float32.
    BFloat16,
}

impl Dtype {
    /// Every type, in the order the documentation lists them.
    pub const ALL: [Self; 3] = [Self::Float32, Self::Float16, Self::BFloat16];

    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::BFloat16 => 2,
        }
    }

    /// The name in this API, which is also PyTorch's and numpy's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
        }
    }

    /// The name in a safetensors header.
    #[must_use]
    pub const fn safetensors_name(self) -> &'static str {
        match self {
            Self::Float32 => "F32",
            Self::Float16 => "F16",
            Self::BFloat16 => "BF16",
        }
    }

    /// Appends `values`, rounded to the nearest representable (ties to even), as little-endian bytes.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        out.reserve(values.len() * self.size());
        match self {
            Self::Float32 => values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
            Self::Float16 => values.iter().for_each(|v| out.extend_from_slice(&half::f16::from_f32(*v).to_le_bytes())),
            Self::BFloat16 => {
                values.iter().for_each(|v| out.extend_from_slice(&half::bf16::from_f32(*v).to_le_bytes()));
            }
        }
    }

    /// Little-endian bytes of this type as float32 values; a trailing partial element is dropped.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::Float32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Self::Float16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Self::BFloat16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|d| d.name() == s || d.safetensors_name() == s).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_types_round_within_half_an_ulp() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.173).collect();
        for (dtype, significant_bits) in [(Dtype::Float32, 24), (Dtype::Float16, 11), (Dtype::BFloat16, 8)] {
            let mut bytes = Vec::new();
            dtype.encode(&values, &mut bytes);
            assert_eq!(bytes.len(), values.len() * dtype.size());
            for (v, r) in values.iter().zip(dtype.decode(&bytes)) {
                let half_ulp = 2f32.powi(v.abs().max(f32::MIN_POSITIVE).log2().floor() as i32 - significant_bits);
                assert!((v - r).abs() <= half_ulp, "{dtype}: {v} became {r}");
            }
        }
    }

    #[test]
    fn names_parse_back() {
        for d in Dtype::ALL {
            assert_eq!(d.name().parse(), Ok(d));
            assert_eq!(d.safetensors_name().parse(), Ok(d));
            assert_eq!(serde_json::to_value(d).unwrap(), d.name());
        }
        assert!("float64".parse::<Dtype>().is_err());
    }
}
