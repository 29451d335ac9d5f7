//! Writes a shard as one file.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    shard::Shard,
    sink::{Sink, Stop},
    zip,
};
use crate::api::tensor::{Assembly, HeaderEntry, Part, safetensors_header};
use residuum_domain::Dtype;
use residuum_engine::questions::export::ExportPlan;
use residuum_store::Store;

/// Format of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// A safetensors file.
    Safetensors,
    /// A NumPy archive.
    Npz,
}

impl Container {
    /// File extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Npz => "npz",
        }
    }

    /// The type in which values of `dtype` are written. NumPy has no bfloat16.
    pub fn sent(self, dtype: Dtype) -> Dtype {
        if self == Self::Npz && dtype == Dtype::BFloat16 { Dtype::Float32 } else { dtype }
    }
}

/// A file of known length.
pub enum File {
    /// A safetensors file.
    Plain(Assembly),
    /// A NumPy archive.
    Zip(Vec<zip::Entry>),
}

impl File {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Plain(assembly) => assembly.len(),
            Self::Zip(entries) => zip::len(entries),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn write(self, sink: &Sink, store: &Store) -> Result<(), Stop> {
        match self {
            Self::Plain(assembly) => sink.send_all(assembly, store, |_| {}).await,
            Self::Zip(entries) => zip::write(entries, sink, store).await,
        }
    }
}

/// Makes the file of a shard.
pub fn make(container: Container, shard: &Shard, plan: &ExportPlan, sent: Dtype) -> File {
    match container {
        Container::Safetensors => File::Plain(safetensors(shard, plan, sent)),
        Container::Npz => File::Zip(zip::entries(shard, plan, sent)),
    }
}

/// The tables of rows come first: after two-byte elements, their eight-byte elements would be unaligned.
fn safetensors(shard: &Shard, plan: &ExportPlan, sent: Dtype) -> Assembly {
    let (mut entries, mut content) = (Vec::new(), Assembly::default());
    for (name, table) in shard.row_tables() {
        let n_bytes = table.len() as u64;
        entries.push(HeaderEntry { name: name.to_owned(), dtype: "I64", shape: vec![shard.n_rows], n_bytes });
        content.push(Part::Made(Bytes::from(table)));
    }
    for (i, array) in plan.arrays.iter().enumerate() {
        let rows = shard.array(i, plan.dtype, sent);
        let shape = [&[shard.n_rows], array.row_shape.as_slice()].concat();
        let (name, dtype) = (array.name.clone(), sent.safetensors_name());
        entries.push(HeaderEntry { name, dtype, shape, n_bytes: rows.len() });
        content.append(rows);
    }
    let mut metadata = Map::new();
    metadata.insert("format".to_owned(), Value::from("pt"));
    metadata.insert("manifest".to_owned(), Value::from(shard.manifest(plan, sent)));
    let mut whole = Assembly::default();
    whole.push(Part::Made(safetensors_header(&entries, &metadata).into()));
    whole.append(content);
    whole
}
