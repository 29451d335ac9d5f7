//! Directions that a request names, one vector for each hook it works on.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    deleted::as_unknown,
    dto::capture::PositionsSchema,
    extract::Object,
    select::{Chosen, read_id},
    state::ApiState,
};
use crate::{
    domain::{Code, Hook, Layers, Positions, Problem, TenantId},
    engine::Saes,
    model::sae::Side,
    store::Store,
};

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

impl<'de> Deserialize<'de> for DirectionRef {
    /// By its distinguishing field, so that what is wrong with the others can be said.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        let has = |field: &str| value.get(field).is_some();
        match (has("vector"), has("direction"), has("cache"), has("sae")) {
            (true, false, false, false) => {
                serde_json::from_value(value).map(|Object(v)| Self::Vector(v)).map_err(de::Error::custom)
            }
            (false, true, false, false) => {
                serde_json::from_value(value).map(|Object(s)| Self::Stored(s)).map_err(de::Error::custom)
            }
            (false, false, true, false) => {
                serde_json::from_value(value).map(|Object(c)| Self::Cache(c)).map_err(de::Error::custom)
            }
            (false, false, false, true) => {
                serde_json::from_value(value).map(|Object(s)| Self::Sae(s)).map_err(de::Error::custom)
            }
            _ => Err(de::Error::custom("a direction has one of vector, direction, cache and sae")),
        }
    }
}

/// The same vector at every layer.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VectorDirection {
    /// Its name in the answer.
    pub name: Option<String>,
    /// Its numbers.
    pub vector: Vec<f32>,
}

/// A stored direction, at each layer that layer's vector, or everywhere that of one layer.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
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
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
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
