//! Bodies of `POST /v1/directions`, one for each method.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::{
    dto::{
        annotations::check_annotations,
        capture::{LayersSchema, PositionsSchema},
        selector::{CacheSelector, CacheSelectorSchema},
    },
    extract::Body,
    json,
};
use residuum_domain::{Code, DirectionId, DirectionMethod, Layers, Positions, Problem};

/// A direction to make; `method` decides which fields the body has.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(tag = "method", rename_all = "snake_case")]
#[schema(as = DirectionRequest, example = json!({
    "method": "difference_of_means", "name": "sentiment", "hook": "resid_post", "layers": "all", "position": "last",
    "positive": {"label": "positive"}, "negative": {"label": "negative"}
}))]
pub enum NewDirection {
    /// Posted values.
    Upload(Upload),
    /// Mean of the positive caches minus mean of the negative ones.
    DifferenceOfMeans(MeansRequest),
    /// Principal components of caches.
    Pca(PcaRequest),
    /// Weights of a logistic regression that separates positive from negative caches.
    Probe(ProbeRequest),
}

/// Posted values.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DirectionUpload)]
pub struct Upload {
    /// A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    pub name: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// The model to whose activations it belongs. This is not checked.
    pub model: Option<String>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Its vectors, all of one width; every layer must have the same components.
    pub vectors: Vec<UploadedVector>,
}

/// One posted vector.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadedVector {
    /// Its layer, if the hook is a short name inside the blocks.
    pub layer: Option<usize>,
    /// Index among the vectors of the layer, from 0.
    #[serde(default)]
    #[schema(default = 0)]
    pub component: usize,
    /// Finite values, of a row of the hook with its axes flattened.
    pub values: Vec<f32>,
}

/// Mean of the positive caches minus mean of the negative ones, layer by layer.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DirectionOfMeans)]
pub struct MeansRequest {
    /// A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    pub name: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Layers, if the hook is a short name; by default those that all caches have.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// One position, or the mean over all.
    #[schema(value_type = Option<PositionsSchema>)]
    #[serde(default)]
    pub position: Positions,
    /// Positive caches. Give `positive` and `negative`, or `caches` and `target`.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub positive: Option<CacheSelector>,
    /// Negative caches.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub negative: Option<CacheSelector>,
    /// Caches of both classes; `target` says which are positive.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub caches: Option<CacheSelector>,
    /// Which of `caches` are positive.
    pub target: Option<TargetDto>,
    /// Whether to scale each vector to length one.
    #[serde(default)]
    #[schema(default = false)]
    pub normalize: bool,
}

/// Principal components of caches, layer by layer.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DirectionOfVariance)]
pub struct PcaRequest {
    /// A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    pub name: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Layers, if the hook is a short name; by default those that all caches have.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// One position, or the mean over all.
    #[schema(value_type = Option<PositionsSchema>)]
    #[serde(default)]
    pub position: Positions,
    /// The caches.
    #[schema(value_type = CacheSelectorSchema)]
    pub caches: CacheSelector,
    /// Number of components per layer, the largest variance first. Signs are chosen so that the value of largest
    /// magnitude of each component is positive.
    #[serde(default = "one")]
    #[schema(default = 1, minimum = 1)]
    pub k: usize,
    /// Whether to subtract the mean first.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub center: bool,
}

/// A logistic regression with an L2 penalty on standardised features, layer by layer. The vector is converted so that
/// it applies to activations that are not standardised: `log(p / (1 - p)) = vector · x + intercept`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DirectionOfProbe)]
pub struct ProbeRequest {
    /// A name that is not in use: letters, digits, `.`, `_` and `-`, at most 128.
    pub name: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    pub hook: String,
    /// Layers, if the hook is a short name; by default those that all caches have.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    pub layers: Layers,
    /// One position, or the mean over all.
    #[schema(value_type = Option<PositionsSchema>)]
    #[serde(default)]
    pub position: Positions,
    /// Positive caches. Give `positive` and `negative`, or `caches` and `target`.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub positive: Option<CacheSelector>,
    /// Negative caches.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub negative: Option<CacheSelector>,
    /// Caches of both classes; `target` says which are positive.
    #[schema(value_type = Option<CacheSelectorSchema>)]
    pub caches: Option<CacheSelector>,
    /// Which of `caches` are positive.
    pub target: Option<TargetDto>,
    /// Inverse strength of the penalty, like `C` in scikit-learn; 1e-6 to 1e6.
    #[serde(default = "c")]
    #[schema(default = 1.0)]
    pub c: f64,
    /// Number of folds of the cross-validation, 2 to 20; each class needs at least as many caches.
    #[serde(default = "five")]
    #[schema(default = 5, minimum = 2, maximum = 20)]
    pub folds: usize,
    /// Seed of the folds and of the shuffled labels.
    #[serde(default)]
    #[schema(default = 0)]
    pub seed: u64,
    /// Number of cross-validations with shuffled labels that are averaged for the baseline, 1 to 20.
    #[serde(default = "one")]
    #[schema(default = 1, minimum = 1, maximum = 20)]
    pub shuffles: usize,
}

/// Which caches are positive: exactly one of `metadata`, `tag` and `label`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DirectionTarget, example = json!({"metadata": "toxic"}))]
pub struct TargetDto {
    /// A top-level key that the metadata of every cache must have. A cache is positive if its value is true or, with
    /// `value`, if it is equal to that.
    pub metadata: Option<String>,
    /// The value that makes a cache positive; without it the key must be true or false.
    pub value: Option<Value>,
    /// Caches with this tag are positive.
    pub tag: Option<String>,
    /// Caches with this label are positive.
    pub label: Option<String>,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

fn one() -> usize {
    1
}

fn five() -> usize {
    5
}

fn c() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

/// Maximum length of a name.
const MAX_NAME: usize = 128;

/// The field that decides the form of the body.
#[derive(Deserialize)]
struct Method {
    method: DirectionMethod,
}

impl NewDirection {
    /// Parses a body by its `method`. The derived `Deserialize` of a tagged enum would lose the pointers of problems.
    ///
    /// # Errors
    /// [`Code::InvalidField`] or [`Code::InvalidBody`] at the field; [`Code::InvalidValue`] for an invalid name or
    /// metadata.
    fn read(text: json::Text<'_>) -> Result<Self, Problem> {
        let Method { method } = text.read()?;
        let rest = Some("method");
        let request = match method {
            DirectionMethod::Upload => Self::Upload(text.read_without(rest)?),
            DirectionMethod::DifferenceOfMeans => Self::DifferenceOfMeans(text.read_without(rest)?),
            DirectionMethod::Pca => Self::Pca(text.read_without(rest)?),
            DirectionMethod::Probe => Self::Probe(text.read_without(rest)?),
        };
        let (name, metadata) = request.annotations();
        check_name(name)?;
        check_annotations(&[], None, metadata)?;
        Ok(request)
    }

    /// Name and metadata.
    pub fn annotations(&self) -> (&str, &Map<String, Value>) {
        match self {
            Self::Upload(r) => (&r.name, &r.metadata),
            Self::DifferenceOfMeans(r) => (&r.name, &r.metadata),
            Self::Pca(r) => (&r.name, &r.metadata),
            Self::Probe(r) => (&r.name, &r.metadata),
        }
    }
}

/// The posted body.
pub struct Posted {
    /// The request.
    pub request: NewDirection,
    /// Its fields as posted, for provenance; empty for an upload, whose fields are numbers.
    pub written: Map<String, Value>,
}

impl Body for Posted {
    fn read(text: json::Text<'_>) -> Result<Self, Problem> {
        let request = NewDirection::read(text)?;
        let written = if matches!(request, NewDirection::Upload(_)) { Map::new() } else { text.read()? };
        Ok(Self { request, written })
    }
}

/// Checks a name. Names are used in paths and instead of ids, so they have few kinds of characters and cannot look like
/// an id.
fn check_name(name: &str) -> Result<(), Problem> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let dots = name.bytes().all(|b| b == b'.');
    if plain && !dots && name.len() <= MAX_NAME && name.parse::<DirectionId>().is_err() {
        return Ok(());
    }
    let detail = format!(
        "a name has 1 to {MAX_NAME} letters, digits, dots, underscores and hyphens, and does not have the form of an id"
    );
    Err(Problem::at(Code::InvalidValue, "/name", detail))
}
