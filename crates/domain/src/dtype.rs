//! Element types of stored and served tensors.

use std::{fmt, str::FromStr};

use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

/// The float types in which activations are stored and served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE binary32.
    #[default]
    Float32,
    /// IEEE binary16: 11 significant bits, largest finite value 65,504.
    Float16,
    /// bfloat16, the upper half of a binary32: 8 significant bits, and the range of float32.
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
            Self::Float32 => encode_blocks(values, out, |v, word| *word = v.to_bits().to_le()),
            Self::Float16 => {
                let mut block = [half::f16::ZERO; BLOCK];
                for values in values.chunks(BLOCK) {
                    let block = &mut block[..values.len()];
                    // uses the processor's conversion instructions, if it has them
                    block.convert_from_f32_slice(values);
                    let words: &mut [u16] = block.reinterpret_cast_mut();
                    words.iter_mut().for_each(|w| *w = w.to_le());
                    out.extend_from_slice(bytemuck::cast_slice(words));
                }
            }
            Self::BFloat16 => encode_blocks(values, out, |v, word| *word = bfloat16_bits(v).to_le()),
        }
    }

    /// The bytes of `values`, if they are in memory as [`Self::encode`] would write them.
    #[must_use]
    pub fn as_encoded(self, values: &[f32]) -> Option<&[u8]> {
        (self == Self::Float32 && cfg!(target_endian = "little")).then(|| bytemuck::cast_slice(values))
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

/// Number of values that are encoded at a time: few enough for the first-level cache, enough for vector instructions.
const BLOCK: usize = 1024;

fn encode_blocks<W: bytemuck::Pod>(values: &[f32], out: &mut Vec<u8>, encode: impl Fn(f32, &mut W)) {
    let mut block = [W::zeroed(); BLOCK];
    for values in values.chunks(BLOCK) {
        values.iter().zip(&mut block).for_each(|(v, word)| encode(*v, word));
        out.extend_from_slice(bytemuck::cast_slice(&block[..values.len()]));
    }
}

/// The upper half of a float32, rounded to nearest, ties to even; NaNs stay NaNs and become quiet. Without branches, so
/// that it vectorises; `half` has the same result one value at a time.
fn bfloat16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    let chosen = if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded };
    (chosen & 0xffff) as u16
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
    fn blocks_encode_as_single_values_do() {
        // every sign, exponent and upper part of the fraction, with lower halves around the ties
        let lower = [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        let values: Vec<f32> =
            (0..=0xffffu32).flat_map(|upper| lower.map(|l| f32::from_bits(upper << 16 | l))).collect();
        for dtype in Dtype::ALL {
            let (mut all, mut single) = (Vec::new(), Vec::new());
            dtype.encode(&values, &mut all);
            for v in &values {
                match dtype {
                    Dtype::Float32 => single.extend(v.to_le_bytes()),
                    Dtype::Float16 => single.extend(half::f16::from_f32(*v).to_le_bytes()),
                    Dtype::BFloat16 => single.extend(half::bf16::from_f32(*v).to_le_bytes()),
                }
            }
            assert_eq!(all.len(), single.len());
            let different = all.chunks(dtype.size()).zip(single.chunks(dtype.size())).position(|(a, b)| a != b);
            assert_eq!(different.map(|i| values[i].to_bits()), None, "{dtype}");
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
