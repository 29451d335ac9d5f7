//! Parses and checks the header of an untrusted safetensors file.
//!
//! Format: <https://huggingface.co/docs/safetensors>. Eight bytes of length, little-endian; a JSON object of that length; the
//! data of the tensors. Pure functions over bytes. Their memory is bounded by the bytes that have arrived, not by the sizes that the
//! header claims.

use std::{cmp::Ordering, collections::BTreeMap, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{
    dtype::Dtype,
    problem::{Code, Problem},
};

/// Longest header that is accepted: enough for two hundred thousand tensors.
pub const MAX_HEADER_BYTES: usize = 16 << 20;
/// Number of characters of a name or message from the file that an answer repeats.
const SHOWN: usize = 100;

/// An element type that imports accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileDtype {
    /// A type that can be stored without conversion.
    Float(Dtype),
    /// IEEE binary64, which is rounded to a narrower type.
    Float64,
    /// 64-bit integers: token ids.
    Int64,
    /// 32-bit integers: token ids.
    Int32,
}

impl FileDtype {
    const ALL: [Self; 6] = [
        Self::Float(Dtype::Float32),
        Self::Float(Dtype::Float16),
        Self::Float(Dtype::BFloat16),
        Self::Float64,
        Self::Int64,
        Self::Int32,
    ];

    /// The name in a header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float(dtype) => dtype.safetensors_name(),
            Self::Float64 => "F64",
            Self::Int64 => "I64",
            Self::Int32 => "I32",
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.size(),
            Self::Float64 | Self::Int64 => 8,
            Self::Int32 => 4,
        }
    }

    /// Converts little-endian elements to another type, each rounded once, to nearest. A trailing partial element is dropped.
    /// Elements that have the type already keep every bit, including NaN payloads. Integers are not activations: the result
    /// is empty.
    #[must_use]
    pub fn convert(self, bytes: Vec<u8>, to: Dtype) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Float(dtype) if dtype == to => return bytes,
            Self::Float(dtype) => to.encode(&dtype.decode(&bytes), &mut out),
            Self::Float64 => {
                let values = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b));
                match to {
                    #[expect(clippy::cast_possible_truncation, reason = "rounding is what was asked for")]
                    Dtype::Float32 => values.for_each(|v| out.extend((v as f32).to_le_bytes())),
                    Dtype::Float16 => {
                        values.for_each(|v| out.extend(half::f16::from_f32(rounded_to_odd(v)).to_le_bytes()))
                    }
                    Dtype::BFloat16 => {
                        values.for_each(|v| out.extend(half::bf16::from_f32(rounded_to_odd(v)).to_le_bytes()))
                    }
                }
            }
            Self::Int64 | Self::Int32 => {}
        }
        out
    }
}

/// Rounds a double to a float32 that rounds to the same narrower value as the double itself: an inexact result is the neighbour
/// whose last bit is 1 (round to odd; Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using
/// rounding to odd", 2008). `half::bf16::from_f64` cannot be used: it looks at the upper 32 bits only.
fn rounded_to_odd(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what was asked for")]
    let nearest = value as f32;
    if nearest.to_bits() & 1 == 1 {
        return nearest;
    }
    match f64::from(nearest).partial_cmp(&value) {
        Some(Ordering::Less) => nearest.next_up(),
        Some(Ordering::Greater) => nearest.next_down(),
        _ => nearest,
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTensor {
    /// Its key.
    pub name: String,
    /// Type of its elements.
    pub dtype: FileDtype,
    /// Sizes of its axes, none of them 0.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the end of the header.
    pub data: Range<u64>,
}

/// A valid header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHeader {
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors in the order of their data, which is contiguous from 0 on.
    pub tensors: Vec<FileTensor>,
    /// Number of bytes after the header.
    pub data_len: u64,
}

/// Length of the header, from the first eight bytes of a file.
///
/// # Errors
/// [`Code::InvalidSafetensors`] for a length of 0, or of more than [`MAX_HEADER_BYTES`].
pub fn header_len(first: [u8; 8]) -> Result<usize, Problem> {
    let claimed = u64::from_le_bytes(first);
    usize::try_from(claimed).ok().filter(|len| (2..=MAX_HEADER_BYTES).contains(len)).ok_or_else(|| {
        malformed(format!(
            "the first eight bytes say that the header has {claimed} bytes; it has at least 2 and at most {MAX_HEADER_BYTES}"
        ))
    })
}

fn malformed(detail: String) -> Problem {
    Problem::new(Code::InvalidSafetensors, detail)
}

/// A problem with one tensor; its pointer is into the header.
pub(super) fn at_tensor(code: Code, name: &str, detail: impl Into<String>) -> Problem {
    let key: String = name.chars().take(SHOWN).collect();
    Problem::at(code, format!("/{}", key.replace('~', "~0").replace('/', "~1")), detail)
}

impl FileHeader {
    /// Parses a header from its JSON.
    ///
    /// # Errors
    /// [`Code::InvalidSafetensors`] when it is not JSON of the documented form, when a name appears twice, when the size of a
    /// tensor's data does not match its type and shape, or when data overlap or leave gaps; [`Code::InvalidValue`] for an
    /// element type that is not accepted, and for a tensor without elements.
    pub fn parse(json: &[u8]) -> Result<Self, Problem> {
        if json.first() != Some(&b'{') {
            return Err(malformed("the header does not begin with `{`".to_owned()));
        }
        let raw: RawHeader = serde_json::from_slice(json).map_err(|e| {
            let why: String = e.to_string().chars().take(2 * SHOWN).collect();
            malformed(format!("the header is not the JSON of a safetensors file: {why}"))
        })?;
        let mut tensors = raw.tensors.into_iter().map(RawTensor::checked).collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|t| (t.data.start, t.data.end));
        let mut end = 0;
        for tensor in &tensors {
            if tensor.data.start != end {
                let what = if tensor.data.start < end { "overlap those of another tensor" } else { "leave a gap" };
                let detail = format!("its bytes {} to {} {what}: {end} comes next", tensor.data.start, tensor.data.end);
                return Err(at_tensor(Code::InvalidSafetensors, &tensor.name, detail));
            }
            end = tensor.data.end;
        }
        let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(at_tensor(Code::InvalidSafetensors, twice[0], "the header names this tensor twice"));
        }
        Ok(Self { metadata: raw.metadata.unwrap_or_default(), tensors, data_len: end })
    }
}

/// The entries of a header, including duplicates, which a map would hide.
#[derive(Default)]
struct RawHeader {
    metadata: Option<BTreeMap<String, String>>,
    tensors: Vec<RawTensor>,
}

struct RawTensor {
    name: String,
    info: RawInfo,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawHeader, M::Error> {
                let mut header = RawHeader::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name != "__metadata__" {
                        header.tensors.push(RawTensor { name, info: map.next_value()? });
                    } else if header.metadata.replace(map.next_value()?).is_some() {
                        return Err(M::Error::custom("`__metadata__` appears twice"));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

impl RawTensor {
    fn checked(self) -> Result<FileTensor, Problem> {
        let Self { name, info: RawInfo { dtype, shape, data_offsets: (begin, end) } } = self;
        let Some(dtype) = FileDtype::ALL.into_iter().find(|known| known.name() == dtype) else {
            let dtype: String = dtype.chars().take(SHOWN).collect();
            let known: Vec<&str> = FileDtype::ALL.iter().map(|d| d.name()).collect();
            let detail = format!("elements of type `{dtype}` are not taken; {} are", known.join(", "));
            return Err(at_tensor(Code::InvalidValue, &name, detail));
        };
        if shape.contains(&0) {
            return Err(at_tensor(Code::InvalidValue, &name, "it has no elements: an axis has length 0"));
        }
        let n_bytes = shape.iter().try_fold(dtype.size() as u64, |n, axis| n.checked_mul(*axis));
        let sizes: Option<Vec<usize>> = shape.iter().map(|axis| usize::try_from(*axis).ok()).collect();
        match (n_bytes, sizes) {
            (Some(n), Some(shape)) if begin.checked_add(n) == Some(end) => {
                Ok(FileTensor { name, dtype, shape, data: begin..end })
            }
            (n, _) => {
                let wanted = n.map_or_else(|| "more than there can be".to_owned(), |n| n.to_string());
                let detail =
                    format!("its offsets {begin} to {end} do not hold the {wanted} bytes that its type and shape need");
                Err(at_tensor(Code::InvalidSafetensors, &name, detail))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(json: &str) -> Code {
        FileHeader::parse(json.as_bytes()).unwrap_err().code
    }

    #[test]
    fn a_header_is_read_in_the_order_of_its_bytes() {
        let json = r#"{"b":{"dtype":"F16","shape":[2,3],"data_offsets":[8,20]},"__metadata__":{"k":"v"},
            "a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"c":{"dtype":"F32","shape":[],"data_offsets":[20,24]}}   "#;
        let header = FileHeader::parse(json.as_bytes()).unwrap();
        assert_eq!(header.metadata["k"], "v");
        assert_eq!(header.data_len, 24);
        let names: Vec<&str> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((header.tensors[1].shape.as_slice(), header.tensors[1].data.clone()), ([2, 3].as_slice(), 8..20));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for json in [
            "",
            "[]",
            " {}",
            "{",
            "{} x",
            r#"{"a":1}"#,
            r#"{"a":{"dtype":"F32","shape":[1]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}"#,
            r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            r#"{"__metadata__":{},"__metadata__":{}}"#,
            r#"{"__metadata__":{"a":1}}"#,
        ] {
            assert_eq!(code(json), Code::InvalidSafetensors, "{json}");
        }
        assert_eq!(code(r#"{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#), Code::InvalidValue);
        assert_eq!(code(r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#), Code::InvalidValue);
        assert!(header_len(u64::MAX.to_le_bytes()).is_err());
        assert!(header_len((MAX_HEADER_BYTES as u64 + 1).to_le_bytes()).is_err());
        assert!(header_len([0; 8]).is_err());
        assert_eq!(header_len(2u64.to_le_bytes()), Ok(2));
    }

    #[test]
    fn doubles_are_rounded_once() {
        // halfway between two float32 whose upper neighbour would round up again on the way to bfloat16
        let value = 1.0 + 2f64.powi(-8) + 2f64.powi(-26);
        let bytes = FileDtype::Float64.convert(value.to_le_bytes().to_vec(), Dtype::BFloat16);
        assert_eq!(Dtype::BFloat16.decode(&bytes), [1.0 + 2f32.powi(-7)]);
        // the same from below, and from among the numbers too small for float16's normal ones
        let value = 1.0 + 2f64.powi(-7) + 2f64.powi(-8) - 2f64.powi(-40);
        let bytes = FileDtype::Float64.convert(value.to_le_bytes().to_vec(), Dtype::BFloat16);
        assert_eq!(Dtype::BFloat16.decode(&bytes), [1.0 + 2f32.powi(-7)]);
        let value = 2f64.powi(-25) + 2f64.powi(-70);
        let bytes = FileDtype::Float64.convert(value.to_le_bytes().to_vec(), Dtype::Float16);
        assert_eq!(Dtype::Float16.decode(&bytes), [2f32.powi(-24)]);
        let bytes = FileDtype::Float64.convert(1e300f64.to_le_bytes().to_vec(), Dtype::Float32);
        assert_eq!(Dtype::Float32.decode(&bytes), [f32::INFINITY]);
        let signalling = vec![1, 0, 0x80, 0x7f];
        assert_eq!(FileDtype::Float(Dtype::Float32).convert(signalling.clone(), Dtype::Float32), signalling);
    }

    /// What holds for every header that is taken.
    fn check(header: &FileHeader) {
        let mut end = 0;
        for tensor in &header.tensors {
            let n: usize = tensor.shape.iter().product();
            assert_eq!(tensor.data, end..end + (n * tensor.dtype.size()) as u64);
            end = tensor.data.end;
        }
        assert_eq!(end, header.data_len);
    }

    fn valid() -> Vec<u8> {
        br#"{"__metadata__":{"model":"m"},"resid_post":{"dtype":"F32","shape":[2,3,4],"data_offsets":[0,96]},
            "token_ids":{"dtype":"I64","shape":[3],"data_offsets":[96,120]}}"#
            .to_vec()
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused_or_right(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(header) = FileHeader::parse(&bytes) {
                check(&header);
            }
        }

        #[test]
        fn mutated_headers_are_refused_or_right(
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        ) {
            let mut bytes = valid();
            for (at, byte, how) in edits {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = byte,
                    1 => bytes[at] = b'0' + byte % 10,
                    2 => bytes.insert(at, b'0' + byte % 10),
                    _ => { bytes.remove(at); }
                }
            }
            if let Ok(header) = FileHeader::parse(&bytes) {
                check(&header);
            }
        }

        #[test]
        fn any_numbers_are_refused_or_right(shape in proptest::collection::vec(any::<u64>(), 0..4), a in any::<u64>(), b in any::<u64>()) {
            let json = format!(r#"{{"x":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{a},{b}]}}}}"#);
            if let Ok(header) = FileHeader::parse(json.as_bytes()) {
                check(&header);
            }
        }
    }
}
