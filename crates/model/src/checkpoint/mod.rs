//! The tensors of a checkpoint on disk: looked up by name, read row by row as float32. It owns which tensors have been read; it
//! knows nothing of what they mean.
//!
//! Files are read with `pread`, not mapped: a file that shrinks while the server runs then causes an error, not a signal.

mod gguf;
mod safetensors;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use candle_core::{
    Device,
    quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
};

use super::{
    error::LoadError,
    load_progress::{LoadProgress, LoadStage},
};

pub use gguf::{GgufFile, MetadataValue};

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    BF16,
    F64,
    Quantised(GgmlDType),
}

impl Stored {
    /// Elements and bytes of the smallest readable unit.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::F64 => (1, 8),
            Self::Quantised(q) => (q.block_size(), q.type_size()),
        }
    }

    fn name(self) -> String {
        match self {
            Self::F32 => "float32".to_owned(),
            Self::F16 => "float16".to_owned(),
            Self::BF16 => "bfloat16".to_owned(),
            Self::F64 => "float64".to_owned(),
            Self::Quantised(q) => format!("{q:?}"),
        }
    }

    /// Converts whole blocks.
    fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<(), String> {
        match self {
            Self::F32 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, b)| *o = f32::from_le_bytes(*b)),
            Self::F16 => {
                out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, b)| *o = half::f16::from_le_bytes(*b).to_f32());
            }
            Self::BF16 => {
                out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, b)| *o = half::bf16::from_le_bytes(*b).to_f32());
            }
            #[expect(clippy::cast_possible_truncation, reason = "the forward pass computes in float32")]
            Self::F64 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, b)| *o = f64::from_le_bytes(*b) as f32),
            Self::Quantised(q) => {
                let values = qtensor_from_ggml(q, bytes, vec![out.len()], &Device::Cpu)
                    .and_then(|t| t.dequantize(&Device::Cpu))
                    .and_then(|t| t.to_vec1::<f32>())
                    .map_err(|e| e.to_string())?;
                out.copy_from_slice(&values);
            }
        }
        Ok(())
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    offset: u64,
    shape: Vec<usize>,
    stored: Stored,
}

impl Entry {
    /// Number of elements; `None` if it overflows.
    fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))
    }

    /// Number of bytes on disk; `None` if it overflows, or if the last axis is not a multiple of the block size.
    fn bytes(&self) -> Option<u64> {
        let (elements, bytes) = self.stored.block();
        if !self.shape.last().copied().unwrap_or(1).is_multiple_of(elements) {
            return None;
        }
        u64::try_from(self.elements()? / elements).ok()?.checked_mul(bytes as u64)
    }
}

/// All tensors of a checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<(PathBuf, File)>,
    entries: HashMap<String, Entry>,
    /// Tensors of types that cannot be read, with the names of these types.
    unreadable: HashMap<String, String>,
    used: RefCell<HashSet<String>>,
    progress: LoadProgress,
}

impl Checkpoint {
    /// Checks every entry against its file, so that later reads fail only if the file changes.
    fn new(
        files: Vec<(PathBuf, File)>,
        entries: HashMap<String, Entry>,
        unreadable: HashMap<String, String>,
    ) -> Result<Self, LoadError> {
        let mut lengths = Vec::with_capacity(files.len());
        for (path, file) in &files {
            lengths.push(file.metadata().map_err(|e| LoadError::file(path, e))?.len());
        }
        for (name, entry) in &entries {
            let path = &files[entry.file].0;
            let bytes = entry.bytes().ok_or_else(|| {
                LoadError::file(path, format!("tensor `{name}` has the impossible shape {:?}", entry.shape))
            })?;
            let length = lengths[entry.file];
            if entry.offset.checked_add(bytes).is_none_or(|end| end > length) {
                let reason = format!(
                    "is truncated: tensor `{name}` needs {bytes} bytes at {}, the file has {length}",
                    entry.offset
                );
                return Err(LoadError::file(path, reason));
            }
        }
        Ok(Self { files, entries, unreadable, used: RefCell::default(), progress: LoadProgress::default() })
    }

    /// From now on each tensor that is read is counted there, and reading ends once that load is cancelled.
    pub fn report_to(&mut self, progress: &LoadProgress) {
        self.progress = progress.clone();
    }

    /// Where it reports.
    pub fn progress(&self) -> &LoadProgress {
        &self.progress
    }

    /// Begins the stage in which the weights are read.
    pub fn begin_weights(&self) {
        self.progress.begin(LoadStage::Weights, self.entries.values().filter_map(Entry::bytes).sum());
    }

    /// Bytes that all tensors take as float32.
    pub fn bytes_as_float32(&self) -> u64 {
        self.entries
            .values()
            .filter_map(Entry::elements)
            .map(|n| (n as u64).saturating_mul(4))
            .fold(0, u64::saturating_add)
    }

    /// The files, in a fixed order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The path that messages about the checkpoint as a whole name.
    pub fn place(&self) -> String {
        match self.files.as_slice() {
            [(path, _)] => path.display().to_string(),
            [(path, _), ..] => path.parent().unwrap_or(path).display().to_string(),
            [] => "checkpoint".to_owned(),
        }
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the name of any tensor has this prefix.
    pub fn has_below(&self, prefix: &str) -> bool {
        self.entries.keys().any(|name| name.starts_with(prefix))
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// The entry of a tensor. This does not count as reading it.
    fn entry(&self, name: &str) -> Result<&Entry, LoadError> {
        let missing = || {
            let reason = match self.unreadable.get(name) {
                Some(dtype) => format!("tensor `{name}` is {dtype}; float32, float16, bfloat16 and float64 are read"),
                None => format!("tensor `{name}` is missing"),
            };
            LoadError::new(self.place(), reason)
        };
        self.entries.get(name).ok_or_else(missing)
    }

    /// Marks a tensor as read.
    pub fn mark_used(&self, name: &str) {
        self.used.borrow_mut().insert(name.to_owned());
    }

    /// Names of the tensors that have been read.
    pub fn used(&self) -> HashSet<String> {
        self.used.borrow().clone()
    }

    /// Whether two tensors have the same shape and the same numbers. Does not count as reading them.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn equal(&self, one: &str, other: &str) -> Result<bool, LoadError> {
        let (Some(left), Some(right)) = (self.entries.get(one), self.entries.get(other)) else { return Ok(false) };
        if left.shape != right.shape {
            return Ok(false);
        }
        let (mut a, mut b) = (self.reader(one, left), self.reader(other, right));
        let (mut left, mut right) = (vec![0.0f32; a.width], vec![0.0f32; b.width]);
        for i in 0..a.count {
            a.row(i, &mut left)?;
            b.row(i, &mut right)?;
            if left != right {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens a tensor for reading by rows: the last axis is a row, the others are flattened.
    ///
    /// # Errors
    /// When there is no such tensor or its shape is not `shape`.
    pub fn rows(&self, name: &str, shape: &[usize]) -> Result<RowReader<'_>, LoadError> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            let reason = format!("tensor `{name}` has shape {:?}, expected {shape:?}", entry.shape);
            return Err(LoadError::file(&self.files[entry.file].0, reason));
        }
        self.progress.check()?;
        if self.used.borrow_mut().insert(name.to_owned()) {
            self.progress.add(entry.bytes().unwrap_or(0));
        }
        Ok(self.reader(name, entry))
    }

    fn reader<'a>(&'a self, name: &str, entry: &'a Entry) -> RowReader<'a> {
        let width = entry.shape.last().copied().unwrap_or(1);
        let (block, bytes) = entry.stored.block();
        RowReader {
            name: name.to_owned(),
            file: &self.files[entry.file],
            entry,
            width,
            row_bytes: width / block * bytes,
            count: entry.shape.iter().rev().skip(1).product(),
            held: 0..0,
            raw: Vec::new(),
            values: Vec::new(),
        }
    }

    /// A whole tensor as float32.
    ///
    /// # Errors
    /// As [`Self::rows`], or when the file cannot be read.
    pub fn whole(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let mut reader = self.rows(name, shape)?;
        let mut out = vec![0.0; reader.count * reader.width];
        if reader.width > 0 {
            for (i, row) in out.chunks_exact_mut(reader.width).enumerate() {
                reader.row(i, row)?;
            }
        }
        Ok(out)
    }

    /// Tensors that have not been read, sorted by name.
    pub fn unused(&self) -> Vec<&str> {
        let used = self.used.borrow();
        let all = self.entries.keys().chain(self.unreadable.keys()).map(String::as_str);
        let mut names: Vec<&str> = all.filter(|n| !used.contains(*n)).collect();
        names.sort_unstable();
        names
    }

    /// Number of parameters read so far, and the types they are stored in, joined by `+`, the most frequent first.
    pub fn census(&self) -> (u64, String) {
        let used = self.used.borrow();
        let mut by_type: BTreeMap<String, u64> = BTreeMap::new();
        for (name, entry) in self.entries.iter().filter(|(n, _)| used.contains(*n)) {
            let elements = entry.elements().unwrap_or_else(|| unreachable!("`{name}` was checked when opened"));
            *by_type.entry(entry.stored.name()).or_default() += elements as u64;
        }
        let mut types: Vec<(String, u64)> = by_type.into_iter().collect();
        types.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let names: Vec<&str> = types.iter().map(|(name, _)| name.as_str()).collect();
        (types.iter().map(|(_, n)| n).sum(), names.join("+"))
    }
}

/// Reads the rows of one tensor, a few at a time.
#[derive(Debug)]
pub struct RowReader<'a> {
    name: String,
    file: &'a (PathBuf, File),
    entry: &'a Entry,
    width: usize,
    row_bytes: usize,
    count: usize,
    /// Rows that `values` holds.
    held: std::ops::Range<usize>,
    raw: Vec<u8>,
    values: Vec<f32>,
}

/// Float32 values held at a time.
const HELD_VALUES: usize = 1 << 18;

impl RowReader<'_> {
    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes row `i` to `out`.
    ///
    /// # Errors
    /// When the file cannot be read (any more).
    pub fn row(&mut self, i: usize, out: &mut [f32]) -> Result<(), LoadError> {
        if !self.held.contains(&i) {
            self.hold(i).map_err(|e| LoadError::file(&self.file.0, format!("tensor `{}`: {e}", self.name)))?;
        }
        let at = (i - self.held.start) * self.width;
        out.copy_from_slice(&self.values[at..at + self.width]);
        Ok(())
    }

    fn hold(&mut self, i: usize) -> Result<(), String> {
        let rows = (HELD_VALUES / self.width.max(1)).max(1).min(self.count - i);
        self.raw.resize(rows * self.row_bytes, 0);
        self.values.resize(rows * self.width, 0.0);
        let offset = self.entry.offset + (i * self.row_bytes) as u64;
        self.file.1.read_exact_at(&mut self.raw, offset).map_err(|e| e.to_string())?;
        self.entry.stored.decode(&self.raw, &mut self.values)?;
        self.held = i..i + rows;
        Ok(())
    }
}
