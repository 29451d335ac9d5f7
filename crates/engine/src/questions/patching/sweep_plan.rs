//! Plans a sweep: what a question means for a model, cell by cell.

use std::sync::Arc;

use super::{
    PatchDirection, PatchingInput, PatchingMetric, PatchingQuestion, SweepInfo, SweepOp,
    sweep::{Metric, Sweep},
    sweep_axes::Axes,
};
use crate::questions::{Selector, Token};
use residuum_domain::{Code, Hook, Positions, Problem, Site};
use residuum_model::{Encoded, Model};

/// Most bytes of the traces of a sweep's inputs.
const MAX_TRACE_BYTES: u64 = 128 << 20;

/// A planned sweep.
pub struct Patching {
    /// The sweep.
    pub(super) sweep: Sweep,
    /// What it changes.
    pub(super) change: Change,
    /// What it covers.
    pub(super) info: SweepInfo,
}

/// What the cells of a sweep do.
pub(super) enum Change {
    /// They get values of this input.
    Patch(Vec<u32>),
    /// They get zeros.
    Zero,
    /// They get the mean of stored rows.
    MeanAblate(Selector),
    /// They mask attention edges.
    Knockout,
}

impl Patching {
    /// Number of cells: the product of the axes.
    #[must_use]
    pub fn n_cells(&self) -> usize {
        self.sweep.cells.len()
    }
}

impl PatchingQuestion {
    /// Checks the question against the model and plans the sweep.
    ///
    /// # Errors
    /// Those of [`crate::questions::Questions::patching`].
    pub(super) fn plan(self, model: Arc<Model>) -> Result<Patching, Problem> {
        if !model.info().has(Hook::global(Site::Logits)) {
            let detail = format!("{} has no LM head, so there are no logits to measure", model.info().id);
            return Err(Problem::at(Code::NotReadable, "/model", detail));
        }
        self.check_fields()?;
        let clean = self.clean.encode(&model, self.prepend_bos).map_err(|p| p.under("/clean"))?;
        let corrupt = self.corrupt.map(|c| c.encode(&model, self.prepend_bos)).transpose();
        let corrupt = corrupt.map_err(|p| p.under("/corrupt"))?;
        let n = clean.ids.len();
        if let Some(other) = corrupt.as_ref().map(|c| c.ids.len()).filter(|other| *other != n) {
            let detail = format!(
                "the clean input has {n} tokens and the corrupt one {other}: a position of one has no counterpart in the other"
            );
            return Err(Problem::at(Code::ShapeMismatch, "/corrupt", detail));
        }
        let answer = self.answer.resolve(model.tokenizer(), "/answer")?;
        let against = self.against.map(|t| t.resolve(model.tokenizer(), "/against")).transpose()?;
        let (metric, measured) = metric(self.metric, &answer, against.as_ref())?;
        let position = self.position.map_or(Positions::Last, Positions::One);
        let at = |p: Problem| Problem::at(p.code, "/position", p.detail);
        let position = position.resolve(n).map_err(at)?.positions()[0] as usize;
        let Axes { site, layers, positions, to, from, heads, cells } =
            self.sweep.axes(&model, n).map_err(|p| p.under("/sweep"))?;
        let source_hooks = corrupt.as_ref().map(|_| cells.hooks.as_slice());
        check_traces(&model, n, source_hooks)?;
        let op = self.sweep.op.name();
        let direction = corrupt.as_ref().map(|_| self.direction.unwrap_or(PatchDirection::Denoise));
        let (corrupt, corrupt_tokens) = corrupt.map(|c| (c.ids, c.tokens)).unzip();
        let (base, source) = match (direction, corrupt) {
            (Some(PatchDirection::Denoise), Some(corrupt)) => (corrupt, Some(clean.ids)),
            (_, corrupt) => (clean.ids, corrupt),
        };
        let change = match (self.sweep.op, source) {
            (SweepOp::Patch, source) => Change::Patch(source.unwrap_or_default()),
            (SweepOp::Zero, _) => Change::Zero,
            (SweepOp::MeanAblate(selector), _) => Change::MeanAblate(selector),
            (SweepOp::Knockout, _) => Change::Knockout,
        };
        let info = SweepInfo {
            model: model.info().id.clone(),
            op,
            site,
            metric,
            direction,
            answer,
            against,
            position,
            clean_tokens: clean.tokens,
            corrupt_tokens,
            layers,
            positions,
            to,
            from,
            heads,
        };
        Ok(Patching { sweep: Sweep { model, base, cells, position, metric: measured }, change, info })
    }

    /// Requires the second input of a patch, and refuses it elsewhere.
    fn check_fields(&self) -> Result<(), Problem> {
        let op = self.sweep.op.name();
        match (&self.sweep.op, &self.corrupt, self.direction) {
            (SweepOp::Patch, Some(_), _) => Ok(()),
            (SweepOp::Patch, None, _) => {
                let detail = "`patch` takes its values from a second input: give `corrupt`, or another `op`";
                Err(Problem::at(Code::InvalidBody, "/corrupt", detail))
            }
            (_, Some(_), _) => {
                let detail = format!("`{op}` changes the clean run and needs no other: leave out `corrupt`");
                Err(Problem::at(Code::InvalidBody, "/corrupt", detail))
            }
            (_, None, Some(_)) => {
                let detail = format!("`direction` is for `patch`; `{op}` always changes the clean run");
                Err(Problem::at(Code::InvalidBody, "/direction", detail))
            }
            (_, None, None) => Ok(()),
        }
    }
}

/// Refuses inputs of `n` tokens whose traces are too large: that of the changed input, and with these hooks that of the other.
fn check_traces(model: &Model, n: usize, source_hooks: Option<&[Hook]>) -> Result<(), Problem> {
    let bytes = model.trace_bytes(n, &[]) + source_hooks.map_or(0, |hooks| model.trace_bytes(n, hooks));
    if bytes <= MAX_TRACE_BYTES {
        return Ok(());
    }
    let detail = format!("the traces of the inputs would have {bytes} bytes; {MAX_TRACE_BYTES} are allowed");
    Err(Problem::new(Code::ResultTooLarge, detail))
}

fn metric(
    asked: Option<PatchingMetric>,
    answer: &Token,
    against: Option<&Token>,
) -> Result<(PatchingMetric, Metric), Problem> {
    let name = asked.unwrap_or(if against.is_some() { PatchingMetric::LogitDiff } else { PatchingMetric::Probability });
    let metric = match (name, against) {
        (PatchingMetric::LogitDiff, Some(against)) => Metric::LogitDifference(answer.id, against.id),
        (PatchingMetric::LogitDiff, None) => {
            let detail = "logit_diff takes the difference to the logit of another token: give `against`";
            return Err(Problem::at(Code::InvalidBody, "/against", detail));
        }
        (_, Some(_)) => {
            let detail = "`against` is for logit_diff only";
            return Err(Problem::at(Code::InvalidBody, "/against", detail));
        }
        (PatchingMetric::Logit, None) => Metric::Logit(answer.id),
        (PatchingMetric::Probability, None) => Metric::Probability(answer.id),
        (PatchingMetric::LogProbability, None) => Metric::LogProbability(answer.id),
    };
    Ok((name, metric))
}

impl PatchingInput {
    fn encode(&self, model: &Model, prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        let encoded = match self {
            Self::Text(text) => model.tokenizer().encode(text, prepend_bos)?,
            Self::TokenIds(ids) => model.tokenizer().from_ids(ids, prepend_bos)?,
        };
        let (n, n_ctx) = (encoded.ids.len(), model.info().n_ctx);
        if n > n_ctx {
            let detail = format!("the input has {n} tokens and the model's context {n_ctx}");
            return Err(Problem::at(Code::TooManyTokens, "", detail));
        }
        Ok(encoded)
    }
}
