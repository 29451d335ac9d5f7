//! A patching sweep as a request writes it, and what it means for a model.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    dto::{
        capture::{LayersSchema, PositionsSchema},
        input::{Input, Many},
        token::TokenRef,
    },
    tensor::Format,
};
use residuum_domain::{
    Axis, CaptureRequest, Code, Hook, HookName, Layers, Parts, Positions, Problem, Rows,
    forms::{Forms, WordOr},
};
use residuum_engine::{Metric, Sweep, SweepCell, questions};
use residuum_model::{Encoded, Model};

/// Cells of one sweep.
const MAX_CELLS: usize = 100_000;

/// Two inputs of equally many tokens, what is put from one into the other, and how the effect is measured.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PatchingRequest, example = json!({
    "model": "smollm2-135m", "clean": "The Eiffel Tower is in the city of", "corrupt": "The Colosseum is in the city of",
    "answer": " Paris", "against": " Rome", "sweep": {"hook": "resid_pre", "positions": "each"}
}))]
pub struct PatchingRequest {
    /// Name of a served model.
    pub model: String,
    /// The input that leads to the answer: a text or token ids.
    #[schema(value_type = ExperimentInput)]
    pub clean: ExperimentInput,
    /// The input that leads elsewhere, of equally many tokens.
    #[schema(value_type = ExperimentInput)]
    pub corrupt: ExperimentInput,
    /// The token that is measured: its id, or a text that is exactly one token.
    pub answer: TokenRef,
    /// A token whose logit is subtracted; `logit_diff` needs it, the other metrics do not take it.
    pub against: Option<TokenRef>,
    /// `logit_diff` with `against`, otherwise `probability`, if left out.
    pub metric: Option<MetricName>,
    /// What is replaced.
    #[schema(value_type = SweepRequest)]
    pub sweep: SweepRequest,
    /// `denoise`, the default, puts values of the clean run into the corrupt one; `noise` the other way round.
    #[serde(default)]
    pub direction: PatchDirection,
    /// Where the logits are read; the last token if left out.
    pub position: Option<i64>,
    /// Beginning-of-sequence token, as in a run.
    pub prepend_bos: Option<bool>,
}

/// A text or token ids.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = "The Eiffel Tower is in the city of")]
pub enum ExperimentInput {
    /// A text.
    Text(String),
    /// Token ids.
    TokenIds(Vec<u32>),
}

impl<'de> Deserialize<'de> for ExperimentInput {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Input::read(d, Many::No)? {
            Input::TokenIds(ids) => Ok(Self::TokenIds(ids)),
            Input::Text(text) => Ok(Self::Text(text)),
            Input::Texts(_) | Input::TokenIdLists(_) => Err(serde::de::Error::custom("there is one input here")),
        }
    }
}

/// One hook, cell by cell: an axis of layers, one of positions where `positions` is `each`, one of heads where `heads` is.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"hook": "attn.z", "heads": "each"}))]
pub struct SweepRequest {
    /// A hook inside the blocks: `resid_pre` if left out; `attn.z` with `heads: each` for heads, `mlp_out` for MLPs.
    pub hook: Option<String>,
    /// Layers; all that have the hook if left out.
    #[serde(default)]
    #[schema(value_type = Option<LayersSchema>)]
    pub layers: Layers,
    /// `each`: every position by itself. Otherwise the positions that are replaced together; all if left out.
    #[schema(value_type = Option<SweptPositionsSchema>)]
    pub positions: Option<Swept<Positions>>,
    /// `each`: every head by itself. Otherwise the heads that are replaced together; all if left out.
    #[schema(value_type = Option<SweptHeadsSchema>)]
    pub heads: Option<Swept<Vec<usize>>>,
}

/// An axis of a sweep, or what is replaced together.
#[derive(Debug, Clone)]
pub enum Swept<T> {
    /// Every one by itself.
    Each,
    /// These together.
    Together(T),
}

impl<'de, T: Deserialize<'de> + Forms> Deserialize<'de> for Swept<T> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(match WordOr::read(d, &[("each", ())])? {
            WordOr::Word(()) => Self::Each,
            WordOr::Other(these) => Self::Together(these),
        })
    }
}

/// `each`, or positions.
#[derive(Serialize, ToSchema)]
#[schema(as = SweptPositions)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Swept for the specification")]
pub enum SweptPositionsSchema {
    /// Every position by itself.
    Each(EachLiteral),
    /// These together.
    Together(PositionsSchema),
}

/// `each`, or heads.
#[derive(Serialize, ToSchema)]
#[schema(as = SweptHeads)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Swept for the specification")]
pub enum SweptHeadsSchema {
    /// Every head by itself.
    Each(EachLiteral),
    /// These together.
    Together(Vec<usize>),
}

/// Every one by itself.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes Swept for the specification")]
pub enum EachLiteral {
    /// Every one by itself.
    Each,
}

/// What the logits are reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PatchingMetric)]
pub enum MetricName {
    /// The logit of the answer less that of `against`.
    LogitDiff,
    /// The logit of the answer.
    Logit,
    /// The probability of the answer.
    Probability,
    /// The log-probability of the answer, in nats.
    LogProbability,
}

/// Which run is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PatchDirection {
    /// The corrupt run gets values of the clean one.
    #[default]
    Denoise,
    /// The clean run gets values of the corrupt one.
    Noise,
}

/// Parameters of a sweep.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PatchingQuery {
    /// `json`, or the values alone as `npy`, `safetensors` or `raw` (float32). Beats the `Accept` header, which may also ask for
    /// `text/event-stream`: progress, then the JSON answer.
    pub format: Option<Format>,
}

/// A sweep that can be run, and what the answer says of it.
pub struct Plan {
    /// The sweep.
    pub sweep: Sweep,
    /// The site, without its layer.
    pub hook: String,
    /// Layers, ascending.
    pub layers: Vec<usize>,
    /// Positions, where they are an axis.
    pub positions: Option<Vec<u32>>,
    /// Heads, where they are an axis.
    pub heads: Option<Vec<usize>>,
    /// The two inputs.
    pub clean: Encoded,
    /// The two inputs.
    pub corrupt: Encoded,
    /// The measured token.
    pub answer: questions::Token,
    /// The other one.
    pub against: Option<questions::Token>,
    /// The metric.
    pub metric: MetricName,
    /// Which run is changed.
    pub direction: PatchDirection,
}

impl PatchingRequest {
    /// Checks everything against the model.
    ///
    /// # Errors
    /// [`Code::ShapeMismatch`] for inputs of different length, [`Code::NotReadable`] for a model without logits,
    /// [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::PositionOutOfRange`], [`Code::InvalidValue`],
    /// [`Code::InvalidBody`], [`Code::ResultTooLarge`], and those of tokenising.
    pub fn plan(self, model: Arc<Model>) -> Result<Plan, Problem> {
        if !model.info().has(Hook::global(residuum_domain::Site::Logits)) {
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
        let answer = questions::TokenRef::from(self.answer).resolve(model.tokenizer(), "/answer")?;
        let against =
            self.against.map(|t| questions::TokenRef::from(t).resolve(model.tokenizer(), "/against")).transpose()?;
        let (metric, measured) = metric(self.metric, &answer, against.as_ref())?;
        let position = self.position.map_or(Positions::Last, Positions::One);
        let at = |p: Problem| Problem::at(p.code, "/position", p.detail);
        let position = position.resolve(n).map_err(at)?.positions()[0] as usize;
        let cells = self.sweep.cells(&model, n).map_err(|p| p.under("/sweep"))?;
        let (base, source) = match self.direction {
            PatchDirection::Denoise => (&corrupt, &clean),
            PatchDirection::Noise => (&clean, &corrupt),
        };
        let (base, source) = (base.ids.clone(), source.ids.clone());
        let Cells { hook, layers, positions, heads, cells } = cells;
        let sweep = Sweep { model, base, source, cells, position, metric: measured };
        let direction = self.direction;
        Ok(Plan { sweep, hook, layers, positions, heads, clean, corrupt, answer, against, metric, direction })
    }
}

fn metric(
    asked: Option<MetricName>,
    answer: &questions::Token,
    against: Option<&questions::Token>,
) -> Result<(MetricName, Metric), Problem> {
    let name = asked.unwrap_or(if against.is_some() { MetricName::LogitDiff } else { MetricName::Probability });
    let metric = match (name, against) {
        (MetricName::LogitDiff, Some(against)) => Metric::LogitDifference(answer.id, against.id),
        (MetricName::LogitDiff, None) => {
            let detail = "logit_diff takes the difference to the logit of another token: give `against`";
            return Err(Problem::at(Code::InvalidBody, "/against", detail));
        }
        (_, Some(_)) => {
            let detail = "`against` goes with logit_diff only";
            return Err(Problem::at(Code::InvalidBody, "/against", detail));
        }
        (MetricName::Logit, None) => Metric::Logit(answer.id),
        (MetricName::Probability, None) => Metric::Probability(answer.id),
        (MetricName::LogProbability, None) => Metric::LogProbability(answer.id),
    };
    Ok((name, metric))
}

impl ExperimentInput {
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

/// What an axis of a sweep runs over; `None` where it is none.
type SweptAxis<T> = Option<Vec<T>>;

/// The cells of a sweep and their axes.
struct Cells {
    hook: String,
    layers: Vec<usize>,
    positions: Option<Vec<u32>>,
    heads: Option<Vec<usize>>,
    cells: Vec<SweepCell>,
}

impl SweepRequest {
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
            Some(Swept::Each) => ((0..n_heads).map(|h| vec![head(h)]).collect(), Some((0..n_heads).collect())),
            Some(Swept::Together(heads)) => {
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
            hook: site.name().to_owned(),
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
        if !residuum_engine::sweeps(site) {
            let detail =
                format!("`{}` cannot be swept: name a hook inside the blocks that has a row a token", site.name());
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        Ok(hooks)
    }

    /// Positions of each cell, and the axis they make.
    fn positions(&self, n_tokens: usize) -> Result<(Vec<Vec<u32>>, SweptAxis<u32>), Problem> {
        let all = || (0..u32::try_from(n_tokens).unwrap_or(u32::MAX)).collect::<Vec<u32>>();
        match &self.positions {
            None => Ok((vec![all()], None)),
            Some(Swept::Each) => Ok((all().into_iter().map(|p| vec![p]).collect(), Some(all()))),
            Some(Swept::Together(positions)) => match positions.resolve(n_tokens)? {
                Rows::Mean(_) => {
                    Err(Problem::at(Code::InvalidValue, "/positions", "tokens are replaced one by one: a mean is none"))
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
