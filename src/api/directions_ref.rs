//! Directions that a request names, one vector for each hook it works on.

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use super::{
    deleted::as_unknown,
    dto::capture::PositionsSchema,
    select::{Chosen, read_id},
    state::ApiState,
};
use residuum_domain::{Code, Hook, Layers, Positions, Problem, TenantId, forms::listed};
use residuum_engine::Saes;
use residuum_model::sae::Side;
use residuum_store::Store;

/// A direction: the numbers themselves, one that is stored, a vector of a stored cache, or a feature of a sparse autoencoder.
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

/// Every field that a direction may have.
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

/// The fields of each form beside `name`, of which the first tells that it is meant.
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

    /// The direction meant, by its distinguishing field.
    fn direction(self) -> Result<DirectionRef, String> {
        let is_given = |field: &str| self.given().any(|given| given == field);
        let mut meant = FORMS.into_iter().filter(|form| is_given(form[0]));
        let (Some(form), None) = (meant.next(), meant.next()) else {
            let kinds: Vec<String> = FORMS.iter().map(|form| form[0].to_owned()).collect();
            return Err(format!("a direction has exactly one of {}", listed(&kinds).replace(" or ", " and ")));
        };
        if let Some(field) = self.given().find(|field| !form.contains(field)) {
            return Err(format!("`{field}` does not go with `{}`, beside which are {}", form[0], form[1..].join(", ")));
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
    /// Its name in the answer.
    pub name: Option<String>,
    /// Its numbers.
    pub vector: Vec<f32>,
}

/// A stored direction, at each layer that layer's vector, or everywhere that of one layer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredDirection {
    /// Its name in the answer; by default the one it has.
    pub name: Option<String>,
    /// Its id or name.
    pub direction: String,
    /// One layer for all; by default each layer has its own.
    pub layer: Option<usize>,
    /// Which component, of principal components; the first if left out.
    #[serde(default)]
    pub component: usize,
}

impl StoredDirection {
    /// Its vector at each of `hooks`. Problems point into `pointer`.
    ///
    /// # Errors
    /// [`Code::UnknownDirection`] when there is none, or none at a layer.
    pub async fn vectors(
        &self,
        store: &Store,
        tenant: TenantId,
        hooks: &[Hook],
        pointer: &str,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let unknown = |detail: String| Problem::at(Code::UnknownDirection, format!("{pointer}/direction"), detail);
        let found = store.direction(tenant, &self.direction).await?;
        let found =
            found.ok_or_else(|| unknown("this is neither the id nor the name of a direction here".to_owned()))?;
        let vector = |hook: &Hook| {
            let layer = self.layer.or(hook.layer());
            found.vector(layer, self.component).map(<[f32]>::to_vec).ok_or_else(|| {
                let at = layer.map_or("outside the blocks".to_owned(), |l| format!("at layer {l}"));
                unknown(format!(
                    "the direction has no component {} {at}; its layers are {:?}",
                    self.component, found.info.layers
                ))
            })
        };
        hooks.iter().map(vector).collect()
    }
}

/// A vector of a cache, at each layer that layer's, or everywhere that of one layer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheDirection {
    /// Its name in the answer.
    pub name: Option<String>,
    /// The cache.
    pub cache: String,
    /// The hook, by default the one the request works on.
    pub hook: Option<String>,
    /// One layer for all; by default each layer has its own.
    pub layer: Option<i64>,
    /// One position, or the mean over all; the last if left out.
    #[schema(value_type = Option<PositionsSchema>)]
    pub position: Option<Positions>,
}

/// A feature of a sparse autoencoder, the same vector at every layer: in the coordinates of its hook, zero outside its head
/// where it encodes one.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SaeDirection {
    /// Its name in the answer; by default autoencoder and feature.
    pub name: Option<String>,
    /// The autoencoder.
    pub sae: String,
    /// The feature.
    pub feature: usize,
    /// Which of its vectors.
    #[serde(default)]
    pub side: FeatureSide,
}

/// Which vector of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeatureSide {
    /// Its row of `W_dec`: what one unit of the feature adds to the reconstruction, before a normalisation is undone.
    #[default]
    Decoder,
    /// Its column of `W_enc`: what the feature is read off with.
    Encoder,
}

impl SaeDirection {
    /// The vector. Problems point into `pointer`.
    ///
    /// # Errors
    /// [`Code::UnknownSae`] when there is no such autoencoder or feature; [`Code::Unavailable`] while it loads.
    pub fn vector(&self, saes: &Saes, pointer: &str) -> Result<Vec<f32>, Problem> {
        let at = |p: Problem| match p.code {
            Code::UnknownSae => Problem::at(p.code, format!("{pointer}/sae"), p.detail),
            _ => p,
        };
        let sae = saes.get(&self.sae, Code::UnknownSae).map_err(at)?;
        check_feature(self.feature, sae.d_sae(), &format!("{pointer}/feature"))?;
        let side = match self.side {
            FeatureSide::Decoder => Side::Decoder,
            FeatureSide::Encoder => Side::Encoder,
        };
        Ok(sae.direction(self.feature, side))
    }
}

/// Whether an autoencoder of `d_sae` features has this one, which the body names at `pointer`.
///
/// # Errors
/// [`Code::UnknownSae`].
pub fn check_feature(feature: usize, d_sae: usize, pointer: &str) -> Result<(), Problem> {
    if feature < d_sae {
        return Ok(());
    }
    let detail = format!("there is no feature {feature}; the autoencoder has {d_sae}, counted from 0");
    Err(Problem::at(Code::UnknownSae, pointer, detail))
}

/// A direction ready to be used.
#[derive(Debug, Clone)]
pub struct Direction {
    /// Its name.
    pub name: String,
    /// One vector for each hook that the request works on.
    pub vectors: Vec<Vec<f32>>,
}

impl DirectionRef {
    /// The vectors of this direction at `hooks`, all of one site, each of `width` numbers. Problems point at `pointer`;
    /// `index` names what has no name.
    ///
    /// # Errors
    /// [`Code::ShapeMismatch`] for another width; [`Code::UnknownCache`], [`Code::UnknownSae`], [`Code::UnknownHook`],
    /// [`Code::LayerOutOfRange`], [`Code::HookNotStored`], [`Code::PositionOutOfRange`], [`Code::InvalidValue`] for several
    /// positions.
    pub async fn resolve(
        &self,
        state: &ApiState,
        tenant: TenantId,
        hooks: &[Hook],
        width: usize,
        (index, pointer): (usize, &str),
    ) -> Result<Direction, Problem> {
        let store = state.engine.store();
        let (name, vectors) = match self {
            Self::Vector(v) => (v.name.clone(), vec![v.vector.clone(); hooks.len()]),
            Self::Stored(s) => {
                (s.name.clone().or_else(|| Some(s.direction.clone())), s.vectors(store, tenant, hooks, pointer).await?)
            }
            Self::Cache(c) => (c.name.clone(), c.vectors(store, tenant, hooks, pointer).await?),
            Self::Sae(s) => {
                let name = s.name.clone().unwrap_or_else(|| format!("{}/{}", s.sae, s.feature));
                (Some(name), vec![s.vector(&state.saes, pointer)?; hooks.len()])
            }
        };
        if let Some(other) = vectors.iter().find(|v| v.len() != width) {
            let detail = format!("the direction has {} numbers and the activations have {width}", other.len());
            return Err(Problem::at(Code::ShapeMismatch, pointer, detail));
        }
        Ok(Direction { name: name.unwrap_or_else(|| index.to_string()), vectors })
    }
}

impl CacheDirection {
    async fn vectors(
        &self,
        store: &Store,
        tenant: TenantId,
        hooks: &[Hook],
        pointer: &str,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let position = self.position.clone().unwrap_or_default();
        if position.keeps_axis() {
            let detail = "a direction is one vector: give an integer, \"last\" or \"mean\"";
            return Err(Problem::at(Code::InvalidValue, format!("{pointer}/position"), detail));
        }
        let named = read_id(&self.cache, format!("{pointer}/cache"))?;
        let chosen = Chosen::of_ids(store, tenant, vec![named]).await?;
        let site = hooks.first().map(|h| h.site().name()).unwrap_or_default();
        let layers = match self.layer {
            Some(layer) => Layers::One(layer),
            None => Layers::List(hooks.iter().filter_map(Hook::layer).filter_map(|l| i64::try_from(l).ok()).collect()),
        };
        let at = |p: Problem| Problem::at(p.code, pointer, p.detail);
        let own = chosen.hooks(self.hook.as_deref().unwrap_or(site), &layers).map_err(at)?;
        let mut vectors = Vec::new();
        for hook in &own {
            let own = chosen.vectors(store, *hook, &position).await;
            vectors.append(&mut own.map_err(|p| at(as_unknown(p, pointer)))?);
        }
        match vectors.len() {
            n if n == hooks.len() => Ok(vectors),
            1 => Ok(vec![vectors.remove(0); hooks.len()]),
            n => {
                let detail = format!("the direction has {n} layers and the activations have {}", hooks.len());
                Err(Problem::at(Code::ShapeMismatch, pointer, detail))
            }
        }
    }
}
