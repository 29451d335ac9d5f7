//! What a run should capture: as a client writes it ([`CaptureRequest`]), and resolved against a model ([`Capture`]).

use std::{collections::BTreeSet, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::{
    dtype::Dtype,
    hook::{Axis, Hook, HookName, Site},
    model::ModelInfo,
    problem::{Code, Problem},
};

/// Which layers short hook names stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(untagged)]
pub enum Layers {
    /// Every layer that has the hook.
    #[default]
    #[serde(serialize_with = "serialize_all")]
    All,
    /// One layer; negatives count from the last.
    One(i64),
    /// These layers; negatives count from the last.
    List(Vec<i64>),
}

fn serialize_all<S: serde::Serializer>(s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str("all")
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let expected = "layers must be \"all\", an integer or an array of integers";
        match Value::deserialize(d)? {
            Value::String(s) if s == "all" => Ok(Self::All),
            Value::Number(n) => n.as_i64().map(Self::One).ok_or_else(|| de::Error::custom(expected)),
            Value::Array(items) => integers(&items).map(Self::List).ok_or_else(|| de::Error::custom(expected)),
            _ => Err(de::Error::custom(expected)),
        }
    }
}

impl Layers {
    /// The 0-based layers meant, in the order named, without repeats.
    ///
    /// # Errors
    /// [`Code::LayerOutOfRange`] for a layer the model lacks and [`Code::InvalidValue`] for an empty list.
    pub fn resolve(&self, n_layers: usize) -> Result<Vec<usize>, Problem> {
        let one = |l: i64| {
            index(l, n_layers).ok_or_else(|| {
                let detail = format!(
                    "layer {l} does not exist: the model has {n_layers} layers, 0 to {}",
                    n_layers.saturating_sub(1)
                );
                Problem::at(Code::LayerOutOfRange, "/layers", detail)
            })
        };
        match self {
            Self::All => Ok((0..n_layers).collect()),
            Self::One(l) => Ok(vec![one(*l)?]),
            Self::List(list) if list.is_empty() => Err(Problem::at(
                Code::InvalidValue,
                "/layers",
                "the list of layers is empty; leave it out for all layers",
            )),
            Self::List(list) => {
                let mut seen = BTreeSet::new();
                let all: Vec<usize> = list.iter().map(|l| one(*l)).collect::<Result<_, _>>()?;
                Ok(all.into_iter().filter(|l| seen.insert(*l)).collect())
            }
        }
    }
}

/// Which positions of each input to keep.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Positions {
    /// The final token; drops the position axis.
    #[default]
    Last,
    /// The mean over all tokens, accumulated in float64; drops the position axis.
    Mean,
    /// Every token.
    All,
    /// One position; negatives count from the end; drops the position axis.
    One(i64),
    /// These positions, in this order, repeats kept.
    List(Vec<i64>),
    /// From `start` (default 0) up to but not including `end` (default: the length); negatives count from the end.
    Range {
        /// First position.
        start: Option<i64>,
        /// First position no longer meant.
        end: Option<i64>,
    },
}

/// Positions of one input of known length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row: the mean over all positions.
    Mean,
    /// These positions, in order.
    List(Vec<u32>),
}

impl Rows {
    /// How many rows are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Mean => 1,
            Self::List(list) => list.len(),
        }
    }

    /// Whether no row is stored. Positions never resolve to this.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Positions {
    /// Whether a tensor captured at these positions keeps its position axis.
    #[must_use]
    pub fn keeps_axis(&self) -> bool {
        matches!(self, Self::All | Self::List(_) | Self::Range { .. })
    }

    /// The positions meant in an input of `n_tokens`.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] naming the position; ranges must lie inside the input and hold something.
    pub fn resolve(&self, n_tokens: usize) -> Result<Rows, Problem> {
        let out_of_range = |what: String| {
            Problem::at(Code::PositionOutOfRange, "/positions", format!("{what}: the input has {n_tokens} tokens"))
        };
        let one = |p: i64| {
            index(p, n_tokens)
                .map(|p| u32::try_from(p).expect("a context is shorter than 2^32"))
                .ok_or_else(|| out_of_range(format!("position {p} does not exist")))
        };
        match self {
            Self::Mean if n_tokens > 0 => Ok(Rows::Mean),
            Self::Mean => Err(out_of_range("the mean over no tokens does not exist".to_owned())),
            Self::Last => Ok(Rows::List(vec![one(-1)?])),
            Self::All => {
                Ok(Rows::List((0..u32::try_from(n_tokens).expect("a context is shorter than 2^32")).collect()))
            }
            Self::One(p) => Ok(Rows::List(vec![one(*p)?])),
            Self::List(list) => Ok(Rows::List(list.iter().map(|p| one(*p)).collect::<Result<_, _>>()?)),
            Self::Range { start, end } => {
                let bound = |b: Option<i64>, default: usize| match b {
                    None => Some(default),
                    Some(b) if b >= 0 => usize::try_from(b).ok().filter(|b| *b <= n_tokens),
                    Some(b) => index(b, n_tokens),
                };
                match (bound(*start, 0), bound(*end, n_tokens)) {
                    (Some(s), Some(e)) if s < e => {
                        #[expect(clippy::cast_possible_truncation, reason = "a context is shorter than 2^32")]
                        let rows = (s as u32..e as u32).collect();
                        Ok(Rows::List(rows))
                    }
                    (Some(_), Some(_)) => Err(out_of_range(format!("the range {self} is empty"))),
                    _ => Err(out_of_range(format!("the range {self} leaves the input"))),
                }
            }
        }
    }

    fn from_json(value: Value) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            "positions must be \"last\", \"mean\", \"all\", an integer, an array of integers or {\"start\":, \"end\":}";
        match value {
            Value::String(s) => match s.as_str() {
                "last" => Ok(Self::Last),
                "mean" => Ok(Self::Mean),
                "all" => Ok(Self::All),
                _ => Err(EXPECTED),
            },
            Value::Number(n) => n.as_i64().map(Self::One).ok_or(EXPECTED),
            Value::Array(items) => match integers(&items) {
                Some(list) if list.is_empty() => Err("the list of positions is empty"),
                Some(list) => Ok(Self::List(list)),
                None => Err(EXPECTED),
            },
            Value::Object(map) => {
                if map.keys().any(|k| k != "start" && k != "end") {
                    return Err("a range of positions has the fields start and end only");
                }
                let bound = |key: &str| match map.get(key) {
                    None | Some(Value::Null) => Ok(None),
                    Some(v) => v.as_i64().map(Some).ok_or("start and end of a range of positions must be integers"),
                };
                Ok(Self::Range { start: bound("start")?, end: bound("end")? })
            }
            _ => Err(EXPECTED),
        }
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_json(Value::deserialize(d)?).map_err(de::Error::custom)
    }
}

impl Serialize for Positions {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let json = match self {
            Self::Last => Value::from("last"),
            Self::Mean => Value::from("mean"),
            Self::All => Value::from("all"),
            Self::One(p) => Value::from(*p),
            Self::List(list) => Value::from(list.clone()),
            Self::Range { start, end } => serde_json::json!({"start": start, "end": end}),
        };
        json.serialize(s)
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |b: &Option<i64>| b.map(|b| b.to_string()).unwrap_or_default();
        match self {
            Self::Last => f.write_str("last"),
            Self::Mean => f.write_str("mean"),
            Self::All => f.write_str("all"),
            Self::One(p) => write!(f, "{p}"),
            Self::List(list) => {
                let items: Vec<String> = list.iter().map(ToString::to_string).collect();
                f.write_str(&items.join(","))
            }
            Self::Range { start, end } => write!(f, "{}:{}", bound(start), bound(end)),
        }
    }
}

impl FromStr for Positions {
    type Err = &'static str;

    /// Reads a query parameter: `last`, `mean`, `all`, `3`, `-1`, `0,2,4` or `2:5`.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected last, mean, all, an integer, integers with commas between them, or start:end";
        let int = |t: &str| t.trim().parse::<i64>().map_err(|_| EXPECTED);
        match s {
            "last" => Ok(Self::Last),
            "mean" => Ok(Self::Mean),
            "all" => Ok(Self::All),
            _ if s.contains(':') => {
                let (start, end) = s.split_once(':').ok_or(EXPECTED)?;
                let bound = |t: &str| if t.trim().is_empty() { Ok(None) } else { int(t).map(Some) };
                Ok(Self::Range { start: bound(start)?, end: bound(end)? })
            }
            _ if s.contains(',') => Ok(Self::List(s.split(',').map(int).collect::<Result<_, _>>()?)),
            _ => Ok(Self::One(int(s)?)),
        }
    }
}

/// A capture specification as it arrives: names not yet checked against a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Full or short hook names.
    #[serde(default = "default_hooks")]
    pub hooks: Vec<String>,
    /// Layers the short names stand for.
    #[serde(default)]
    pub layers: Layers,
    /// Positions to keep; `None` is the model's default: last, or mean for encoders.
    #[serde(default)]
    pub positions: Option<Positions>,
    /// Type to store.
    #[serde(default)]
    pub dtype: Dtype,
}

fn default_hooks() -> Vec<String> {
    vec!["resid_post".to_owned()]
}

impl Default for CaptureRequest {
    fn default() -> Self {
        Self { hooks: default_hooks(), layers: Layers::All, positions: None, dtype: Dtype::Float32 }
    }
}

/// A capture specification resolved against a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capture {
    /// Hooks in execution order, each once, never empty.
    pub hooks: Arc<[Hook]>,
    /// Positions of each input, unless the item says otherwise.
    pub positions: Positions,
    /// Type to store.
    pub dtype: Dtype,
}

impl Capture {
    /// Checks that no indices are averaged.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] at `/positions` when indices would be averaged.
    pub fn refuse_mean_of_indices(&self) -> Result<(), Problem> {
        match self.hooks.iter().find(|h| h.site().is_index()) {
            Some(hook) if self.positions == Positions::Mean => {
                let detail = format!("`{hook}` holds indices, which have no mean; capture it at single positions");
                Err(Problem::at(Code::InvalidValue, "/positions", detail))
            }
            _ => Ok(()),
        }
    }
}

impl CaptureRequest {
    /// Checks every name against the model.
    ///
    /// # Errors
    /// [`Code::UnknownHook`] with the hooks there are, [`Code::LayerOutOfRange`], or [`Code::InvalidValue`] when
    /// nothing would be captured or indices averaged; pointers are relative to the capture object.
    pub fn resolve(&self, model: &ModelInfo) -> Result<Capture, Problem> {
        if self.hooks.is_empty() {
            return Err(Problem::at(Code::InvalidValue, "/hooks", "hooks is empty: name at least one hook point"));
        }
        let layers = self.layers.resolve(model.n_layers)?;
        let mut hooks = BTreeSet::new();
        for (i, name) in self.hooks.iter().enumerate() {
            let pointer = format!("/hooks/{i}");
            hooks.extend(self.resolve_name(name, &layers, model).map_err(|p| p.under_pointer(&pointer))?);
        }
        let default = if model.bidirectional { Positions::Mean } else { Positions::Last };
        let positions = self.positions.clone().unwrap_or(default);
        let capture = Capture { hooks: hooks.into_iter().collect(), positions, dtype: self.dtype };
        capture.refuse_mean_of_indices()?;
        Ok(capture)
    }

    fn resolve_name(&self, name: &str, layers: &[usize], model: &ModelInfo) -> Result<Vec<Hook>, Problem> {
        let unknown = |what: String| {
            Problem::at(Code::UnknownHook, "", format!("{what}; {} has {}", model.id, model.site_names()))
        };
        let parsed: HookName = name.parse().map_err(|e: super::hook::UnknownHook| unknown(e.to_string()))?;
        let lacks = |l: usize, site: Site| unknown(format!("layer {l} has no `{}`", site.name()));
        match parsed {
            HookName::Full(hook) if model.has(hook) => Ok(vec![hook]),
            HookName::Full(hook) => match (hook.layer(), model.layers_with(hook.site())) {
                (Some(l), Some(_)) if l >= model.n_layers => Err(Problem::at(
                    Code::LayerOutOfRange,
                    "",
                    format!("`{hook}`: layer {l} does not exist, the model has layers 0 to {}", model.n_layers - 1),
                )),
                (Some(l), Some(_)) => Err(lacks(l, hook.site())),
                _ => Err(unknown(format!("{} has no `{hook}`", model.id))),
            },
            HookName::Short(site) => {
                let have = model.layers_with(site).ok_or_else(|| unknown(format!("{} has no `{name}`", model.id)))?;
                let has = |l: usize| have.iter().any(|h| *h as usize == l);
                if self.layers != Layers::All
                    && let Some(l) = layers.iter().copied().find(|l| !has(*l))
                {
                    return Err(lacks(l, site));
                }
                Ok(layers.iter().copied().filter(|l| has(*l)).map(|l| Hook::block(site, l)).collect())
            }
        }
    }
}

impl Problem {
    /// Points every field of this problem at `pointer`.
    fn under_pointer(mut self, pointer: &str) -> Self {
        for e in &mut self.errors {
            pointer.clone_into(&mut e.pointer);
        }
        self
    }
}

/// Shape and axes of one input's stored tensor.
///
/// `[head, q, k]` maps keep their key axis at the input's length; their positions select queries.
#[must_use]
pub fn stored_shape(
    site: Site,
    row_shape: &[usize],
    rows: &Rows,
    keep_axis: bool,
    n_tokens: usize,
) -> (Vec<usize>, Vec<Axis>) {
    let axes = site.axes();
    if site.is_attention_map() {
        let heads = row_shape.first().copied().unwrap_or(0);
        return if keep_axis {
            (vec![heads, rows.len(), n_tokens], axes.to_vec())
        } else {
            (vec![heads, n_tokens], vec![Axis::Head, Axis::KPos])
        };
    }
    if keep_axis {
        let mut shape = vec![rows.len()];
        shape.extend_from_slice(row_shape);
        (shape, axes.to_vec())
    } else {
        (row_shape.to_vec(), axes[1..].to_vec())
    }
}

/// `i` as an index into `n` things, negatives from the end.
fn index(i: i64, n: usize) -> Option<usize> {
    let n_signed = i64::try_from(n).ok()?;
    let i = if i < 0 { i.checked_add(n_signed)? } else { i };
    usize::try_from(i).ok().filter(|i| *i < n)
}

fn integers(items: &[Value]) -> Option<Vec<i64>> {
    items.iter().map(Value::as_i64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn positions(v: Value) -> Result<Positions, serde_json::Error> {
        serde_json::from_value(v)
    }

    #[test]
    fn positions_take_every_documented_form() {
        let rows = |v: Value, n: usize| positions(v).unwrap().resolve(n).unwrap();
        assert_eq!(rows(json!("last"), 5), Rows::List(vec![4]));
        assert_eq!(rows(json!("mean"), 5), Rows::Mean);
        assert_eq!(rows(json!("all"), 3), Rows::List(vec![0, 1, 2]));
        assert_eq!(rows(json!(-2), 5), Rows::List(vec![3]));
        assert_eq!(rows(json!([0, -1, 0]), 5), Rows::List(vec![0, 4, 0]));
        assert_eq!(rows(json!({"start": 1}), 4), Rows::List(vec![1, 2, 3]));
        assert_eq!(rows(json!({"start": -2, "end": 4}), 4), Rows::List(vec![2, 3]));
        assert_eq!(rows(json!({"end": -1}), 3), Rows::List(vec![0, 1]));
    }

    #[test]
    fn positions_outside_the_input_are_refused_never_clamped() {
        for v in [
            json!(5),
            json!(-6),
            json!([0, 5]),
            json!({"start": 0, "end": 6}),
            json!({"start": 3, "end": 3}),
            json!({"start": -6}),
            json!(i64::MIN),
            json!(i64::MAX),
        ] {
            let problem = positions(v.clone()).unwrap().resolve(5).unwrap_err();
            assert_eq!(problem.code, Code::PositionOutOfRange, "{v}");
        }
        for v in [json!("first"), json!(1.5), json!([]), json!(["a"]), json!({"from": 1}), json!(null), json!(true)] {
            assert!(positions(v.clone()).is_err(), "{v}");
        }
    }

    #[test]
    fn positions_survive_storage_and_query_spelling() {
        for p in [
            Positions::Last,
            Positions::Mean,
            Positions::All,
            Positions::One(-3),
            Positions::List(vec![1, -1]),
            Positions::Range { start: Some(1), end: None },
            Positions::Range { start: None, end: Some(-1) },
        ] {
            assert_eq!(positions(serde_json::to_value(&p).unwrap()).unwrap(), p);
            assert_eq!(p.to_string().parse(), Ok(p));
        }
    }

    #[test]
    fn layers_resolve_like_python_indices() {
        assert_eq!(Layers::All.resolve(3).unwrap(), [0, 1, 2]);
        assert_eq!(Layers::One(-1).resolve(3).unwrap(), [2]);
        assert_eq!(Layers::List(vec![2, 0, -1]).resolve(3).unwrap(), [2, 0]);
        assert_eq!(Layers::One(3).resolve(3).unwrap_err().code, Code::LayerOutOfRange);
        assert_eq!(Layers::List(vec![]).resolve(3).unwrap_err().code, Code::InvalidValue);
        assert_eq!(serde_json::to_value(Layers::All).unwrap(), "all");
    }

    #[test]
    fn stored_shapes_drop_the_axis_of_a_single_position() {
        let all = Positions::All.resolve(4).unwrap();
        let last = Positions::Last.resolve(4).unwrap();
        assert_eq!(stored_shape(Site::ResidPost, &[8], &all, true, 4).0, [4, 8]);
        assert_eq!(stored_shape(Site::ResidPost, &[8], &last, false, 4), (vec![8], vec![Axis::DModel]));
        assert_eq!(stored_shape(Site::Q, &[2, 3], &last, false, 4).0, [2, 3]);
        assert_eq!(stored_shape(Site::Pattern, &[2], &all, true, 4).0, [2, 4, 4]);
        assert_eq!(stored_shape(Site::Pattern, &[2], &last, false, 4), (vec![2, 4], vec![Axis::Head, Axis::KPos]));
    }
}
