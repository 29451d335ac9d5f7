//! Directions: named vectors in the space of a hook, with their provenance.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    hook::{Hook, Site},
    ids::{DirectionId, TenantId},
};

/// How a direction was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectionMethod {
    /// Its values were posted.
    Upload,
    /// Mean of one set of caches minus mean of another.
    DifferenceOfMeans,
    /// Principal components.
    Pca,
    /// Weights of a logistic regression.
    Probe,
}

impl DirectionMethod {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::Upload, Self::DifferenceOfMeans, Self::Pca, Self::Probe];

    /// The stable spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::DifferenceOfMeans => "difference_of_means",
            Self::Pca => "pca",
            Self::Probe => "probe",
        }
    }

    /// Parses the spelling of [`Self::name`].
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }
}

/// The description of a direction, without its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectionInfo {
    /// Its id.
    pub id: DirectionId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Its name, unique for the tenant.
    pub name: String,
    /// How it was created.
    pub method: DirectionMethod,
    /// The model whose activations it applies to, if known.
    pub model: Option<String>,
    /// The site whose rows it applies to.
    pub site: Site,
    /// Layers it has vectors for, ascending; empty for a site outside the blocks.
    pub layers: Vec<usize>,
    /// Number of vectors per layer.
    pub n_components: usize,
    /// Length of each vector.
    pub d: usize,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// Its provenance: parameters, fingerprint of the weights, caches.
    pub provenance: Map<String, Value>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// A direction with its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// Its description.
    pub info: DirectionInfo,
    /// The vectors, ordered by layer, then by component.
    pub vectors: Vec<DirectionVector>,
}

/// One vector of a direction.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectionVector {
    /// Its layer; `None` for a site outside the blocks.
    pub layer: Option<usize>,
    /// Index among the vectors of the layer; 0 unless there are several.
    pub component: usize,
    /// The values `[d]`: a flattened row of the hook.
    pub values: Vec<f32>,
    /// Numbers that describe it, by name; null if undefined.
    pub metrics: Map<String, Value>,
}

impl Direction {
    /// The values `[d]` at a layer, `None` for a site outside the blocks.
    #[must_use]
    pub fn vector(&self, layer: Option<usize>, component: usize) -> Option<&[f32]> {
        let found = self.vectors.iter().find(|v| v.layer == layer && v.component == component);
        found.map(|v| v.values.as_slice())
    }
}

impl DirectionInfo {
    /// The hook of the vectors at a layer.
    #[must_use]
    pub fn hook(&self, layer: Option<usize>) -> Option<Hook> {
        match layer {
            Some(l) if self.site.in_block() => Some(Hook::block(self.site, l)),
            None if !self.site.in_block() => Some(Hook::global(self.site)),
            _ => None,
        }
    }
}
