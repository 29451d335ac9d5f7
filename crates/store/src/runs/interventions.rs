//! The interventions of a run, stored as long as the run is.

use std::sync::Arc;

use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, to_json},
        tx::Tx,
    },
};
use residuum_domain::{Dtype, Edits, RunId};

impl SqliteIndex {
    /// What a run changes; `None` when it changes nothing.
    pub(crate) async fn edits(&self, run: RunId) -> Result<Option<Arc<Edits>>, StoreError> {
        let query = sqlx::query("SELECT edits, numbers FROM run_interventions WHERE run_id = ?");
        let Some(row) = self.row(query.bind(run.as_bytes().as_slice())).await? else { return Ok(None) };
        let f = Fields::of("run_interventions", &row);
        let numbers = Dtype::Float32.decode(f.get("numbers")?);
        let edits = Edits::new(f.json("edits")?, numbers);
        let edits = edits.map_err(|why| StoreError::damaged(format!("the interventions of run {run}: {why}")))?;
        Ok(Some(Arc::new(edits)))
    }
}

/// Keeps what a new run changes.
///
/// # Errors
/// As [`to_json`].
pub(crate) fn insert(tx: &mut Tx<'_>, run: RunId, edits: &Edits) -> Result<(), StoreError> {
    let mut numbers = Vec::with_capacity(edits.numbers.len() * 4);
    Dtype::Float32.encode(&edits.numbers, &mut numbers);
    tx.later("INSERT INTO run_interventions (run_id, edits, numbers) VALUES (?, ?, ?)")
        .bind(run.as_bytes().as_slice())
        .bind(to_json(&edits.list)?)
        .bind(numbers);
    Ok(())
}
