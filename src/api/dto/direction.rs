//! Directions in requests and responses.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::api::tensor::{Encoding, Format};
use residuum_domain::{Direction, DirectionInfo, DirectionVector};

/// What a response includes besides the description of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IncludeVectors {
    /// The values of its vectors.
    Vectors,
}

/// Query parameters of the routes that describe a direction.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DirectionQuery {
    /// `vectors`: include the values.
    pub include: Option<IncludeVectors>,
}

/// Query parameters of a direction's tensor.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VectorQuery {
    /// One layer; all of them stacked if left out.
    #[param(example = 12)]
    pub layer: Option<usize>,
    /// Which of a layer's vectors; 0 if left out.
    #[param(default = 0)]
    pub component: Option<usize>,
    /// `json`, `npy`, `safetensors` or `raw`; takes precedence over the `Accept` header.
    pub format: Option<Format>,
    /// How a JSON response writes the values.
    pub encoding: Option<Encoding>,
}

/// Changes to a direction. Its vectors, name and provenance cannot be changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DirectionPatch, example = json!({"metadata": {"paper": "arXiv:2306.03341", "draft": null}}))]
pub struct DirectionPatchDto {
    /// Merged into the metadata; null removes a key.
    pub metadata: Map<String, Value>,
}

/// How a direction was made.
#[derive(Serialize, ToSchema)]
#[schema(as = DirectionMethod)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only describes `method` for the specification")]
pub enum DirectionMethodSchema {
    /// Posted values.
    Upload,
    /// Mean of the positive caches minus mean of the negative ones.
    DifferenceOfMeans,
    /// Principal components of caches.
    Pca,
    /// Weights of a logistic regression.
    Probe,
}

/// A direction: one vector in the space of a hook, or one for each layer and component.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Direction, example = json!({
    "id": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "name": "sentiment", "method": "difference_of_means",
    "model": "smollm2-135m", "hook": "hook_resid_post", "layers": [12], "n_components": 1, "width": 576, "metadata": {},
    "provenance": {
        "residuum_version": "0.1.0", "model_fingerprint": "9f2c...", "position": "last", "n": 40, "n_positive": 20,
        "n_negative": 20, "caches_blake3": "77ab...", "parameters": {"normalize": false},
        "selection": {"positive": {"label": "positive"}, "negative": {"label": "negative"}}
    },
    "created_at": "2026-11-24T03:00:00Z",
    "vectors": [{"layer": 12, "component": 0, "metrics": {"norm": 4.25, "cohens_d": 2.5, "auroc": 0.96}}]
}))]
pub struct DirectionDto {
    /// Id.
    pub id: String,
    /// Name, unique.
    pub name: String,
    /// `upload`, `difference_of_means`, `pca` or `probe`.
    #[schema(value_type = DirectionMethodSchema)]
    pub method: &'static str,
    /// The model to whose activations it belongs; null if an upload does not name one.
    pub model: Option<String>,
    /// The hook, without its layer.
    pub hook: &'static str,
    /// Layers for which it has vectors, ascending; empty for a hook outside the blocks.
    pub layers: Vec<usize>,
    /// Number of vectors for each layer.
    pub n_components: usize,
    /// Dimensions of each vector: a row of the hook, flattened.
    pub width: usize,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// How it was made: version of the server, fingerprint of the model, position, parameters, how the caches were
    /// selected, their number, and the blake3 of their ids (16 bytes each, in order).
    pub provenance: Map<String, Value>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Its vectors by layer and component; left out in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vectors: Option<Vec<DirectionVectorDto>>,
}

/// One vector of a direction.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DirectionVector)]
pub struct DirectionVectorDto {
    /// Layer; null for a hook outside the blocks.
    pub layer: Option<usize>,
    /// Which of the layer's vectors.
    pub component: usize,
    /// Numbers that describe the vector, null if undefined. All methods: `norm`. `difference_of_means`: `norm_positive`
    /// and `norm_negative` of the means; `cohens_d`, `auroc`, `positive_mean` and `negative_mean` of the projections of
    /// the caches it was made from. `pca`: `explained_variance`, `explained_variance_ratio`, `mean` of the projections.
    /// `probe`: `intercept`; held-out `accuracy`, `accuracy_std`, `auroc`, `auroc_std` over the folds, with
    /// `fold_accuracy` and `fold_auroc`; the baselines `shuffled_accuracy` and `shuffled_auroc`; `train_accuracy` and
    /// `train_auroc` on all caches; `n_steps` of the solver.
    pub metrics: Map<String, Value>,
    /// The values, with `include=vectors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<f32>>,
}

impl DirectionDto {
    /// The direction as a listing shows it.
    pub fn of_info(info: DirectionInfo) -> Self {
        Self {
            id: info.id.to_string(),
            name: info.name,
            method: info.method.name(),
            model: info.model,
            hook: info.site.name(),
            layers: info.layers,
            n_components: info.n_components,
            width: info.d,
            metadata: info.metadata,
            provenance: info.provenance,
            created_at: info.created_at,
            vectors: None,
        }
    }

    /// The direction with its metrics, and with the values of its vectors if `include` asks for them.
    pub fn new(direction: Direction, include: Option<IncludeVectors>) -> Self {
        let vector = |v: DirectionVector| DirectionVectorDto {
            layer: v.layer,
            component: v.component,
            metrics: v.metrics,
            values: include.map(|IncludeVectors::Vectors| v.values),
        };
        let vectors = direction.vectors.into_iter().map(vector).collect();
        Self { vectors: Some(vectors), ..Self::of_info(direction.info) }
    }
}
