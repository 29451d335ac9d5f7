//! The axes of a sweep: hooks, positions and heads of a question, resolved for a model and an input.

use super::{SweepOp, cells::Cells};
use residuum_domain::{Axis, CaptureRequest, Code, Hook, HookName, Layers, Parts, Positions, Problem, Rows, Site};
use residuum_model::Model;

/// Most cells of one sweep.
const MAX_CELLS: usize = 100_000;

/// What to change, cell by cell. The axes are layers, and positions, queries, keys and heads if each of them is swept.
#[derive(Debug, Clone)]
pub struct SweptHook {
    /// What a cell does.
    pub op: SweepOp,
    /// A hook inside the blocks, short or full. If left out, `resid_pre`; of a knockout always `attn.hook_attn_scores`.
    pub hook: Option<String>,
    /// Layers; all that have the hook if left out.
    pub layers: Layers,
    /// Positions; all in one cell if left out. Of a knockout, as `to`.
    pub positions: Option<SweptOver<Positions>>,
    /// Of a knockout: the queries; all in one cell if left out.
    pub to: Option<SweptOver<Positions>>,
    /// Of a knockout: the keys; all in one cell if left out.
    pub from: Option<SweptOver<Positions>>,
    /// Heads; all in one cell if left out.
    pub heads: Option<SweptOver<Vec<usize>>>,
}

/// Whether positions or heads are an axis of a sweep, or changed together.
#[derive(Debug, Clone)]
pub enum SweptOver<T> {
    /// Each in a separate cell: an axis.
    Each,
    /// These together in every cell: no axis.
    Together(T),
}

/// What an axis of a sweep runs over; `None` if it is not an axis.
type SweptAxis<T> = Option<Vec<T>>;

/// The cells of a sweep and their axes.
pub(super) struct Axes {
    pub site: Site,
    pub layers: Vec<usize>,
    pub positions: SweptAxis<u32>,
    pub to: SweptAxis<u32>,
    pub from: SweptAxis<u32>,
    pub heads: SweptAxis<usize>,
    pub cells: Cells,
}

impl SweptHook {
    /// Resolves the axes for an input of `n_tokens`. Problems point into the sweep.
    pub(super) fn axes(&self, model: &Model, n_tokens: usize) -> Result<Axes, Problem> {
        let knockout = matches!(self.op, SweepOp::Knockout);
        self.check_tokens(knockout)?;
        let hooks = self.hooks(model)?;
        let site = hooks[0].site();
        let (queries, at) = if self.to.is_some() { (&self.to, "/to") } else { (&self.positions, "/positions") };
        let (tokens, token_axis) = swept_positions(queries.as_ref(), n_tokens, at)?;
        let (keys, from) = match knockout {
            true => swept_positions(self.from.as_ref(), n_tokens, "/from")?,
            false => (vec![Vec::new()], None),
        };
        if knockout && !model.info().bidirectional {
            let (first_key, last_query) = (keys.iter().flatten().min(), tokens.iter().flatten().max());
            if first_key > last_query {
                let detail =
                    "no query of this causal model attends to these keys, which come later: nothing would change";
                return Err(Problem::at(Code::InvalidValue, "/from", detail));
            }
        }
        let (parts, heads) = self.parts(model, site)?;
        let (positions, to) = if knockout { (None, token_axis) } else { (token_axis, None) };
        let layers = hooks.iter().filter_map(Hook::layer).collect();
        let cells = Cells { hooks, tokens, keys, parts };
        if cells.len() > MAX_CELLS {
            let detail = format!("the sweep has {} cells; {MAX_CELLS} are allowed", cells.len());
            return Err(Problem::at(Code::ResultTooLarge, "", detail));
        }
        Ok(Axes { site, layers, positions, to, from, heads, cells })
    }

    /// Refuses fields that select tokens but do not suit the operation.
    fn check_tokens(&self, knockout: bool) -> Result<(), Problem> {
        for (field, given) in [("/from", self.from.is_some()), ("/to", self.to.is_some())] {
            if given && !knockout {
                let detail = "`from` and `to` select the edges of a knockout; other operations take `positions`";
                return Err(Problem::at(Code::InvalidBody, field, detail));
            }
        }
        if self.to.is_some() && self.positions.is_some() {
            let detail = "`to` and `positions` both select queries: give one";
            return Err(Problem::at(Code::InvalidBody, "/positions", detail));
        }
        Ok(())
    }

    /// The changed parts of a row in each cell, and the axis of heads.
    fn parts(&self, model: &Model, site: Site) -> Result<(Parts, SweptAxis<usize>), Problem> {
        let row_shape = model.info().row_shape(site);
        let width: usize = row_shape.iter().product();
        let has_heads = site.axes().contains(&Axis::Head) || site.axes().contains(&Axis::KvHead);
        let n_heads = if has_heads { row_shape[0] } else { 1 };
        let d_head = width / n_heads.max(1);
        let head = |h: usize| h * d_head..(h + 1) * d_head;
        Ok(match &self.heads {
            Some(_) if !has_heads => {
                let detail = format!("`{}` has no heads", site.name());
                return Err(Problem::at(Code::InvalidValue, "/heads", detail));
            }
            None if site.is_attention_map() => (vec![(0..n_heads).map(head).collect()], None),
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
        })
    }

    fn hooks(&self, model: &Model) -> Result<Vec<Hook>, Problem> {
        let knockout = matches!(self.op, SweepOp::Knockout);
        let default = if knockout { Site::AttnScores } else { Site::ResidPre };
        let name = self.hook.clone().unwrap_or_else(|| default.name().to_owned());
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
        if knockout && site != Site::AttnScores {
            let detail = "a knockout masks attention scores: leave out the hook, or name `attn.hook_attn_scores`";
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        if !knockout && !sweeps(site) {
            let detail =
                format!("`{}` cannot be swept: name a hook inside the blocks with one row per token", site.name());
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        Ok(hooks)
    }
}

/// Whether a site can be swept by replacing its values: it is inside the blocks, with one row per position, and does not
/// hold indices.
fn sweeps(site: Site) -> bool {
    site.in_block() && !site.is_attention_map() && !site.is_index()
}

/// The positions of each cell, and their axis. Problems with them are at `pointer`.
fn swept_positions(
    swept: Option<&SweptOver<Positions>>,
    n_tokens: usize,
    pointer: &str,
) -> Result<(Vec<Vec<u32>>, SweptAxis<u32>), Problem> {
    let all = || (0..u32::try_from(n_tokens).unwrap_or(u32::MAX)).collect::<Vec<u32>>();
    match swept {
        None => Ok((vec![all()], None)),
        Some(SweptOver::Each) => Ok((all().into_iter().map(|p| vec![p]).collect(), Some(all()))),
        Some(SweptOver::Together(positions)) => {
            let at = |p: Problem| Problem::at(p.code, pointer, p.detail);
            match positions.resolve(n_tokens).map_err(at)? {
                Rows::Mean(_) => {
                    Err(Problem::at(Code::InvalidValue, pointer, "a mean is not a position; name positions"))
                }
                Rows::List(mut list) => {
                    list.sort_unstable();
                    list.dedup();
                    Ok((vec![list], None))
                }
            }
        }
    }
}
