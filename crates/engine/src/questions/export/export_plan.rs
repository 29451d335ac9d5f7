//! Plans an export before its first byte is sent, so that an impossible export is still answered with an error.

use std::sync::Arc;

use super::{arrangement::Arrangement, picked::Picked};
use residuum_domain::{Code, Dtype, Hook, HookName, Layers, Positions, Problem, Site, StoredRows};
use residuum_store::{Kind, StoredCache};

/// What to export of each cache.
#[derive(Debug, Clone)]
pub struct ExportQuestion {
    /// Which hooks.
    pub name: HookName,
    /// Layers, for a short name.
    pub layers: Layers,
    /// Which rows; `None` for all stored rows.
    pub positions: Option<Positions>,
    /// The requested type.
    pub dtype: Option<Dtype>,
    /// The order of the caches. The rows of a cache follow each other, in the order of their positions.
    pub arrangement: Arrangement,
}

/// One array of an export: the rows of all caches at one hook.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportArray {
    /// `X`, or `X.5` if there are several layers.
    pub name: String,
    /// The hook of its rows.
    pub hook: Hook,
    /// Shape of a row.
    pub row_shape: Vec<usize>,
}

impl ExportArray {
    /// Values per row.
    pub fn width(&self) -> usize {
        self.row_shape.iter().product()
    }
}

/// An export whose arrays and type are decided.
#[derive(Debug, Clone)]
pub struct ExportPlan {
    /// The arrays, in execution order.
    pub arrays: Vec<ExportArray>,
    /// The question.
    pub question: ExportQuestion,
    /// The type that values are rounded to.
    pub dtype: Dtype,
    /// Number of caches that captured none of the hooks.
    pub n_left_out: u64,
}

impl ExportPlan {
    /// Plans an export: compares the question with what the caches captured.
    ///
    /// # Errors
    /// [`Code::EmptyInput`] for no caches, [`Code::HookNotStored`], [`Code::LayerOutOfRange`],
    /// [`Code::PositionOutOfRange`], [`Code::ShapeMismatch`] for rows of different shapes, [`Code::InvalidValue`] for a
    /// mean of indices.
    pub fn new(question: ExportQuestion, kinds: &[Kind]) -> Result<Self, Problem> {
        if kinds.is_empty() {
            return Err(Problem::new(Code::EmptyInput, "no cache is selected"));
        }
        let has = |kind: &&Kind| kind.hooks.iter().any(|hook| wanted(question.name, *hook));
        let chosen: Vec<&Kind> = kinds.iter().filter(has).collect();
        let all: u64 = kinds.iter().map(|k| k.n_caches).sum();
        let n_left_out = all - chosen.iter().map(|k| k.n_caches).sum::<u64>();
        let Some(first) = chosen.first() else {
            let detail = format!("none of the {all} caches captured {}", shown(question.name));
            return Err(Problem::at(Code::HookNotStored, "hook", detail));
        };
        let hooks = hooks(&question, &chosen)?;
        if let Some(map) = hooks.iter().find(|h| h.site().is_attention_map()) {
            let detail = format!("the rows of {map} differ in width from input to input; fetch them cache by cache");
            return Err(Problem::at(Code::ShapeMismatch, "hook", detail));
        }
        let arrays: Vec<ExportArray> = hooks
            .iter()
            .map(|hook| {
                let name = match hook.layer() {
                    Some(layer) if hooks.len() > 1 => format!("X.{layer}"),
                    _ => "X".to_owned(),
                };
                let row_shape = row_shape(first, *hook).cloned().unwrap_or_default();
                ExportArray { name, hook: *hook, row_shape }
            })
            .collect();
        for kind in &chosen {
            if let Some(other) = arrays.iter().find(|a| row_shape(kind, a.hook) != Some(&a.row_shape)) {
                let detail = format!("the rows of {} have different shapes in these caches; choose fewer", other.hook);
                return Err(Problem::at(Code::ShapeMismatch, "hook", detail));
            }
            let rows = StoredRows::of(&kind.positions, kind.n_tokens, question.positions.as_ref())?;
            if rows.averaged && hooks.iter().any(|h| h.site().is_index()) {
                let detail = "indices have no mean; ask for positions";
                return Err(Problem::at(Code::InvalidValue, "position", detail));
            }
        }
        let same = chosen.iter().all(|k| k.dtype == first.dtype);
        let dtype = question.dtype.unwrap_or(if same { first.dtype } else { Dtype::Float32 });
        Ok(Self { arrays, question, dtype, n_left_out })
    }

    /// Bytes of one row of every array, in the type in which it is sent.
    pub fn row_bytes(&self, sent: Dtype) -> usize {
        self.arrays.iter().map(ExportArray::width).sum::<usize>() * sent.size()
    }

    /// What is exported of a cache; `None` if the cache does not fit the plan, because it was stored later or captured
    /// none of the hooks.
    pub fn pick(&self, stored: &Arc<StoredCache>) -> Option<Picked> {
        let cache = &stored.cache;
        let find = |a: &ExportArray| {
            let index = cache.hook_index(a.hook).ok()?;
            (cache.row_shapes[index] == a.row_shape).then_some(index)
        };
        let hooks = self.arrays.iter().map(find).collect::<Option<_>>()?;
        let rows =
            StoredRows::of(&cache.capture.positions, cache.token_ids.len(), self.question.positions.as_ref()).ok()?;
        Some(Picked { cache: Arc::clone(stored), hooks, rows })
    }
}

fn wanted(name: HookName, hook: Hook) -> bool {
    match name {
        HookName::Full(full) => hook == full,
        HookName::Short(site) => hook.site() == site,
    }
}

fn shown(name: HookName) -> String {
    match name {
        HookName::Full(hook) => hook.to_string(),
        HookName::Short(site) => site.name().to_owned(),
    }
}

fn row_shape(kind: &Kind, hook: Hook) -> Option<&Vec<usize>> {
    kind.row_shapes.get(kind.hooks.binary_search(&hook).ok()?)
}

/// The hooks of the question. Each of the chosen caches has all of them.
fn hooks(question: &ExportQuestion, chosen: &[&Kind]) -> Result<Vec<Hook>, Problem> {
    let site = match question.name {
        HookName::Full(hook) => return Ok(vec![hook]),
        HookName::Short(site) => site,
    };
    let hooks = match &question.layers {
        Layers::All => shared(site, chosen),
        layers => {
            let mut all: Option<Vec<Hook>> = None;
            for kind in chosen {
                let layers = layers.resolve(kind.n_layers).map_err(|p| Problem::at(p.code, "layers", p.detail))?;
                let mut hooks: Vec<Hook> = layers.into_iter().map(|l| Hook::block(site, l)).collect();
                hooks.sort();
                if all.get_or_insert_with(|| hooks.clone()) != &hooks {
                    let detail =
                        "the caches are of models with different numbers of layers, so layers must be counted from 0";
                    return Err(Problem::at(Code::LayerOutOfRange, "layers", detail));
                }
            }
            all.unwrap_or_default()
        }
    };
    let lacks =
        |hook: &Hook| chosen.iter().filter(|k| k.hooks.binary_search(hook).is_err()).map(|k| k.n_caches).sum::<u64>();
    if let Some((hook, n)) = hooks.iter().map(|h| (h, lacks(h))).find(|(_, n)| *n > 0) {
        let detail =
            format!("{n} of the caches did not capture {hook}; name layers that all have, or choose fewer caches");
        return Err(Problem::at(Code::HookNotStored, "layers", detail));
    }
    if hooks.is_empty() {
        return Err(Problem::at(
            Code::HookNotStored,
            "layers",
            format!("the caches share no layer of {}", site.name()),
        ));
    }
    Ok(hooks)
}

/// The hooks of a site that all kinds have.
fn shared(site: Site, chosen: &[&Kind]) -> Vec<Hook> {
    let mut hooks: Vec<Hook> =
        chosen.first().map(|k| k.hooks.iter().copied().filter(|h| h.site() == site).collect()).unwrap_or_default();
    hooks.retain(|hook| chosen.iter().all(|k| k.hooks.binary_search(hook).is_ok()));
    hooks
}
