//! What a run captures: as a client writes it ([`CaptureRequest`]), and resolved against a model ([`Capture`]).

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Unexpected, Visitor},
};

use super::{
    dtype::Dtype,
    forms::{Forms, list, listed, word},
    hook::{Axis, Hook, HookName, Site},
    model::ModelInfo,
    positions::{Positions, PositionsRequest, Rows, index},
    problem::{Code, Problem},
};

/// The layers that short hook names refer to.
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

impl Forms for Layers {
    fn forms() -> Vec<String> {
        vec![word("all"), "a whole number".to_owned(), "an array of whole numbers".to_owned()]
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Layers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&listed(&Layers::forms()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Layers, E> {
                match text {
                    "all" => Ok(Layers::All),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, layer: i64) -> Result<Layers, E> {
                Ok(Layers::One(layer))
            }

            fn visit_u64<E: de::Error>(self, layer: u64) -> Result<Layers, E> {
                // a number beyond `i64` is not a layer either
                Ok(Layers::One(i64::try_from(layer).unwrap_or(i64::MAX)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Layers, A::Error> {
                list(elements).map(Layers::List)
            }
        }

        d.deserialize_any(Read)
    }
}

impl Layers {
    /// The 0-based layers, in the order given, without repeats.
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

/// A capture specification as it arrives; names are not checked against a model yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Full or short hook names.
    #[serde(default = "default_hooks")]
    pub hooks: Vec<String>,
    /// Layers that the short names refer to.
    #[serde(default)]
    pub layers: Layers,
    /// Positions to keep; `None`: the model's default, which is last, or mean for encoders.
    #[serde(default)]
    pub positions: Option<PositionsRequest>,
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
    /// Positions of the input.
    pub positions: Positions,
    /// Type to store.
    pub dtype: Dtype,
}

/// How a stored capture can serve another capture of the same forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its rows are the wanted rows; some of its hooks may not be wanted.
    AsStored,
    /// The wanted rows can be computed from its rows: selected, averaged or rounded, with the same result, bit for bit, as from
    /// the forward pass.
    Copied,
}

impl Capture {
    /// How a capture `self` can serve `wanted`, for an input of `n_tokens`; `None` if it cannot.
    ///
    /// A mean is computed only from float32 rows: the mean of rounded rows would differ. Rounding float32 rows gives the same
    /// result as rounding at the time of capture.
    #[must_use]
    pub fn answer(&self, wanted: &Self, n_tokens: usize) -> Option<Answer> {
        let same_type = self.dtype == wanted.dtype;
        let exact = self.dtype == Dtype::Float32;
        if !(same_type || exact) || !contains(&self.hooks, &wanted.hooks) {
            return None;
        }
        if self.positions == wanted.positions && same_type {
            return Some(Answer::AsStored);
        }
        let (have, want) = (self.positions.resolve(n_tokens).ok()?, wanted.positions.resolve(n_tokens).ok()?);
        match (&have, &want) {
            _ if have == want => Some(if same_type { Answer::AsStored } else { Answer::Copied }),
            (Rows::List(_), Rows::List(_)) => have.places(&want).map(|_| Answer::Copied),
            (Rows::List(_), Rows::Mean(_)) if exact => have.places(&want).map(|_| Answer::Copied),
            _ => None,
        }
    }
}

/// Whether `all` contains all of `some`; both are in execution order.
fn contains(all: &[Hook], some: &[Hook]) -> bool {
    let mut all = all.iter();
    some.iter().all(|hook| all.by_ref().any(|h| h == hook))
}

/// Refuses the mean of indices.
///
/// # Errors
/// [`Code::InvalidValue`] at `/positions` when indices would be averaged.
pub fn refuse_mean_of_indices(hooks: &[Hook], positions: &PositionsRequest) -> Result<(), Problem> {
    match hooks.iter().find(|h| h.site().is_index()) {
        Some(hook) if positions.is_mean() => {
            let detail = format!("`{hook}` holds indices, which have no mean; capture it at single positions");
            Err(Problem::at(Code::InvalidValue, "/positions", detail))
        }
        _ => Ok(()),
    }
}

impl CaptureRequest {
    /// The hooks, in execution order, each once. Every name is checked against the model.
    ///
    /// # Errors
    /// [`Code::UnknownHook`] listing the hooks of the model, [`Code::LayerOutOfRange`], or [`Code::InvalidValue`] when
    /// nothing would be captured. Pointers are relative to the capture object.
    pub fn resolve(&self, model: &ModelInfo) -> Result<Arc<[Hook]>, Problem> {
        if self.hooks.is_empty() {
            return Err(Problem::at(Code::InvalidValue, "/hooks", "hooks is empty: name at least one hook point"));
        }
        let layers = self.layers.resolve(model.n_layers)?;
        let mut hooks = BTreeSet::new();
        for (i, name) in self.hooks.iter().enumerate() {
            let pointer = format!("/hooks/{i}");
            hooks.extend(self.resolve_name(name, &layers, model).map_err(|p| p.under_pointer(&pointer))?);
        }
        Ok(hooks.into_iter().collect())
    }

    /// The positions of inputs that have no positions of their own.
    #[must_use]
    pub fn positions(&self, model: &ModelInfo) -> PositionsRequest {
        let default = if model.bidirectional { Positions::Mean } else { Positions::Last };
        self.positions.clone().unwrap_or(PositionsRequest::Known(default))
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
    /// Sets the pointer of every field of this problem.
    fn under_pointer(mut self, pointer: &str) -> Self {
        for e in &mut self.errors {
            pointer.clone_into(&mut e.pointer);
        }
        self
    }
}

/// Shape and axes of one input's stored tensor.
///
/// Attention maps `[head, q, k]` keep all keys; positions select queries.
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_capture_answers_what_its_rows_hold() {
        let of = |positions: &str, dtype, layers: &[usize]| Capture {
            hooks: layers.iter().map(|l| Hook::block(Site::ResidPost, *l)).collect(),
            positions: positions.parse().unwrap(),
            dtype,
        };
        let (full, half, brain) = (Dtype::Float32, Dtype::Float16, Dtype::BFloat16);
        let (stored, copied) = (Some(Answer::AsStored), Some(Answer::Copied));
        for (have, want, expected) in [
            (of("all", full, &[0, 1]), of("0:4", full, &[1]), stored),
            (of("last", half, &[0]), of("3", half, &[0]), stored),
            (of("mean", full, &[0]), of("mean", full, &[0]), stored),
            (of("mean", full, &[0]), of("mean", half, &[0]), copied),
            (of("all", full, &[0]), of("last", full, &[0]), copied),
            (of("all", half, &[0]), of("2,0,2", half, &[0]), copied),
            (of("all", full, &[0]), of("all", brain, &[0]), copied),
            (of("all", full, &[0]), of("mean", half, &[0]), copied),
            (of("all", half, &[0]), of("mean", half, &[0]), None),
            (of("all", half, &[0]), of("all", full, &[0]), None),
            (of("all", half, &[0]), of("all", brain, &[0]), None),
            (of("1:4", full, &[0]), of("mean", full, &[0]), None),
            (of("1:4", full, &[0]), of("0", full, &[0]), None),
            (of("mean", full, &[0]), of("last", full, &[0]), None),
            (of("all", full, &[1]), of("all", full, &[0, 1]), None),
        ] {
            assert_eq!(have.answer(&want, 4), expected, "{have:?} {want:?}");
        }
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
