//! Writes an Arrow IPC stream, one record batch at a time. Each row of activations is a row of the table.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow_array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
    builder::{ListBuilder, StringBuilder},
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde_json::json;

use super::{
    manifest::arrays,
    shard::parts,
    sink::{Sink, Stop},
};
use crate::api::tensor::Assembly;
use residuum_domain::{Code, Dtype, Problem};
use residuum_engine::questions::export::{CachePages, ExportArray, ExportPlan, Picked};
use residuum_store::Store;

/// Maximum bytes of a record batch, unless a single row has more.
const BATCH: usize = 8 << 20;
/// Maximum rows of a record batch.
const MAX_ROWS: usize = 1 << 16;

/// The type in which values of `dtype` are sent. Arrow has no bfloat16.
pub fn sent(dtype: Dtype) -> Dtype {
    if dtype == Dtype::BFloat16 { Dtype::Float32 } else { dtype }
}

fn failed(error: ArrowError) -> Stop {
    tracing::error!(%error, "a record batch could not be written");
    Stop::Failed(Problem::new(Code::Internal, "a record batch could not be written"))
}

/// Rows of one cache.
struct Run {
    picked: Arc<Picked>,
    rows: Range<usize>,
}

/// Writes the stream.
///
/// # Errors
/// [`Stop`].
pub async fn write(mut pages: CachePages, plan: ExportPlan, sink: &Sink, store: &Store) -> Result<(), Stop> {
    let schema = Arc::new(schema(&plan)?);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
    let mut batch = Batch::default();
    while let Some(cache) = pages.next().await? {
        let Some(picked) = plan.pick(&cache).map(Arc::new) else { continue };
        let row_bytes = plan.row_bytes(sent(plan.dtype)) + annotation_bytes(&picked);
        let (mut from, n_rows) = (0, picked.rows.n_served());
        while from < n_rows {
            let to = n_rows.min(from + batch.room(row_bytes));
            batch.add(Run { picked: Arc::clone(&picked), rows: from..to }, row_bytes);
            from = to;
            if batch.is_full(row_bytes) {
                let full = std::mem::take(&mut batch).encode(&plan, &schema, store).await?;
                writer.write(&full).map_err(failed)?;
                sink.send(std::mem::take(writer.get_mut())).await?;
            }
        }
    }
    if batch.n_rows > 0 {
        writer.write(&batch.encode(&plan, &schema, store).await?).map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    sink.send(std::mem::take(writer.get_mut())).await
}

/// Approximate bytes that a row takes besides its activations.
fn annotation_bytes(picked: &Picked) -> usize {
    let cache = &picked.cache.cache;
    let metadata = serde_json::to_vec(&cache.metadata).map_or(0, |json| json.len());
    100 + metadata + cache.tags.iter().map(String::len).sum::<usize>() + cache.label.as_ref().map_or(0, String::len)
}

fn item() -> Field {
    Field::new("item", DataType::Utf8, true)
}

fn element(dtype: Dtype) -> Arc<Field> {
    let kind = if sent(dtype) == Dtype::Float16 { DataType::Float16 } else { DataType::Float32 };
    Arc::new(Field::new("item", kind, false))
}

fn width(array: &ExportArray) -> Result<i32, Problem> {
    let detail = || format!("a row of {} is too wide for an Arrow list", array.hook);
    i32::try_from(array.width()).map_err(|_| Problem::new(Code::ShapeMismatch, detail()))
}

fn schema(plan: &ExportPlan) -> Result<Schema, Problem> {
    let mut fields = vec![
        Field::new("cache", DataType::Utf8, false),
        Field::new("position", DataType::Int32, true),
        Field::new("token_id", DataType::Int64, true),
        Field::new("token", DataType::Utf8, true),
        Field::new("label", DataType::Utf8, true),
        Field::new("tags", DataType::List(Arc::new(item())), false),
        Field::new("metadata", DataType::Utf8, false),
    ];
    for array in &plan.arrays {
        let kind = DataType::FixedSizeList(element(plan.dtype), width(array)?);
        let about = HashMap::from([
            ("hook".to_owned(), array.hook.to_string()),
            ("row_shape".to_owned(), json!(array.row_shape).to_string()),
        ]);
        fields.push(Field::new(&array.name, kind, false).with_metadata(about));
    }
    let manifest = arrays(plan, sent(plan.dtype)).to_string();
    Ok(Schema::new(fields).with_metadata(HashMap::from([("manifest".to_owned(), manifest)])))
}

/// Rows gathered for the next record batch.
#[derive(Default)]
struct Batch {
    runs: Vec<Run>,
    n_rows: usize,
    n_bytes: usize,
}

impl Batch {
    /// How many more rows of this size the batch has room for, at least one.
    fn room(&self, row_bytes: usize) -> usize {
        let by_bytes = BATCH.saturating_sub(self.n_bytes) / row_bytes.max(1);
        by_bytes.min(MAX_ROWS - self.n_rows).max(1)
    }

    fn is_full(&self, row_bytes: usize) -> bool {
        self.n_rows >= MAX_ROWS || self.n_bytes + row_bytes > BATCH
    }

    fn add(&mut self, run: Run, row_bytes: usize) {
        self.n_rows += run.rows.len();
        self.n_bytes += run.rows.len() * row_bytes;
        self.runs.push(run);
    }

    /// All rows, each with its cache.
    fn rows(&self) -> impl Iterator<Item = (&Picked, usize)> {
        self.runs.iter().flat_map(|run| run.rows.clone().map(|row| (run.picked.as_ref(), row)))
    }

    async fn encode(self, plan: &ExportPlan, schema: &Arc<Schema>, store: &Store) -> Result<RecordBatch, Stop> {
        let mut columns = self.tables();
        let sent = sent(plan.dtype);
        for (i, array) in plan.arrays.iter().enumerate() {
            let mut assembly = Assembly::default();
            for run in &self.runs {
                parts(&run.picked, i, run.rows.clone(), plan.dtype, sent).into_iter().for_each(|p| assembly.push(p));
            }
            let bytes = assembly.read_all(store.clone()).await?;
            let values: ArrayRef = match sent {
                Dtype::Float16 => {
                    let halves = bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b));
                    Arc::new(Float16Array::from_iter_values(halves))
                }
                _ => Arc::new(Float32Array::from(sent.decode(&bytes))),
            };
            let list = FixedSizeListArray::try_new(element(plan.dtype), width(array)?, values, None);
            columns.push(Arc::new(list.map_err(failed)?));
        }
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(failed)
    }

    /// The columns other than the activations.
    fn tables(&self) -> Vec<ArrayRef> {
        let ids: Vec<String> = self.runs.iter().map(|run| run.picked.cache.cache.id.to_string()).collect();
        let metadata: Vec<String> =
            self.runs.iter().map(|run| json!(run.picked.cache.cache.metadata).to_string()).collect();
        let each = |texts: &[String]| {
            let rows = self.runs.iter().zip(texts).flat_map(|(run, text)| run.rows.clone().map(move |_| text.as_str()));
            StringArray::from_iter_values(rows)
        };
        let positions = self.rows().map(|(p, row)| p.row(row).0.and_then(|position| i32::try_from(position).ok()));
        let token_ids = self.rows().map(|(p, row)| p.row(row).1.map(i64::from));
        let tokens = self.rows().map(|(p, row)| {
            let token = p.row(row).0.and_then(|position| p.cache.cache.tokens.get(position as usize));
            token.map(String::as_str).filter(|_| p.row(row).1.is_some() || token.is_some_and(|t| !t.is_empty()))
        });
        let labels = self.rows().map(|(p, _)| p.cache.cache.label.as_deref());
        let mut tags = ListBuilder::new(StringBuilder::new()).with_field(item());
        for (p, _) in self.rows() {
            tags.append_value(p.cache.cache.tags.iter().map(|tag| Some(tag.as_str())));
        }
        vec![
            Arc::new(each(&ids)),
            Arc::new(positions.collect::<Int32Array>()),
            Arc::new(token_ids.collect::<Int64Array>()),
            Arc::new(tokens.collect::<StringArray>()),
            Arc::new(labels.collect::<StringArray>()),
            Arc::new(tags.finish()),
            Arc::new(each(&metadata)),
        ]
    }
}
