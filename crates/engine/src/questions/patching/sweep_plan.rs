//! Plans a sweep: what a question means for a model, cell by cell.

use std::sync::Arc;

use super::{
    PatchDirection, PatchingInput, PatchingMetric, PatchingQuestion, SweepInfo,
    sweep::{Metric, Sweep, SweepCell, sweeps},
};
use crate::questions::Token;
use residuum_domain::{Axis, CaptureRequest, Code, Hook, HookName, Layers, Parts, Positions, Problem, Rows, Site};
use residuum_model::{Encoded, Model};

/// Most cells of one sweep.
const MAX_CELLS: usize = 100_000;

/// The hook to patch, cell by cell. The axes are layers, positions if each is swept, and heads if each is swept.
#[derive(Debug, Clone)]
pub struct SweptHook {
    /// A hook inside the blocks, short or full: `resid_pre` if left out.
    pub hook: Option<String>,
    /// Layers; all that have the hook if left out.
    pub layers: Layers,
    /// Positions; all in one cell if left out.
    pub positions: Option<SweptOver<Positions>>,
    /// Heads; all in one cell if left out.
    pub heads: Option<SweptOver<Vec<usize>>>,
}

/// Whether positions or heads are an axis of a sweep, or patched together.
#[derive(Debug, Clone)]
pub enum SweptOver<T> {
    /// Each in a separate cell: an axis.
    Each,
    /// These together in every cell: no axis.
    Together(T),
}

/// A planned sweep.
pub struct Patching {
    /// The sweep.
    pub(super) sweep: Sweep,
    /// What it covers.
    pub(super) info: SweepInfo,
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
        let clean = self.clean.encode(&model, self.prepend_bos).map_err(|p| p.under("/clean"))?;
        let corrupt = self.corrupt.encode(&model, self.prepend_bos).map_err(|p| p.under("/corrupt"))?;
        let n = clean.ids.len();
        if corrupt.ids.len() != n {
            let detail = format!(
                "the clean input has {n} tokens and the corrupt one {}: a position of one has no counterpart in the other",
                corrupt.ids.len()
            );
            return Err(Problem::at(Code::ShapeMismatch, "/corrupt", detail));
        }
        let answer = self.answer.resolve(model.tokenizer(), "/answer")?;
        let against = self.against.map(|t| t.resolve(model.tokenizer(), "/against")).transpose()?;
        let (metric, measured) = metric(self.metric, &answer, against.as_ref())?;
        let position = self.position.map_or(Positions::Last, Positions::One);
        let at = |p: Problem| Problem::at(p.code, "/position", p.detail);
        let position = position.resolve(n).map_err(at)?.positions()[0] as usize;
        let Cells { site, layers, positions, heads, cells } =
            self.sweep.cells(&model, n).map_err(|p| p.under("/sweep"))?;
        let direction = self.direction;
        let (base, source) = match direction {
            PatchDirection::Denoise => (corrupt.ids, clean.ids),
            PatchDirection::Noise => (clean.ids, corrupt.ids),
        };
        let info = SweepInfo {
            model: model.info().id.clone(),
            site,
            metric,
            direction,
            answer,
            against,
            position,
            clean_tokens: clean.tokens,
            corrupt_tokens: corrupt.tokens,
            layers,
            positions,
            heads,
        };
        Ok(Patching { sweep: Sweep { model, base, source, cells, position, metric: measured }, info })
    }
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

/// What an axis of a sweep runs over; `None` if it is not an axis.
type SweptAxis<T> = Option<Vec<T>>;

/// The cells of a sweep and their axes.
struct Cells {
    site: Site,
    layers: Vec<usize>,
    positions: Option<Vec<u32>>,
    heads: Option<Vec<usize>>,
    cells: Vec<SweepCell>,
}

impl SweptHook {
    fn cells(&self, model: &Model, n_tokens: usize) -> Result<Cells, Problem> {
        let hooks = self.hooks(model)?;
        let site = hooks[0].site();
        let row_shape = model.info().row_shape(site);
        let width: usize = row_shape.iter().product();
        let (positions, position_axis) = self.positions(n_tokens)?;
        let has_heads = site.axes().contains(&Axis::Head) || site.axes().contains(&Axis::KvHead);
        let n_heads = if has_heads { row_shape[0] } else { 1 };
        let d_head = width / n_heads.max(1);
        let head = |h: usize| h * d_head..(h + 1) * d_head;
        let (parts, head_axis): (Parts, SweptAxis<usize>) = match &self.heads {
            Some(_) if !has_heads => {
                let detail = format!("`{}` has no heads", site.name());
                return Err(Problem::at(Code::InvalidValue, "/heads", detail));
            }
            None => (vec![std::iter::once(0..width).collect()], None),
            Some(SweptOver::Each) => ((0..n_heads).map(|h| vec![head(h)]).collect(), Some((0..n_heads).collect())),
            Some(SweptOver::Together(heads)) => {
                if let Some(i) = heads.iter().position(|h| *h >= n_heads) {
                    let detail = format!("head {} does not exist: there are {n_heads}", heads[i]);
                    return Err(Problem::at(Code::InvalidValue, format!("/heads/{i}"), detail));
                }
                if heads.is_empty() {
                    return Err(Problem::at(Code::InvalidValue, "/heads", "no head is named"));
                }
                let mut heads = heads.clone();
                heads.sort_unstable();
                heads.dedup();
                (vec![heads.into_iter().map(head).collect()], None)
            }
        };
        let n_cells = hooks.len() * positions.len() * parts.len();
        if n_cells > MAX_CELLS {
            let detail = format!("the sweep has {n_cells} cells; {MAX_CELLS} are allowed");
            return Err(Problem::at(Code::ResultTooLarge, "", detail));
        }
        let mut cells = Vec::with_capacity(n_cells);
        for hook in &hooks {
            for positions in &positions {
                let cell = |part: &Vec<_>| SweepCell { hook: *hook, positions: positions.clone(), part: part.clone() };
                cells.extend(parts.iter().map(cell));
            }
        }
        Ok(Cells {
            site,
            layers: hooks.iter().filter_map(Hook::layer).collect(),
            positions: position_axis,
            heads: head_axis,
            cells,
        })
    }

    fn hooks(&self, model: &Model) -> Result<Vec<Hook>, Problem> {
        let name = self.hook.clone().unwrap_or_else(|| "resid_pre".to_owned());
        let full = matches!(name.parse::<HookName>(), Ok(HookName::Full(h)) if h.layer().is_some());
        let request = CaptureRequest { hooks: vec![name], layers: self.layers.clone(), ..CaptureRequest::default() };
        let at_hook = |mut p: Problem| {
            p.errors.iter_mut().filter(|e| e.pointer == "/hooks/0").for_each(|e| "/hook".clone_into(&mut e.pointer));
            p
        };
        let hooks = request.resolve(model.info()).map_err(at_hook)?.to_vec();
        let site = hooks[0].site();
        if full && self.layers != Layers::All {
            let detail = "the hook names its layer itself; leave out one of the two";
            return Err(Problem::at(Code::InvalidBody, "/layers", detail));
        }
        if !sweeps(site) {
            let detail =
                format!("`{}` cannot be swept: name a hook inside the blocks with one row per token", site.name());
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        Ok(hooks)
    }

    /// The positions of each cell, and their axis.
    fn positions(&self, n_tokens: usize) -> Result<(Vec<Vec<u32>>, SweptAxis<u32>), Problem> {
        let all = || (0..u32::try_from(n_tokens).unwrap_or(u32::MAX)).collect::<Vec<u32>>();
        match &self.positions {
            None => Ok((vec![all()], None)),
            Some(SweptOver::Each) => Ok((all().into_iter().map(|p| vec![p]).collect(), Some(all()))),
            Some(SweptOver::Together(positions)) => match positions.resolve(n_tokens)? {
                Rows::Mean(_) => {
                    Err(Problem::at(Code::InvalidValue, "/positions", "a mean cannot be patched; name positions"))
                }
                Rows::List(mut list) => {
                    list.sort_unstable();
                    list.dedup();
                    Ok((vec![list], None))
                }
            },
        }
    }
}
