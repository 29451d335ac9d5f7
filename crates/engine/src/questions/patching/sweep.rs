//! Runs a sweep: patches values of one input at a hook into the forward pass of another, cell by cell.

use std::sync::Arc;

use tokio::sync::{SemaphorePermit, watch};

use crate::Engine;
use residuum_analysis::Distribution;
use residuum_domain::{Applied, Code, Edit, Edits, Hook, Op, Problem, Site, Tokens};
use residuum_model::{
    ForwardError, Model,
    patching::{Cell, Trace},
};

/// Sweeps that run at once; others wait.
pub(crate) const MAX_RUNNING: usize = 2;
/// Sweeps that may wait.
pub(crate) const MAX_WAITING: usize = 64;
/// Most bytes of the traces of both inputs.
const MAX_TRACE_BYTES: u64 = 128 << 20;
/// Most tokens in one batch of cells.
const BATCH_TOKENS: usize = 512;

/// The number that is computed from the logits at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The logit of a token.
    Logit(u32),
    /// The logit of one token minus that of another.
    LogitDifference(u32, u32),
    /// The probability of a token.
    Probability(u32),
    /// The log-probability of a token, in nats.
    LogProbability(u32),
}

/// What one cell patches.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepCell {
    /// The hook, inside a block.
    pub hook: Hook,
    /// The positions, in ascending order.
    pub positions: Vec<u32>,
    /// The patched values of a row, as ranges.
    pub part: Vec<std::ops::Range<usize>>,
}

/// A sweep.
pub struct Sweep {
    /// The model.
    pub model: Arc<Model>,
    /// The input whose forward pass is patched.
    pub base: Vec<u32>,
    /// The input whose values are patched in; it has as many tokens.
    pub source: Vec<u32>,
    /// The cells.
    pub cells: Vec<SweepCell>,
    /// The position of the logits.
    pub position: usize,
    /// The number computed from them.
    pub metric: Metric,
}

/// The result of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The metric of the unpatched input.
    pub base: f64,
    /// The metric of the other input.
    pub source: f64,
    /// The metric of each cell, in order.
    pub values: Vec<f64>,
}

impl Metric {
    fn of(self, logits: &[f32]) -> f64 {
        let logit = |id: u32| f64::from(logits[id as usize]);
        match self {
            Self::Logit(id) => logit(id),
            Self::LogitDifference(id, other) => logit(id) - logit(other),
            Self::Probability(id) => Distribution::of(logits).map_or(f64::NAN, |p| p.probability(id as usize)),
            Self::LogProbability(id) => Distribution::of(logits).map_or(f64::NAN, |p| p.log_probability(id as usize)),
        }
    }
}

impl Engine {
    /// Runs a sweep in batches, between the batches of runs, and sends the number of finished cells to `progress`.
    /// Dropping the future stops the sweep.
    ///
    /// # Errors
    /// [`Code::QueueFull`] while too many sweeps wait, [`Code::ResultTooLarge`] for inputs whose traces are too large,
    /// [`Code::Unavailable`], [`Code::WorkerFailed`].
    pub(super) async fn sweep(&self, sweep: Sweep, progress: &watch::Sender<usize>) -> Result<Swept, Problem> {
        let _place = self.place_for_sweep().await?;
        metrics::counter!("residuum_experiments_total").increment(1);
        let Sweep { model, base, source, cells, position, metric } = sweep;
        let mut hooks: Vec<Hook> = cells.iter().map(|c| c.hook).collect();
        hooks.sort_unstable();
        hooks.dedup();
        let bytes = model.trace_bytes(base.len(), &[]) + model.trace_bytes(source.len(), &hooks);
        if bytes > MAX_TRACE_BYTES {
            let detail =
                format!("the traces of the two inputs would have {bytes} bytes; {MAX_TRACE_BYTES} are allowed");
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        let base = self.traced(&model, base, Vec::new()).await?;
        let source = self.traced(&model, source, hooks).await?;
        let base_value = self.unchanged(&model, &base, position, metric).await?;
        let source_value = self.unchanged(&model, &source, position, metric).await?;
        let mut values = vec![f64::NAN; cells.len()];
        for batch in batches(&cells, base.token_ids().len()) {
            let (model, base, source) = (Arc::clone(&model), Arc::clone(&base), Arc::clone(&source));
            let changed: Vec<Cell> =
                batch.iter().map(|i| cell(&cells[*i], &source)).collect::<Result<_, &str>>().map_err(broken)?;
            let layer = cells[batch[0]].hook.layer().unwrap_or(0);
            let work = move || {
                let logits = model.patched(&base, layer, &changed, position, &|| false)?;
                let d_vocab = model.info().d_vocab;
                Ok(logits.chunks_exact(d_vocab).map(|row| metric.of(row)).collect::<Vec<f64>>())
            };
            let found = self.on_worker(work).await?.map_err(failed)?;
            batch.iter().zip(found).for_each(|(i, value)| values[*i] = value);
            progress.send_modify(|done| *done += batch.len());
        }
        Ok(Swept { base: base_value, source: source_value, values })
    }

    /// Waits for a place; first come, first served. Dropping the future gives up the place in the line.
    ///
    /// # Errors
    /// [`Code::QueueFull`] if too many wait already.
    async fn place_for_sweep(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), Problem> {
        let inner = &self.inner;
        let Ok(admitted) = inner.experiments_admitted.try_acquire() else {
            let detail = format!("{MAX_RUNNING} experiments are running and {MAX_WAITING} wait; try again later");
            return Err(Problem::new(Code::QueueFull, detail).retry_after(5));
        };
        let stopping = || Problem::new(Code::Unavailable, "the server is stopping").retry_after(5);
        let place = tokio::select! {
            place = inner.experiments.acquire() => place.map_err(|_| stopping())?,
            () = inner.draining.cancelled() => return Err(stopping()),
        };
        Ok((admitted, place))
    }

    async fn traced(&self, model: &Arc<Model>, token_ids: Vec<u32>, hooks: Vec<Hook>) -> Result<Arc<Trace>, Problem> {
        let model = Arc::clone(model);
        let trace = self.on_worker(move || model.trace(&token_ids, &hooks, &|| false)).await?;
        trace.map(Arc::new).map_err(failed)
    }

    /// The metric of a traced input without a patch.
    async fn unchanged(
        &self,
        model: &Arc<Model>,
        trace: &Arc<Trace>,
        position: usize,
        metric: Metric,
    ) -> Result<f64, Problem> {
        let (model, trace) = (Arc::clone(model), Arc::clone(trace));
        let edits = Edits::new(Vec::new(), Vec::new()).map_err(broken)?;
        let cell = Cell { edits, applied: Vec::new(), first: position };
        let last = model.info().n_layers - 1;
        let logits = self.on_worker(move || model.patched(&trace, last, &[cell], position, &|| false)).await?;
        logits.map(|logits| metric.of(&logits)).map_err(failed)
    }
}

/// Groups cells of one layer into batches, as indices.
fn batches(cells: &[SweepCell], n_tokens: usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    let mut order: Vec<usize> = (0..cells.len()).collect();
    order.sort_by_key(|i| cells[*i].hook);
    for i in order {
        let cell = &cells[i];
        let tokens = n_tokens - cell.positions.first().map_or(0, |p| *p as usize).min(n_tokens);
        let same_layer = batches.last().is_some_and(|b| cells[b[0]].hook.layer() == cell.hook.layer());
        match batches.last_mut() {
            Some(batch) if same_layer && tokens <= room => {
                batch.push(i);
                room -= tokens;
            }
            _ => {
                batches.push(vec![i]);
                room = BATCH_TOKENS.saturating_sub(tokens);
            }
        }
    }
    batches
}

/// A forward pass with the cell's values taken from the source.
fn cell(cell: &SweepCell, source: &Trace) -> Result<Cell, &'static str> {
    let rows = source.rows(cell.hook).ok_or("the source has no trace at the hook")?;
    let width = rows.len() / source.token_ids().len();
    let mut numbers = Vec::new();
    for position in &cell.positions {
        let row = &rows[*position as usize * width..][..width];
        cell.part.iter().for_each(|range| numbers.extend_from_slice(&row[range.clone()]));
    }
    let op = Op::Replace { table: 0..numbers.len(), n_rows: cell.positions.len(), n_keys: 0 };
    let edit = Edit { hook: cell.hook, intervention: 0, parts: vec![cell.part.clone()], op };
    let tokens = Tokens::list(&cell.positions).ok_or("a position is named twice")?;
    let applied = Applied { intervention: None, tokens, keys: Tokens::All, described: serde_json::Map::new() };
    let first = cell.positions.first().map_or(0, |p| *p as usize);
    Ok(Cell { edits: Edits::new(vec![edit], numbers)?, applied: vec![applied], first })
}

/// Whether a site can be swept: it is inside the blocks, with one row per position, and does not hold indices.
#[must_use]
pub fn sweeps(site: Site) -> bool {
    site.in_block() && !site.is_attention_map() && !site.is_index()
}

fn failed(e: ForwardError) -> Problem {
    tracing::error!(error = %e, "a pass of a sweep failed");
    Problem::new(Code::WorkerFailed, "the forward pass failed")
}

fn broken(why: &str) -> Problem {
    tracing::error!(why, "the cells of a sweep are inconsistent");
    Problem::new(Code::Internal, "the sweep could not be carried out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_one_layer_and_few_tokens() {
        let one = |layer: usize, position: u32| SweepCell {
            hook: Hook::block(Site::ResidPre, layer),
            positions: vec![position],
            part: vec![],
        };
        let cells: Vec<SweepCell> = (0..3).flat_map(|l| (0..200).map(move |p| one(l, p))).collect();
        let batches = batches(&cells, 200);
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..600).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|i| 200 - cells[*i].positions[0] as usize).sum();
            assert!(tokens <= BATCH_TOKENS);
            assert!(batch.iter().all(|i| cells[*i].hook == cells[batch[0]].hook));
        }
    }
}
