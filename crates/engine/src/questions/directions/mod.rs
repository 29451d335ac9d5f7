//! Creates directions from given vectors, or by fitting vectors to stored caches.

mod direction_fit;
mod given_vectors;
mod labelled_caches;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub use given_vectors::{GivenVector, GivenVectors};
pub use labelled_caches::{Classes, Target};
pub use residuum_analysis::probe::ProbeSettings;

use super::{Questions, chosen::Selector, deleted_caches::again};
use direction_fit::{Fit, fit};
use labelled_caches::MAX_CACHES;
use residuum_domain::{
    Code, Direction, DirectionId, DirectionInfo, DirectionMethod, DirectionVector, Layers, Positions, Problem, Site,
    TenantId,
};

/// Most values of all vectors of one direction.
const MAX_VALUES: usize = 4_000_000;

/// A direction to create.
#[derive(Debug, Clone)]
pub struct DirectionQuestion {
    /// A name that no other direction has.
    pub name: String,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// Where its vectors come from.
    pub made_of: MadeOf,
}

/// Where the vectors of a direction come from.
#[derive(Debug, Clone)]
pub enum MadeOf {
    /// Vectors that are given.
    Vectors(GivenVectors),
    /// The vectors of stored caches.
    Caches(Box<FitQuestion>),
}

/// What to fit to the vectors of caches, layer by layer.
#[derive(Debug, Clone)]
pub struct FitQuestion {
    /// Hook, short or full.
    pub hook: String,
    /// Layers, for a short name; by default those that all caches have.
    pub layers: Layers,
    /// One position, or the mean over all.
    pub position: Positions,
    /// What to fit, and to which caches.
    pub method: FitMethod,
    /// What the direction's provenance says about how the caches were selected.
    pub selection: Map<String, Value>,
}

/// What to fit, and to which caches.
#[derive(Debug, Clone)]
pub enum FitMethod {
    /// Mean of the positive caches minus mean of the negative ones.
    DifferenceOfMeans {
        /// The caches.
        classes: Classes,
        /// Whether to scale each vector to length one.
        normalize: bool,
    },
    /// Principal components.
    Pca {
        /// The caches.
        caches: Selector,
        /// Number of components per layer, largest variance first. The sign of each is chosen so that its value of
        /// largest magnitude is positive.
        k: usize,
        /// Whether to subtract the mean first.
        center: bool,
    },
    /// Weights of a logistic regression that separates positive from negative caches.
    Probe {
        /// The caches.
        classes: Classes,
        /// How to fit and validate.
        settings: ProbeSettings,
    },
}

/// A direction without its name.
struct Made {
    /// The model, if it is known.
    model: Option<String>,
    /// The hook without its layer.
    site: Site,
    /// Vectors per layer.
    n_components: usize,
    /// Sorted by layer and component, each `[d]`.
    vectors: Vec<DirectionVector>,
    /// What made it.
    provenance: Map<String, Value>,
}

impl Questions {
    /// Creates a direction and stores it.
    ///
    /// # Errors
    /// [`Code::Conflict`] if the name is taken. For given vectors: [`Code::UnknownHook`], [`Code::InvalidValue`],
    /// [`Code::ShapeMismatch`], [`Code::LayerOutOfRange`], [`Code::EmptyInput`] and [`Code::ResultTooLarge`]. For a
    /// fit: those of selecting caches and their hooks; [`Code::InvalidValue`] for a setting out of range, several
    /// positions, caches of several models, of one class or named twice, for values that are not finite, and if a fit
    /// is impossible; [`Code::ResultTooLarge`] for too many caches or too much work.
    pub async fn make_direction(&self, tenant: TenantId, question: DirectionQuestion) -> Result<Direction, Problem> {
        let DirectionQuestion { name, metadata, made_of } = question;
        if self.store().direction_info(tenant, &name).await?.is_some() {
            return Err(taken(&name));
        }
        let method = made_of.method();
        let made = match made_of {
            MadeOf::Vectors(given) => given.made()?,
            MadeOf::Caches(question) => again(Code::UnknownCache, || question.made(self, tenant)).await?,
        };
        let direction = named(made, tenant, name, method, metadata);
        if !self.store().insert_direction(direction.clone()).await? {
            return Err(taken(&direction.info.name));
        }
        Ok(direction)
    }
}

fn taken(name: &str) -> Problem {
    Problem::at(Code::Conflict, "/name", format!("there is a direction named {name}; delete it or choose another name"))
}

impl MadeOf {
    fn method(&self) -> DirectionMethod {
        match self {
            Self::Vectors(_) => DirectionMethod::Upload,
            Self::Caches(question) => match question.method {
                FitMethod::DifferenceOfMeans { .. } => DirectionMethod::DifferenceOfMeans,
                FitMethod::Pca { .. } => DirectionMethod::Pca,
                FitMethod::Probe { .. } => DirectionMethod::Probe,
            },
        }
    }
}

fn named(
    made: Made,
    tenant: TenantId,
    name: String,
    method: DirectionMethod,
    metadata: Map<String, Value>,
) -> Direction {
    let layers: BTreeSet<usize> = made.vectors.iter().filter_map(|v| v.layer).collect();
    let mut provenance = Map::new();
    provenance.insert("residuum_version".to_owned(), env!("CARGO_PKG_VERSION").into());
    provenance.extend(made.provenance);
    let now = jiff::Timestamp::now();
    let info = DirectionInfo {
        id: DirectionId::generate(),
        tenant,
        name,
        method,
        model: made.model,
        site: made.site,
        layers: layers.into_iter().collect(),
        n_components: made.n_components,
        d: made.vectors.first().map_or(0, |v| v.values.len()),
        metadata,
        provenance,
        // the index stores microseconds
        created_at: jiff::Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
    };
    Direction { info, vectors: made.vectors }
}

impl FitQuestion {
    async fn made(&self, questions: &Questions, tenant: TenantId) -> Result<Made, Problem> {
        let store = questions.store();
        let (chosen, what, parameters) = match &self.method {
            FitMethod::DifferenceOfMeans { classes, normalize } => {
                let (chosen, labels) = classes.choose(store, tenant).await?;
                (chosen, Fit::Means { labels, normalize: *normalize }, json!({"normalize": normalize}))
            }
            FitMethod::Pca { caches, k, center } => {
                if *k == 0 {
                    return Err(Problem::at(Code::InvalidValue, "/k", "k is 0; it must be at least 1"));
                }
                let chosen = caches.choose(store, tenant, "/caches", MAX_CACHES).await?;
                labelled_caches::distinct(&chosen)?;
                (chosen, Fit::Pca { k: *k, center: *center }, json!({"k": k, "center": center}))
            }
            FitMethod::Probe { classes, settings } => {
                check_settings(settings)?;
                let (chosen, labels) = classes.choose(store, tenant).await?;
                check_folds(settings.folds, &labels)?;
                let ProbeSettings { c, folds, seed, shuffles } = *settings;
                let parameters = json!({"c": c, "folds": folds, "seed": seed, "shuffles": shuffles});
                (chosen, Fit::Probe { labels, settings: *settings }, parameters)
            }
        };
        let mut provenance = labelled_caches::provenance(&chosen, &self.selection);
        if let Some(labels) = what.labels() {
            let n_positive = n_positive(labels);
            provenance.insert("n_positive".to_owned(), n_positive.into());
            provenance.insert("n_negative".to_owned(), (labels.len() - n_positive).into());
        }
        provenance.insert("parameters".to_owned(), parameters);
        if self.position.keeps_axis() {
            let detail = "a direction is fitted at one position: an integer, \"last\" or \"mean\"";
            return Err(Problem::at(Code::InvalidValue, "/position", detail));
        }
        let (model, fingerprint) = labelled_caches::model(&chosen)?;
        let mut hooks = chosen.hooks(&self.hook, &self.layers)?;
        hooks.sort();
        let site = hooks[0].site();
        if site.is_index() {
            let detail = format!("{} holds indices, which have no direction", site.name());
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        let n_components = what.n_components();
        let fingerprint = Some(fingerprint).filter(|f| !f.is_empty());
        provenance.insert("model_fingerprint".to_owned(), fingerprint.into());
        provenance.insert("position".to_owned(), json!(self.position));
        let vectors = fit(questions, &chosen, &hooks, &self.position, what).await?;
        Ok(Made { model: Some(model), site, n_components, vectors, provenance })
    }
}

fn check_settings(settings: &ProbeSettings) -> Result<(), Problem> {
    let refuse = |field: &str, detail: &str| Err(Problem::at(Code::InvalidValue, field, detail));
    if !(1e-6..=1e6).contains(&settings.c) {
        return refuse("/c", "c must lie between 1e-6 and 1e6");
    }
    if !(2..=20).contains(&settings.folds) {
        return refuse("/folds", "folds must lie between 2 and 20");
    }
    if !(1..=20).contains(&settings.shuffles) {
        return refuse("/shuffles", "shuffles must lie between 1 and 20");
    }
    Ok(())
}

/// Checks that each fold of a cross-validation gets a cache of each class.
fn check_folds(folds: usize, labels: &[bool]) -> Result<(), Problem> {
    let n_positive = n_positive(labels);
    let smaller = n_positive.min(labels.len() - n_positive);
    if smaller < folds {
        let detail = format!("the smaller class has {smaller} caches, too few for {folds} folds");
        return Err(Problem::at(Code::InvalidValue, "/folds", detail));
    }
    Ok(())
}

fn n_positive(labels: &[bool]) -> usize {
    labels.iter().filter(|positive| **positive).count()
}
