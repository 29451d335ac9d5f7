//! Directions whose vectors the client gives.

use std::collections::BTreeSet;

use serde_json::Map;

use super::{MAX_VALUES, Made, direction_fit::norm_metric};
use residuum_domain::{Code, DirectionVector, HookName, Problem, Site, hook::UnknownHook};

/// Most layers of any model.
const MAX_LAYERS: usize = 10_000;

/// The vectors of a direction.
#[derive(Debug, Clone)]
pub struct GivenVectors {
    /// The model whose activations the direction belongs to. Not checked.
    pub model: Option<String>,
    /// Hook, short or full.
    pub hook: String,
    /// The vectors, all of one width `d`. Each layer has the same components.
    pub vectors: Vec<GivenVector>,
}

/// One vector of a direction.
#[derive(Debug, Clone)]
pub struct GivenVector {
    /// Its layer, for a short hook name inside the blocks.
    pub layer: Option<usize>,
    /// Its index among the vectors of its layer, from 0.
    pub component: usize,
    /// Finite values `[d]`: a row of the hook with its axes flattened.
    pub values: Vec<f32>,
}

impl GivenVectors {
    /// The direction, after checking its vectors against each other and against the hook.
    ///
    /// # Errors
    /// [`Code::UnknownHook`], [`Code::InvalidValue`], [`Code::ShapeMismatch`], [`Code::LayerOutOfRange`],
    /// [`Code::EmptyInput`], [`Code::ResultTooLarge`], each with its place in the question.
    pub(super) fn made(self) -> Result<Made, Problem> {
        let name: HookName =
            self.hook.parse().map_err(|e: UnknownHook| Problem::at(Code::UnknownHook, "/hook", e.to_string()))?;
        let d = self.vectors.first().map_or(0, |v| v.values.len());
        if d == 0 {
            return Err(Problem::at(Code::EmptyInput, "/vectors", "give at least one vector of at least one value"));
        }
        if d.saturating_mul(self.vectors.len()) > MAX_VALUES {
            let detail = format!("a direction has at most {MAX_VALUES} values");
            return Err(Problem::at(Code::ResultTooLarge, "/vectors", detail));
        }
        let mut vectors = Vec::with_capacity(self.vectors.len());
        for (i, vector) in self.vectors.into_iter().enumerate() {
            vectors.push(checked(vector, name, d, &format!("/vectors/{i}"))?);
        }
        let site = match name {
            HookName::Full(hook) => hook.site(),
            HookName::Short(site) => site,
        };
        let n_components = components(&vectors)?;
        vectors.sort_by_key(|v| (v.layer, v.component));
        Ok(Made { model: self.model, site, n_components, vectors, provenance: Map::new() })
    }
}

fn checked(vector: GivenVector, name: HookName, d: usize, at: &str) -> Result<DirectionVector, Problem> {
    let GivenVector { layer, component, values } = vector;
    if values.len() != d {
        let detail = format!("this vector has {} values and the first one {d}", values.len());
        return Err(Problem::at(Code::ShapeMismatch, format!("{at}/values"), detail));
    }
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        let detail = "values must be finite in float32";
        return Err(Problem::at(Code::InvalidValue, format!("{at}/values/{i}"), detail));
    }
    let layer = match (name, layer) {
        (HookName::Short(_), Some(l)) if l < MAX_LAYERS => Some(l),
        (HookName::Full(hook), None) => hook.layer(),
        (HookName::Full(hook), Some(l)) if hook.layer() == Some(l) => Some(l),
        (HookName::Short(_), Some(_)) => {
            let detail = "no model has so many layers";
            return Err(Problem::at(Code::LayerOutOfRange, format!("{at}/layer"), detail));
        }
        (HookName::Short(site), None) => return Err(wrong_layer(at, site, "a short name inside the blocks needs one")),
        (HookName::Full(hook), Some(_)) => return Err(wrong_layer(at, hook.site(), "the hook's name says which")),
    };
    let metrics = norm_metric(&values);
    Ok(DirectionVector { layer, component, values, metrics })
}

fn wrong_layer(at: &str, site: Site, why: &str) -> Problem {
    Problem::at(Code::InvalidValue, format!("{at}/layer"), format!("layer of {}: {why}", site.name()))
}

/// The number of components per layer: the same for all layers, counted from 0, without repeats.
fn components(vectors: &[DirectionVector]) -> Result<usize, Problem> {
    let places: BTreeSet<(Option<usize>, usize)> = vectors.iter().map(|v| (v.layer, v.component)).collect();
    let layers: BTreeSet<Option<usize>> = vectors.iter().map(|v| v.layer).collect();
    let n = vectors.len() / layers.len();
    let complete = layers.iter().all(|l| (0..n).all(|c| places.contains(&(*l, c))));
    if complete && places.len() == vectors.len() && n * layers.len() == vectors.len() {
        return Ok(n);
    }
    let detail = "each layer needs the same components, counted from 0, each once";
    Err(Problem::at(Code::InvalidValue, "/vectors", detail))
}
