//! Parses the header of a GGUF file: its metadata, and where each tensor is (`docs/gguf.md` in ggml-org/ggml).
//!
//! Every length is checked against the rest of the file before anything of that length is allocated.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
};

use candle_core::quantized::GgmlDType;
use serde_json::{Number, Value};

use super::super::Stored;

/// Longest string, in bytes. Chat templates have about ten thousand.
const MAX_TEXT: u64 = 1 << 26;

/// Longest list. The largest vocabularies have a few hundred thousand tokens and twice as many merges.
const MAX_ENTRIES: u64 = 1 << 24;

/// Most axes of a tensor.
const MAX_AXES: u32 = 4;

/// Where tensor data may start, unless the file says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Names of tensor types that cannot be read, for messages.
const OTHER_TYPES: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// A value of the metadata. All widths of integers are one variant, and so are all floats.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// Any integer.
    Integer(i128),
    /// Any float.
    Float(f64),
    /// A boolean.
    Flag(bool),
    /// A string. Bytes that are not UTF-8 are replaced by U+FFFD.
    Text(String),
    /// A list of any of the above.
    List(Vec<MetadataValue>),
}

impl MetadataValue {
    /// A finite number or a boolean as JSON. Float32 values are converted exactly.
    pub fn number(&self) -> Option<Value> {
        match self {
            Self::Integer(v) => {
                let signed = || i64::try_from(*v).map(Value::from);
                u64::try_from(*v).map(Value::from).or_else(|_| signed()).ok()
            }
            Self::Float(v) => Number::from_f64(*v).map(Value::Number),
            Self::Flag(v) => Some((*v).into()),
            Self::Text(_) | Self::List(_) => None,
        }
    }
}

/// Where a tensor is, and how it is stored.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Slowest axis first.
    pub shape: Vec<usize>,
    /// Type of its numbers.
    pub stored: Stored,
    /// First byte, counted from the start of the file.
    pub offset: u64,
}

/// A header that has been read.
#[derive(Debug)]
pub struct Header {
    /// Metadata by key.
    pub metadata: BTreeMap<String, MetadataValue>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads the header of a file of `length` bytes.
    ///
    /// # Errors
    /// When it is truncated, has lengths that do not match, the same name twice, or a type that cannot be read.
    pub fn read(file: &File, length: u64) -> Result<Self, String> {
        let mut source = Source { reader: BufReader::new(file), at: 0, length };
        if source.array()? != *b"GGUF" {
            return Err("it does not start with GGUF".to_owned());
        }
        let version = source.u32()?;
        if version != 2 && version != 3 {
            return Err(format!("its version is {version}; 2 and 3, little-endian, are understood"));
        }
        let (n_tensors, n_keys) = (source.u64()?, source.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..n_keys {
            let key = source.text()?;
            let kind = source.u32()?;
            let value = source.value(kind).map_err(|e| format!("`{key}`: {e}"))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("`{key}` is there twice"));
            }
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..n_tensors {
            let name = source.text()?;
            let info = source.tensor().map_err(|e| format!("tensor `{name}`: {e}"))?;
            if tensors.insert(name.clone(), info).is_some() {
                return Err(format!("tensor `{name}` is there twice"));
            }
        }
        let start = source.at.next_multiple_of(alignment(&metadata)?);
        tensors.values_mut().for_each(|t| t.offset = t.offset.saturating_add(start));
        Ok(Self { metadata, tensors })
    }
}

fn alignment(metadata: &BTreeMap<String, MetadataValue>) -> Result<u64, String> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(MetadataValue::Integer(n @ 1..=0x1_0000)) => {
            u64::try_from(*n).map_err(|e| format!("`general.alignment`: {e}"))
        }
        Some(_) => Err("`general.alignment` is not a small positive integer".to_owned()),
    }
}

/// The type of a tensor.
fn stored(kind: u32) -> Result<Stored, String> {
    Ok(match kind {
        0 => Stored::F32,
        1 => Stored::F16,
        2 => Stored::Quantised(GgmlDType::Q4_0),
        3 => Stored::Quantised(GgmlDType::Q4_1),
        6 => Stored::Quantised(GgmlDType::Q5_0),
        7 => Stored::Quantised(GgmlDType::Q5_1),
        8 => Stored::Quantised(GgmlDType::Q8_0),
        10 => Stored::Quantised(GgmlDType::Q2K),
        11 => Stored::Quantised(GgmlDType::Q3K),
        12 => Stored::Quantised(GgmlDType::Q4K),
        13 => Stored::Quantised(GgmlDType::Q5K),
        14 => Stored::Quantised(GgmlDType::Q6K),
        28 => Stored::F64,
        30 => Stored::BF16,
        other => {
            let name = OTHER_TYPES.iter().find(|(k, _)| *k == other).map_or("unknown", |(_, name)| name);
            return Err(format!("type {name} ({other}) is not supported"));
        }
    })
}

/// Reads a file sequentially, and keeps track of how much is left.
struct Source<'f> {
    reader: BufReader<&'f File>,
    at: u64,
    length: u64,
}

impl Source<'_> {
    /// Fails if fewer than `n` bytes are left.
    fn need(&self, n: u64) -> Result<(), String> {
        let left = self.length.saturating_sub(self.at);
        if n > left { Err(format!("{n} bytes are needed at {}, {left} are left", self.at)) } else { Ok(()) }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.need(bytes.len() as u64)?;
        self.reader.read_exact(bytes).map_err(|e| e.to_string())?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string. Some writers end it with zero bytes.
    fn text(&mut self) -> Result<String, String> {
        let n = self.u64()?;
        if n > MAX_TEXT {
            return Err(format!("a string of {n} bytes is too long"));
        }
        self.need(n)?;
        let mut bytes = vec![0; usize::try_from(n).map_err(|e| e.to_string())?];
        self.fill(&mut bytes)?;
        let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// A value of the numbered type.
    fn value(&mut self, kind: u32) -> Result<MetadataValue, String> {
        if kind != 9 {
            return self.scalar(kind);
        }
        let (kind, n) = (self.u32()?, self.u64()?);
        if n > MAX_ENTRIES {
            return Err(format!("a list of {n} entries is too long"));
        }
        (0..n).map(|_| self.scalar(kind)).collect::<Result<_, _>>().map(MetadataValue::List)
    }

    fn scalar(&mut self, kind: u32) -> Result<MetadataValue, String> {
        use MetadataValue::{Flag, Float, Integer, Text};
        Ok(match kind {
            0 => Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Integer(self.u32()?.into()),
            5 => Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Float(f32::from_le_bytes(self.array()?).into()),
            7 => match self.array()? {
                [0] => Flag(false),
                [1] => Flag(true),
                [other] => return Err(format!("a truth value is {other}")),
            },
            8 => Text(self.text()?),
            10 => Integer(self.u64()?.into()),
            11 => Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Float(f64::from_le_bytes(self.array()?)),
            9 => return Err("a list of lists is not understood".to_owned()),
            other => return Err(format!("a value of type {other} is not understood")),
        })
    }

    /// A tensor entry; its offset is counted from the start of the data.
    fn tensor(&mut self) -> Result<TensorInfo, String> {
        let n_axes = self.u32()?;
        if n_axes > MAX_AXES {
            return Err(format!("{n_axes} axes are too many"));
        }
        let mut shape = Vec::new();
        for _ in 0..n_axes {
            shape.push(usize::try_from(self.u64()?).map_err(|e| e.to_string())?);
        }
        shape.reverse();
        let stored = stored(self.u32()?)?;
        Ok(TensorInfo { shape, stored, offset: self.u64()? })
    }
}
