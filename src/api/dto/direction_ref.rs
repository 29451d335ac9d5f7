//! References to directions in request bodies.

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::capture::PositionsSchema;
use residuum_domain::{Positions, Problem, forms::listed};
use residuum_engine::questions::{
    direction::{Direction, Side, Source},
    read_id,
};

/// A direction: the vector itself, a stored direction, a vector of a stored cache, or a feature of a sparse
/// autoencoder.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum DirectionRef {
    /// The same vector at every layer.
    Vector(VectorDirection),
    /// A stored direction.
    Stored(StoredDirection),
    /// A vector of a cache.
    Cache(CacheDirection),
    /// A feature of a sparse autoencoder.
    Sae(SaeDirection),
}

/// All fields of all forms of a direction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: Option<String>,
    vector: Option<Vec<f32>>,
    direction: Option<String>,
    cache: Option<String>,
    sae: Option<String>,
    layer: Option<i64>,
    component: Option<usize>,
    hook: Option<String>,
    position: Option<Positions>,
    feature: Option<usize>,
    side: Option<FeatureSide>,
}

/// The fields of each form, besides `name`; the first one identifies the form.
const FORMS: [&[&str]; 4] = [
    &["vector"],
    &["direction", "layer", "component"],
    &["cache", "hook", "layer", "position"],
    &["sae", "feature", "side"],
];

impl Fields {
    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("vector", self.vector.is_some()),
            ("direction", self.direction.is_some()),
            ("cache", self.cache.is_some()),
            ("sae", self.sae.is_some()),
            ("layer", self.layer.is_some()),
            ("component", self.component.is_some()),
            ("hook", self.hook.is_some()),
            ("position", self.position.is_some()),
            ("feature", self.feature.is_some()),
            ("side", self.side.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }

    /// Decides the form by its identifying field.
    fn direction(self) -> Result<DirectionRef, String> {
        let is_given = |field: &str| self.given().any(|given| given == field);
        let mut meant = FORMS.into_iter().filter(|form| is_given(form[0]));
        let (Some(form), None) = (meant.next(), meant.next()) else {
            let kinds: Vec<String> = FORMS.iter().map(|form| form[0].to_owned()).collect();
            return Err(format!("a direction has exactly one of {}", listed(&kinds).replace(" or ", " and ")));
        };
        if let Some(field) = self.given().find(|field| !form.contains(field)) {
            return Err(format!(
                "`{field}` cannot be combined with `{}`; allowed are {}",
                form[0],
                form[1..].join(", ")
            ));
        }
        let Self { name, vector, direction, cache, sae, layer, component, hook, position, feature, side } = self;
        Ok(match (vector, direction, cache, sae) {
            (Some(vector), ..) => DirectionRef::Vector(VectorDirection { name, vector }),
            (_, Some(direction), ..) => {
                let layer = layer.map(usize::try_from).transpose();
                let layer = layer.map_err(|_| "the layer of a stored direction is counted from 0")?;
                let component = component.unwrap_or(0);
                DirectionRef::Stored(StoredDirection { name, direction, layer, component })
            }
            (_, _, Some(cache), _) => DirectionRef::Cache(CacheDirection { name, cache, hook, layer, position }),
            (.., sae) => DirectionRef::Sae(SaeDirection {
                name,
                sae: sae.unwrap_or_default(),
                feature: feature.ok_or("the feature of the autoencoder is missing: give `feature`")?,
                side: side.unwrap_or_default(),
            }),
        })
    }
}

impl<'de> Deserialize<'de> for DirectionRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Fields::deserialize(d)?.direction().map_err(de::Error::custom)
    }
}

/// The same vector at every layer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VectorDirection {
    /// Its name in the response.
    pub name: Option<String>,
    /// The values.
    pub vector: Vec<f32>,
}

/// A stored direction: at each layer the vector of that layer, or at all layers the vector of one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredDirection {
    /// Its name in the response; by default its stored name.
    pub name: Option<String>,
    /// Its id or name.
    pub direction: String,
    /// The layer whose vector to use at all layers; by default each layer uses its own.
    pub layer: Option<usize>,
    /// Which component, if the direction has several; the first if left out.
    #[serde(default)]
    pub component: usize,
}

/// A vector of a cache: at each layer the vector of that layer, or at all layers the vector of one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheDirection {
    /// Its name in the response.
    pub name: Option<String>,
    /// Id of the cache.
    pub cache: String,
    /// The hook; by default the hook of the request.
    pub hook: Option<String>,
    /// The layer whose vector to use at all layers; by default each layer uses its own.
    pub layer: Option<i64>,
    /// One position, or the mean over all; the last if left out.
    #[schema(value_type = Option<PositionsSchema>)]
    pub position: Option<Positions>,
}

/// A feature of a sparse autoencoder, the same vector at every layer, in the space of the autoencoder's hook. If the
/// autoencoder encodes one head, the vector is zero outside that head.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaeDirection {
    /// Its name in the response; by default autoencoder and feature.
    pub name: Option<String>,
    /// Id of the autoencoder.
    pub sae: String,
    /// Index of the feature.
    pub feature: usize,
    /// Which of its vectors.
    #[serde(default)]
    pub side: FeatureSide,
}

/// Which vector of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeatureSide {
    /// Its row of `W_dec`: what one unit of the feature adds to the reconstruction, before the normalisation of the
    /// input is undone.
    #[default]
    Decoder,
    /// Its column of `W_enc`: the input is multiplied with it to compute the feature.
    Encoder,
}

impl From<FeatureSide> for Side {
    fn from(side: FeatureSide) -> Self {
        match side {
            FeatureSide::Decoder => Self::Decoder,
            FeatureSide::Encoder => Self::Encoder,
        }
    }
}

impl DirectionRef {
    /// Converts it to a direction that the engine looks up. Problems point into `pointer`, its place in the body.
    ///
    /// # Errors
    /// [`Code::UnknownCache`] if the id of a cache is malformed.
    pub fn direction(&self, pointer: &str) -> Result<Direction, Problem> {
        let (name, source) = match self.clone() {
            Self::Vector(VectorDirection { name, vector }) => (name, Source::Vector(vector)),
            Self::Stored(StoredDirection { name, direction, layer, component }) => {
                (name, Source::Stored { direction, layer, component })
            }
            Self::Cache(CacheDirection { name, cache, hook, layer, position }) => {
                let cache = read_id(&cache, &format!("{pointer}/cache"))?;
                (name, Source::Cache { cache, hook, layer, position: position.unwrap_or_default() })
            }
            Self::Sae(SaeDirection { name, sae, feature, side }) => {
                (name, Source::Sae { sae, feature, side: side.into() })
            }
        };
        Ok(Direction { name, source })
    }
}
