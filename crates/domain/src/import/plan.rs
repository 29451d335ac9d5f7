//! Checks a file's tensors against what is said about them, and plans the cache they become.

use std::{collections::BTreeMap, ops::Range};

use super::{ImportOrigin, ImportSpec, UNKNOWN_TOKEN};
use crate::{
    capture::{Capture, refuse_mean_of_indices},
    dtype::Dtype,
    hook::{Axis, Hook, HookName, Site},
    positions::{Positions, PositionsRequest},
    problem::{Code, Problem},
    run::NewItem,
    tensor_file::{FileDtype, FileHeader, FileTensor, at_tensor},
};

/// Key of the token ids.
const TOKEN_IDS: &str = "token_ids";

/// One hook of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSource {
    /// Byte range of its values, after the header.
    pub data: Range<u64>,
    /// Their type in the file.
    pub dtype: FileDtype,
    /// Shape of one position's row; `[heads]` for an attention map.
    pub row_shape: Vec<usize>,
}

/// The cache that a file becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportPlan {
    /// Hooks, positions and type of the cache.
    pub capture: Capture,
    /// The tensor of each hook, in the same order.
    pub sources: Vec<TensorSource>,
    /// Tokens of the input.
    pub n_tokens: usize,
    /// Blocks of the model.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Byte range of the token ids, after the header, and their type.
    pub token_ids: Option<(Range<u64>, FileDtype)>,
}

/// One hook's tensor, with its axes identified.
struct Found<'a> {
    name: &'a str,
    source: TensorSource,
    site: Site,
    /// Number of rows; `None` without a position axis.
    n_rows: Option<usize>,
    /// Length of the key axis of an attention map.
    n_keys: Option<usize>,
}

impl ImportPlan {
    /// Finds the hooks in a file and checks that they form one cache.
    ///
    /// # Errors
    /// [`Code::UnknownHook`], [`Code::ShapeMismatch`], [`Code::LayerOutOfRange`], [`Code::PositionOutOfRange`],
    /// [`Code::EmptyInput`] for a file without activations, [`Code::InvalidValue`] for anything else, with a pointer to the
    /// tensor or the fact at fault.
    pub fn new(header: &FileHeader, spec: &ImportSpec) -> Result<Self, Problem> {
        let mut found: BTreeMap<Hook, Found<'_>> = BTreeMap::new();
        let mut token_ids = None;
        for tensor in &header.tensors {
            if tensor.name == TOKEN_IDS {
                token_ids = Some(ids(tensor)?);
                continue;
            }
            for (hook, one) in hooks_of(tensor, spec)? {
                if let Some(other) = found.insert(hook, one) {
                    let detail = format!("`{hook}` is in the file twice, as `{}` and here", other.name);
                    return Err(at_tensor(Code::InvalidValue, &tensor.name, detail));
                }
            }
        }
        let first = found.values().next();
        let rows = first.ok_or_else(|| Problem::new(Code::EmptyInput, "the file holds no activations"))?.n_rows;
        if let Some(other) = found.values().find(|f| f.n_rows != rows) {
            let say = |n: Option<usize>| n.map_or_else(|| "no position axis".to_owned(), |n| format!("{n} rows"));
            let detail =
                format!("it has {}, another tensor {}; all have the same positions", say(other.n_rows), say(rows));
            return Err(at_tensor(Code::ShapeMismatch, other.name, detail));
        }
        let n_ids = token_ids
            .as_ref()
            .map(|(data, dtype)| usize::try_from((data.end - data.start) / dtype.size() as u64).unwrap_or(usize::MAX));
        let n_tokens = n_tokens(spec, n_ids, rows, found.values())?;
        let positions = positions(spec.positions.as_ref(), rows, n_tokens)?;
        let hooks: Vec<Hook> = found.keys().copied().collect();
        refuse_mean_of_indices(&hooks, &PositionsRequest::Known(positions.clone()))?;
        let capture = Capture { hooks: hooks.into(), positions, dtype: dtype(&found, spec.dtype)? };
        let n_layers = n_layers(spec, &capture.hooks)?;
        let d_model = d_model(spec, &found)?;
        let sources = found.into_values().map(|f| f.source).collect();
        Ok(Self { capture, sources, n_tokens, n_layers, d_model, token_ids })
    }

    /// Types of the activations in the file, each once.
    #[must_use]
    pub fn file_dtypes(&self) -> Vec<String> {
        let mut dtypes: Vec<FileDtype> = self.sources.iter().map(|s| s.dtype).collect();
        dtypes.sort();
        dtypes.dedup();
        dtypes.into_iter().map(|d| d.name().to_owned()).collect()
    }

    /// The token ids of the cache. `token_ids` are the bytes in the range [`Self::token_ids`].
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for a number that is not a token id.
    pub fn item(&self, spec: &ImportSpec, token_ids: &[u8], origin: ImportOrigin) -> Result<NewItem, Problem> {
        let ids = match &self.token_ids {
            Some((_, dtype)) => read_ids(token_ids, *dtype)?,
            None => vec![UNKNOWN_TOKEN; self.n_tokens],
        };
        Ok(NewItem {
            token_ids: ids,
            tokens: spec.tokens.clone().unwrap_or_else(|| vec![String::new(); self.n_tokens]),
            text: spec.text.clone(),
            capture: self.capture.clone(),
            bos: spec.bos.clone(),
            n_truncated: spec.n_truncated,
            tags: spec.tags.clone(),
            metadata: spec.metadata.clone(),
            label: spec.label.clone(),
            generation: None,
            unsettled: None,
            completion: spec.completion.clone(),
            origin: Some(origin),
            interventions: Vec::new(),
        })
    }
}

/// The byte range of the token ids.
fn ids(tensor: &FileTensor) -> Result<(Range<u64>, FileDtype), Problem> {
    let whole = matches!(tensor.dtype, FileDtype::Int64 | FileDtype::Int32);
    if tensor.shape.len() == 1 && whole {
        return Ok((tensor.data.clone(), tensor.dtype));
    }
    let detail =
        format!("token_ids is [tokens] in I64 or I32, and this is {:?} in {}", tensor.shape, tensor.dtype.name());
    Err(at_tensor(Code::ShapeMismatch, &tensor.name, detail))
}

fn read_ids(bytes: &[u8], dtype: FileDtype) -> Result<Vec<u32>, Problem> {
    let ids: Vec<i64> = match dtype {
        FileDtype::Int64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
    };
    let read = |(i, id): (usize, &i64)| {
        u32::try_from(*id).ok().filter(|id| *id != UNKNOWN_TOKEN).ok_or_else(|| {
            at_tensor(Code::InvalidValue, TOKEN_IDS, format!("{id}, the id of token {i}, is the id of no token"))
        })
    };
    ids.iter().enumerate().map(read).collect()
}

/// The hooks in a tensor: one, or one for each layer of a stack.
fn hooks_of<'a>(tensor: &'a FileTensor, spec: &ImportSpec) -> Result<Vec<(Hook, Found<'a>)>, Problem> {
    if matches!(tensor.dtype, FileDtype::Int64 | FileDtype::Int32) {
        let detail = "whole numbers are no activations; only token_ids are stored as such";
        return Err(at_tensor(Code::InvalidValue, &tensor.name, detail));
    }
    let name: HookName = tensor.name.parse().map_err(|e: crate::hook::UnknownHook| {
        let detail = format!(
            "{e}; tensors are named by their hooks (`blocks.5.hook_resid_post` for one layer, `resid_post` for a stack of \
             layers), beside `token_ids`"
        );
        at_tensor(Code::UnknownHook, &tensor.name, detail)
    })?;
    let site = match name {
        HookName::Full(hook) => return Ok(vec![(hook, one(tensor, hook.site(), &tensor.shape, tensor.data.clone())?)]),
        HookName::Short(site) => site,
    };
    let Some((n, shape)) = tensor.shape.split_first() else {
        return Err(at_tensor(Code::ShapeMismatch, &tensor.name, "a stack has its layers on the first axis"));
    };
    let layers = match &spec.layers {
        Some(layers) if layers.len() == *n => layers.clone(),
        Some(layers) => {
            let detail = format!("the first axis of this stack has length {n}, and layers names {}", layers.len());
            return Err(at_tensor(Code::ShapeMismatch, &tensor.name, detail));
        }
        None if spec.n_layers.is_none_or(|all| all == *n) => (0..*n).collect(),
        None => {
            let detail = format!(
                "this stack has {n} layers and the model {}; say in layers which they are",
                spec.n_layers.unwrap_or_default()
            );
            return Err(at_tensor(Code::ShapeMismatch, &tensor.name, detail));
        }
    };
    let size = (tensor.data.end - tensor.data.start) / *n as u64;
    let slice = |(i, layer): (usize, &usize)| {
        let begin = tensor.data.start + i as u64 * size;
        Ok((Hook::block(site, *layer), one(tensor, site, shape, begin..begin + size)?))
    };
    layers.iter().enumerate().map(slice).collect()
}

/// Identifies the axes of a hook's tensor: `shape` must be that of the site, with or without the position axis.
fn one<'a>(tensor: &'a FileTensor, site: Site, shape: &[usize], data: Range<u64>) -> Result<Found<'a>, Problem> {
    let axes = site.axes();
    let wrong = |hint: &str| {
        let names: Vec<&str> = axes.iter().map(|a| a.name()).collect();
        let detail = format!("{shape:?} is not the shape of {}, which is [{}]{hint}", site.name(), names.join(", "));
        at_tensor(Code::ShapeMismatch, &tensor.name, detail)
    };
    let place = usize::from(site.is_attention_map());
    let (n_rows, rest) = match shape.len() {
        n if n == axes.len() => (Some(shape[place]), [&shape[..place], &shape[place + 1..]].concat()),
        n if n + 1 == axes.len() => (None, shape.to_vec()),
        n if n == axes.len() + 1 && shape[0] == 1 => return Err(wrong("; leave out the axis of the batch")),
        _ => return Err(wrong(", or without its positions")),
    };
    let other_axes = axes.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, axis)| *axis);
    if other_axes.zip(&rest).any(|(axis, n)| axis == Axis::One && *n != 1) {
        return Err(wrong(""));
    }
    // [heads, keys], with a key for each token
    let (n_keys, row_shape) = if place == 1 { (Some(rest[1]), vec![rest[0]]) } else { (None, rest) };
    Ok(Found {
        name: &tensor.name,
        source: TensorSource { data, dtype: tensor.dtype, row_shape },
        site,
        n_rows,
        n_keys,
    })
}

/// The number of tokens; everything that determines it must agree.
fn n_tokens<'a, 'f: 'a>(
    spec: &ImportSpec,
    n_ids: Option<usize>,
    n_rows: Option<usize>,
    mut found: impl Iterator<Item = &'a Found<'f>>,
) -> Result<usize, Problem> {
    let n_strings = spec.tokens.as_ref().map(Vec::len);
    let keys = found.find_map(|f| f.n_keys.map(|n| (n, f.name)));
    let said = [
        (n_ids, "token_ids"),
        (n_strings, "tokens"),
        (spec.n_tokens, "n_tokens"),
        (keys.map(|(n, _)| n), keys.map_or("", |(_, name)| name)),
    ];
    let mut known: Option<(usize, &str)> = None;
    for (n, what) in said {
        match (known, n) {
            (Some((known, by)), Some(n)) if known != n => {
                let detail = format!("`{by}` tells of {known} tokens and `{what}` of {n}");
                return Err(Problem::at(Code::ShapeMismatch, format!("/{what}"), detail));
            }
            (None, Some(n)) => known = Some((n, what)),
            _ => {}
        }
    }
    let n = match (known, &spec.positions, n_rows) {
        (Some((n, _)), ..) => n,
        // as many as the positions need
        (None, None | Some(Positions::All), Some(rows)) => rows,
        (None, None | Some(Positions::Last), _) => 1,
        (None, Some(positions), _) => enough(positions).ok_or_else(|| {
            let detail = "how many tokens the input has is not said; give n_tokens, tokens or token_ids";
            Problem::at(Code::InvalidValue, "n_tokens", detail)
        })?,
    };
    if (1..=super::MAX_TOKENS).contains(&n) {
        return Ok(n);
    }
    let detail = format!("the input has {n} tokens; an import takes 1 to {}", super::MAX_TOKENS);
    Err(Problem::at(Code::InvalidValue, "n_tokens", detail))
}

/// The smallest number of tokens with which all positions exist that count from the start.
fn enough(positions: &Positions) -> Option<usize> {
    let behind = |p: &i64| usize::try_from(*p).ok().and_then(|p| p.checked_add(1));
    match positions {
        Positions::One(p) => behind(p),
        Positions::List(list) => list.iter().map(behind).collect::<Option<Vec<_>>>()?.into_iter().max(),
        Positions::Range { start, end: Some(end) } if start.is_none_or(|s| s >= 0) => usize::try_from(*end).ok(),
        Positions::MeanOf(of) => enough(of),
        _ => None,
    }
}

/// The positions of the rows, in a form that has a position axis if, and only if, the tensors have one.
fn positions(said: Option<&Positions>, n_rows: Option<usize>, n_tokens: usize) -> Result<Positions, Problem> {
    let refuse = |code: Code, detail: String| Problem::at(code, "positions", detail);
    let positions = match (said.cloned(), n_rows) {
        (None, None) => Positions::Last,
        (None, Some(n)) if n == n_tokens => Positions::All,
        (None, Some(n)) => {
            let detail = format!("the tensors have {n} rows for {n_tokens} tokens; say which positions these are");
            return Err(refuse(Code::ShapeMismatch, detail));
        }
        (Some(Positions::Last), Some(_)) => Positions::List(vec![-1]),
        (Some(Positions::One(p)), Some(_)) => Positions::List(vec![p]),
        (Some(Positions::List(list)), None) if list.len() == 1 => Positions::One(list[0]),
        (Some(Positions::All), None) if n_tokens == 1 => Positions::Last,
        (Some(said), _) => said,
    };
    let rows = positions.resolve(n_tokens).map_err(|p| refuse(p.code, p.detail))?.len();
    match n_rows {
        Some(n) if !positions.keeps_axis() => {
            let detail =
                format!("{positions} is one row without a position axis, and the tensors have {n} rows with one");
            Err(refuse(Code::ShapeMismatch, detail))
        }
        None if positions.keeps_axis() => Err(refuse(
            Code::ShapeMismatch,
            format!("{positions} is {rows} rows, and the tensors have no position axis"),
        )),
        Some(n) if n != rows => {
            Err(refuse(Code::ShapeMismatch, format!("{positions} is {rows} rows, and the tensors have {n}")))
        }
        _ => Ok(positions),
    }
}

/// The type to store: the requested one, the file's own, or float32, which represents all narrower ones exactly.
fn dtype(found: &BTreeMap<Hook, Found<'_>>, wanted: Option<Dtype>) -> Result<Dtype, Problem> {
    if let Some(wanted) = wanted {
        return Ok(wanted);
    }
    if let Some(wide) = found.values().find(|f| f.source.dtype == FileDtype::Float64) {
        let detail = "F64 would be rounded: give dtype=float32 (or another) if that is meant";
        return Err(at_tensor(Code::InvalidValue, wide.name, detail));
    }
    let mut dtypes = found.values().filter_map(|f| match f.source.dtype {
        FileDtype::Float(dtype) => Some(dtype),
        _ => None,
    });
    let first = dtypes.next().unwrap_or_default();
    Ok(if dtypes.all(|d| d == first) { first } else { Dtype::Float32 })
}

/// The number of blocks: as given, else as many as the hooks show.
fn n_layers(spec: &ImportSpec, hooks: &[Hook]) -> Result<usize, Problem> {
    let told = hooks.iter().filter_map(Hook::layer).max().map_or(0, |last| last + 1);
    match spec.n_layers {
        Some(given) if given < told => {
            let detail = format!("the file has layer {}, so the model has more than {given}", told - 1);
            Err(Problem::at(Code::LayerOutOfRange, "n_layers", detail))
        }
        Some(given) => Ok(given),
        None => Ok(told),
    }
}

/// The width of the residual stream; all tensors with this axis must agree.
fn d_model(spec: &ImportSpec, found: &BTreeMap<Hook, Found<'_>>) -> Result<usize, Problem> {
    let mut known = spec.d_model;
    for f in found.values() {
        let along = f.site.axes().last() == Some(&Axis::DModel);
        let Some(own) = f.source.row_shape.last().filter(|_| along) else { continue };
        let width = *known.get_or_insert(*own);
        if width != *own {
            let detail = format!("its residual stream is {own} wide, and {width} elsewhere");
            return Err(at_tensor(Code::ShapeMismatch, f.name, detail));
        }
    }
    known.ok_or_else(|| {
        Problem::at(Code::InvalidQuery, "d_model", "no tensor tells how wide the residual stream is; give d_model")
    })
}
