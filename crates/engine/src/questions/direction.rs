//! Directions that a question names: one vector for each hook of the question.

pub use residuum_model::sae::Side;

use super::{Questions, chosen::Chosen, deleted_caches::as_unknown};
use crate::Saes;
use residuum_domain::{CacheId, Code, Hook, Layers, Positions, Problem, TenantId};
use residuum_store::Store;

/// A direction as a question names it.
#[derive(Debug, Clone)]
pub struct Direction {
    /// Its name in the answer; by default the name of the stored direction or feature, else its index in the question.
    pub name: Option<String>,
    /// Where its vectors come from.
    pub source: Source,
}

/// Where the vectors of a direction come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The same vector at every layer.
    Vector(Vec<f32>),
    /// A stored direction: at each layer the vector of that layer, or at every layer the vector of one layer.
    Stored {
        /// Its id or name.
        direction: String,
        /// One layer for all; by default each hook uses the vector of its own layer.
        layer: Option<usize>,
        /// Which component, for principal components.
        component: usize,
    },
    /// A vector of a cache: at each layer the vector of that layer, or at every layer the vector of one layer.
    Cache {
        /// The cache.
        cache: CacheId,
        /// The hook; by default the hook of the question.
        hook: Option<String>,
        /// One layer for all; by default each hook uses the vector of its own layer.
        layer: Option<i64>,
        /// One position, or the mean over all.
        position: Positions,
    },
    /// A feature of a sparse autoencoder, the same vector at every layer, in the coordinates of its hook. If the
    /// autoencoder encodes one head, the vector is zero outside that head.
    Sae {
        /// The autoencoder.
        sae: String,
        /// The feature.
        feature: usize,
        /// Which of its vectors.
        side: Side,
    },
}

/// A direction with its vectors.
#[derive(Debug, Clone)]
pub struct NamedVectors {
    /// Its name.
    pub name: String,
    /// One vector for each hook of the request.
    pub vectors: Vec<Vec<f32>>,
}

impl Direction {
    /// The vectors of this direction at `hooks`, all of one site, each of `width` numbers. Problems point at `pointer`;
    /// `index` becomes the name of a direction that has none.
    ///
    /// # Errors
    /// [`Code::ShapeMismatch`] for another width; [`Code::UnknownCache`], [`Code::UnknownDirection`], [`Code::UnknownSae`],
    /// [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::HookNotStored`], [`Code::PositionOutOfRange`],
    /// [`Code::InvalidValue`] for several positions.
    pub async fn resolve(
        &self,
        questions: &Questions,
        tenant: TenantId,
        hooks: &[Hook],
        width: usize,
        (index, pointer): (usize, &str),
    ) -> Result<NamedVectors, Problem> {
        let vectors = self.source.vectors(questions, tenant, hooks, pointer).await?;
        if let Some(other) = vectors.iter().find(|v| v.len() != width) {
            let detail = format!("the direction has {} numbers and the activations have {width}", other.len());
            return Err(Problem::at(Code::ShapeMismatch, pointer, detail));
        }
        let name = self.name.clone().or_else(|| self.source.name());
        Ok(NamedVectors { name: name.unwrap_or_else(|| index.to_string()), vectors })
    }
}

impl Source {
    /// The name of a stored direction or a feature.
    fn name(&self) -> Option<String> {
        match self {
            Self::Stored { direction, .. } => Some(direction.clone()),
            Self::Sae { sae, feature, .. } => Some(format!("{sae}/{feature}")),
            Self::Vector(_) | Self::Cache { .. } => None,
        }
    }

    async fn vectors(
        &self,
        questions: &Questions,
        tenant: TenantId,
        hooks: &[Hook],
        pointer: &str,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let store = questions.store();
        match self {
            Self::Vector(vector) => Ok(vec![vector.clone(); hooks.len()]),
            Self::Stored { direction, layer, component } => {
                of_stored(store, tenant, (direction, *layer, *component), hooks, pointer).await
            }
            Self::Cache { cache, hook, layer, position } => {
                let cache = OfCache { cache: *cache, hook: hook.as_deref(), layer: *layer, position };
                cache.vectors(store, tenant, hooks, pointer).await
            }
            Self::Sae { sae, feature, side } => {
                Ok(vec![of_feature(questions.saes(), (sae, *feature, *side), pointer)?; hooks.len()])
            }
        }
    }
}

/// The vectors of a stored direction, given by its id or name, layer and component, at each of `hooks`. Problems point
/// into `pointer`.
///
/// # Errors
/// [`Code::UnknownDirection`] if there is no such direction, or if it has no vector at a layer.
pub async fn of_stored(
    store: &Store,
    tenant: TenantId,
    (direction, layer, component): (&str, Option<usize>, usize),
    hooks: &[Hook],
    pointer: &str,
) -> Result<Vec<Vec<f32>>, Problem> {
    let unknown = |detail: String| Problem::at(Code::UnknownDirection, format!("{pointer}/direction"), detail);
    let found = store.direction(tenant, direction).await?;
    let found = found.ok_or_else(|| unknown("this is neither the id nor the name of a direction here".to_owned()))?;
    let vector = |hook: &Hook| {
        let layer = layer.or(hook.layer());
        found.vector(layer, component).map(<[f32]>::to_vec).ok_or_else(|| {
            let at = layer.map_or("outside the blocks".to_owned(), |l| format!("at layer {l}"));
            unknown(format!(
                "the direction has no component {} {at}; its layers are {:?}",
                component, found.info.layers
            ))
        })
    };
    hooks.iter().map(vector).collect()
}

/// The vector of a feature of an autoencoder. Problems point into `pointer`.
///
/// # Errors
/// [`Code::UnknownSae`] if there is no such autoencoder or feature; [`Code::Unavailable`] while it loads.
pub fn of_feature(saes: &Saes, (sae, feature, side): (&str, usize, Side), pointer: &str) -> Result<Vec<f32>, Problem> {
    let at = |p: Problem| match p.code {
        Code::UnknownSae => Problem::at(p.code, format!("{pointer}/sae"), p.detail),
        _ => p,
    };
    let sae = saes.get(sae, Code::UnknownSae).map_err(at)?;
    check_feature(feature, sae.d_sae(), &format!("{pointer}/feature"))?;
    Ok(sae.direction(feature, side))
}

/// Checks that an autoencoder of `d_sae` features has this feature, which the question names at `pointer`.
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

/// A vector of a cache.
struct OfCache<'a> {
    cache: CacheId,
    hook: Option<&'a str>,
    layer: Option<i64>,
    position: &'a Positions,
}

impl OfCache<'_> {
    async fn vectors(
        &self,
        store: &Store,
        tenant: TenantId,
        hooks: &[Hook],
        pointer: &str,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        if self.position.keeps_axis() {
            let detail = "a direction is one vector: give an integer, \"last\" or \"mean\"";
            return Err(Problem::at(Code::InvalidValue, format!("{pointer}/position"), detail));
        }
        let named = (self.cache, format!("{pointer}/cache"));
        let chosen = Chosen::of_ids(store, tenant, vec![named]).await?;
        let site = hooks.first().map(|h| h.site().name()).unwrap_or_default();
        let layers = match self.layer {
            Some(layer) => Layers::One(layer),
            None => Layers::List(hooks.iter().filter_map(Hook::layer).filter_map(|l| i64::try_from(l).ok()).collect()),
        };
        let at = |p: Problem| Problem::at(p.code, pointer, p.detail);
        let own = chosen.hooks(self.hook.unwrap_or(site), &layers).map_err(at)?;
        let mut vectors = Vec::new();
        for hook in &own {
            let own = chosen.vectors(store, *hook, self.position).await;
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
