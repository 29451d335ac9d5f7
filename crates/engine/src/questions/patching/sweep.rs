//! Runs a sweep: changes values at a hook in the forward pass of one input, cell by cell.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    SweepProgress,
    cells::{Cells, NewValues},
    experiment_queue::ExperimentPlace,
};
use crate::Engine;
use residuum_analysis::Distribution;
use residuum_domain::{Code, Edits, Hook, Problem};
use residuum_model::{
    ForwardError, Model,
    patching::{Cell, Trace},
};

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

/// A sweep.
pub struct Sweep {
    /// The model.
    pub model: Arc<Model>,
    /// The input whose forward pass is changed.
    pub base: Vec<u32>,
    /// The cells.
    pub cells: Cells,
    /// The position of the logits.
    pub position: usize,
    /// The number computed from them.
    pub metric: Metric,
}

/// What the cells of a sweep put in the place of the values of the unchanged pass.
#[derive(Debug, Clone)]
pub enum Replacement {
    /// The values of another input with as many tokens.
    Of(Vec<u32>),
    /// Zeros.
    Zeros,
    /// A row at each hook.
    Rows(Vec<Vec<f32>>),
    /// Nothing: attention edges are masked.
    Masked,
}

/// The result of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Swept {
    /// The metric of the unchanged input.
    pub base: f64,
    /// The metric of the other input, if there is one.
    pub source: Option<f64>,
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
    /// [`Code::Unavailable`], [`Code::WorkerFailed`].
    pub(super) async fn sweep(
        &self,
        sweep: Sweep,
        replacement: Replacement,
        _place: ExperimentPlace,
        progress: &watch::Sender<SweepProgress>,
    ) -> Result<Swept, Problem> {
        metrics::counter!("residuum_experiments_total").increment(1);
        let Sweep { model, base, cells, position, metric } = sweep;
        let base = self.traced(&model, base, Vec::new()).await?;
        let base_value = self.unchanged(&model, &base, position, metric).await?;
        let (mut source, mut source_value) = (None, None);
        if let Replacement::Of(ids) = &replacement {
            let trace = self.traced(&model, ids.clone(), cells.hooks.clone()).await?;
            source_value = Some(self.unchanged(&model, &trace, position, metric).await?);
            source = Some(trace);
        }
        let values = match (&replacement, &source) {
            (Replacement::Of(_), Some(source)) => NewValues::Of(source),
            (Replacement::Rows(rows), _) => NewValues::Rows(rows),
            (Replacement::Masked, _) => NewValues::Masked,
            _ => NewValues::Zeros,
        };
        let mut found = Vec::with_capacity(cells.len());
        for batch in cells.batches(base.token_ids().len(), BATCH_TOKENS) {
            let (model, base) = (Arc::clone(&model), Arc::clone(&base));
            let layer = cells.cell(batch.start).hook.layer().unwrap_or(0);
            let changed: Vec<Cell> =
                batch.clone().map(|i| cells.cell(i).pass(&values)).collect::<Result<_, &str>>().map_err(broken)?;
            let work = move || {
                let logits = model.patched(&base, layer, &changed, position, &|| false)?;
                let d_vocab = model.info().d_vocab;
                Ok(logits.chunks_exact(d_vocab).map(|row| metric.of(row)).collect::<Vec<f64>>())
            };
            found.extend(self.on_worker(work).await?.map_err(failed)?);
            progress.send_modify(|progress| progress.done = found.len());
        }
        Ok(Swept { base: base_value, source: source_value, values: found })
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

fn failed(e: ForwardError) -> Problem {
    tracing::error!(error = %e, "a pass of a sweep failed");
    Problem::new(Code::WorkerFailed, "the forward pass failed")
}

fn broken(why: &str) -> Problem {
    tracing::error!(why, "the cells of a sweep are inconsistent");
    Problem::new(Code::Internal, "the sweep could not be carried out")
}
