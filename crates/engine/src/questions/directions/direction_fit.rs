//! Fits a direction to the vectors of caches, layer by layer, on the analysis threads.

use std::sync::Arc;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::MAX_VALUES;
use crate::questions::{Chosen, Questions};
use residuum_analysis::{
    classes::{self, Separation, auroc},
    pca::pca,
    probe::{ProbeSettings, mean_and_deviation, probe},
};
use residuum_domain::{Code, DirectionVector, Hook, Positions, Problem};

/// Numbers that are read before they are fitted; the last layer read may exceed this.
const BATCH_VALUES: usize = 32 << 20;
/// Most multiplications of one request, by a rough upper estimate. They take about an hour on a few cores.
const MAX_WORK: f64 = 1e14;

/// What to fit.
pub enum Fit {
    /// Mean of the caches with a true label minus mean of the others.
    Means {
        /// One label for each cache.
        labels: Vec<bool>,
        /// Whether to scale to length one.
        normalize: bool,
    },
    /// Principal components.
    Pca {
        /// How many.
        k: usize,
        /// Whether to subtract the mean.
        center: bool,
    },
    /// A logistic regression.
    Probe {
        /// One label for each cache.
        labels: Vec<bool>,
        /// How to fit and validate.
        settings: ProbeSettings,
    },
}

/// A vector and its metrics.
type Described = (Vec<f32>, Map<String, Value>);

impl Fit {
    /// Vectors per layer.
    pub fn n_components(&self) -> usize {
        match self {
            Self::Pca { k, .. } => *k,
            Self::Means { .. } | Self::Probe { .. } => 1,
        }
    }

    /// Which of the caches are positive, if the fit has classes.
    pub fn labels(&self) -> Option<&[bool]> {
        match self {
            Self::Means { labels, .. } | Self::Probe { labels, .. } => Some(labels),
            Self::Pca { .. } => None,
        }
    }

    /// A rough upper estimate of the multiplications for one layer of `n` vectors of `d` values.
    fn work(&self, n: usize, d: usize) -> f64 {
        let decomposition = 20.0 * n as f64 * d as f64 * n.min(d) as f64;
        match self {
            Self::Means { .. } => (n * d) as f64,
            Self::Pca { .. } => decomposition,
            Self::Probe { settings, .. } => decomposition * (1 + settings.folds * (1 + settings.shuffles)) as f64,
        }
    }

    /// The vectors of one layer, one per component, or the reason why it cannot be fitted.
    fn layer(&self, vectors: &[Vec<f32>]) -> Result<Vec<Described>, String> {
        match self {
            Self::Means { labels, normalize } => Ok(vec![means(vectors, labels, *normalize)?]),
            Self::Pca { k, center } => components(vectors, *k, *center),
            Self::Probe { labels, settings } => Ok(vec![probed(vectors, labels, *settings)?]),
        }
    }
}

/// Fits the layer of every hook. Vectors are read in batches of layers, and the layers of a batch are fitted in
/// parallel.
///
/// # Errors
/// [`Code::InvalidValue`], naming the layer that cannot be fitted, or the cache whose numbers are not finite;
/// [`Code::ResultTooLarge`] for too much work; [`Code::ShapeMismatch`] for layers of different widths; those of
/// [`Chosen::vectors`].
pub async fn fit(
    questions: &Questions,
    chosen: &Chosen,
    hooks: &[Hook],
    position: &Positions,
    fit: Fit,
) -> Result<Vec<DirectionVector>, Problem> {
    let fit = Arc::new(fit);
    let (mut made, mut batch, mut in_batch, mut width) = (Vec::new(), Vec::new(), 0, None);
    for (i, hook) in hooks.iter().enumerate() {
        let vectors = chosen.vectors(questions.store(), *hook, position).await?;
        let (n, d) = (vectors.len(), vectors.first().map_or(0, Vec::len));
        check(chosen, *hook, &vectors)?;
        check_work(&fit, n, d, hooks.len())?;
        if *width.get_or_insert(d) != d {
            let detail = format!("{hook} has {d} values, layers before it {}; fit them one by one", width.unwrap_or(0));
            return Err(Problem::at(Code::ShapeMismatch, "/layers", detail));
        }
        in_batch += n * d;
        batch.push((*hook, vectors));
        if in_batch >= BATCH_VALUES || i + 1 == hooks.len() {
            made.extend(fit_batch(questions, std::mem::take(&mut batch), Arc::clone(&fit)).await?);
            in_batch = 0;
        }
    }
    Ok(made)
}

/// Refuses values that are not finite, since a fit to them has no meaning.
fn check(chosen: &Chosen, hook: Hook, vectors: &[Vec<f32>]) -> Result<(), Problem> {
    match vectors.iter().position(|v| v.iter().any(|x| !x.is_finite())) {
        Some(i) => {
            let detail = format!("{hook} of this cache holds NaN or infinity");
            Err(Problem::at(Code::InvalidValue, &chosen.pointers[i], detail))
        }
        None => Ok(()),
    }
}

fn check_work(fit: &Fit, n: usize, d: usize, n_layers: usize) -> Result<(), Problem> {
    if fit.n_components().saturating_mul(d).saturating_mul(n_layers) > MAX_VALUES {
        let detail = format!("a direction has at most {MAX_VALUES} values; take fewer layers");
        return Err(Problem::at(Code::ResultTooLarge, "/layers", detail));
    }
    let work = fit.work(n, d) * n_layers as f64;
    if work > MAX_WORK {
        let detail = format!(
            "fitting {n_layers} layers of {n} vectors of {d} values takes about {work:.0e} operations; {MAX_WORK:.0e} are \
             allowed. Take fewer caches, layers, folds or shuffles"
        );
        return Err(Problem::new(Code::ResultTooLarge, detail));
    }
    Ok(())
}

async fn fit_batch(
    questions: &Questions,
    batch: Vec<(Hook, Vec<Vec<f32>>)>,
    fit: Arc<Fit>,
) -> Result<Vec<DirectionVector>, Problem> {
    let one = move |(hook, vectors): &(Hook, Vec<Vec<f32>>)| {
        let described = fit.layer(vectors).map_err(|why| Problem::new(Code::InvalidValue, format!("{hook}: {why}")))?;
        let vector =
            |(component, (values, metrics))| DirectionVector { layer: hook.layer(), component, values, metrics };
        Ok(described.into_iter().enumerate().map(vector).collect::<Vec<_>>())
    };
    let fitted = questions.analyse(move || batch.par_iter().map(one).collect::<Result<Vec<_>, Problem>>()).await?;
    Ok(fitted.into_iter().flatten().collect())
}

/// The length of a vector, as a metric that every fitted vector has.
pub fn norm_metric(values: &[f32]) -> Map<String, Value> {
    let wide: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    described([("norm", json!(classes::norm(&wide)))])
}

fn described<const N: usize>(metrics: [(&str, Value); N]) -> Map<String, Value> {
    metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The vector rounded to float32, as stored, and the rounded values in float64. Metrics describe the stored vector.
fn rounded(vector: &[f64]) -> Result<(Vec<f32>, Vec<f64>), String> {
    let kept: Vec<f32> = vector.iter().map(|v| *v as f32).collect();
    if kept.iter().any(|v| !v.is_finite()) {
        return Err("the values of the direction exceed the range of float32".to_owned());
    }
    let wide = kept.iter().map(|v| f64::from(*v)).collect();
    Ok((kept, wide))
}

fn means(vectors: &[Vec<f32>], labels: &[bool], normalize: bool) -> Result<Described, String> {
    let positive = classes::mean(vectors, labels, true);
    let negative = classes::mean(vectors, labels, false);
    let mut difference: Vec<f64> = positive.iter().zip(&negative).map(|(p, n)| p - n).collect();
    if normalize {
        let norm = classes::norm(&difference);
        if norm == 0.0 {
            return Err("the means are equal, so their difference cannot be scaled to length one".to_owned());
        }
        difference.iter_mut().for_each(|v| *v /= norm);
    }
    let (values, wide) = rounded(&difference)?;
    let separation = Separation::of(&classes::project(vectors, &wide), labels);
    let metrics = described([
        ("norm", json!(classes::norm(&wide))),
        ("norm_positive", json!(classes::norm(&positive))),
        ("norm_negative", json!(classes::norm(&negative))),
        ("cohens_d", json!(separation.cohens_d)),
        ("auroc", json!(separation.auroc)),
        ("positive_mean", json!(separation.positive_mean)),
        ("negative_mean", json!(separation.negative_mean)),
    ]);
    Ok((values, metrics))
}

fn components(vectors: &[Vec<f32>], k: usize, center: bool) -> Result<Vec<Described>, String> {
    let found = pca(vectors, k, center).map_err(|e| format!("{k} components were requested: {e}"))?;
    let all_mean = classes::mean(vectors, &vec![true; vectors.len()], true);
    let one = |(c, component): (usize, &Vec<f64>)| {
        let (values, wide) = rounded(component)?;
        let mean: f64 = wide.iter().zip(&all_mean).map(|(w, m)| w * m).sum();
        let metrics = described([
            ("norm", json!(classes::norm(&wide))),
            ("explained_variance", json!(found.explained_variance[c])),
            ("explained_variance_ratio", json!(found.explained_variance_ratio[c])),
            ("mean", json!(mean)),
        ]);
        Ok((values, metrics))
    };
    found.components.iter().enumerate().map(one).collect()
}

fn probed(vectors: &[Vec<f32>], labels: &[bool], settings: ProbeSettings) -> Result<Described, String> {
    let found = probe(vectors, labels, settings).map_err(|e| e.to_string())?;
    let (values, wide) = rounded(&found.weights)?;
    let logits: Vec<f64> = classes::project(vectors, &wide).iter().map(|p| p + found.intercept).collect();
    let right = logits.iter().zip(labels).filter(|(l, t)| (**l > 0.0) == **t).count();
    let (accuracy, accuracy_std) = mean_and_deviation(&found.fold_accuracy);
    let (held_out, held_out_std) = mean_and_deviation(&found.fold_auroc);
    let metrics = described([
        ("norm", json!(classes::norm(&wide))),
        ("intercept", json!(found.intercept)),
        ("accuracy", json!(accuracy)),
        ("accuracy_std", json!(accuracy_std)),
        ("auroc", json!(held_out)),
        ("auroc_std", json!(held_out_std)),
        ("shuffled_accuracy", json!(found.shuffled_accuracy)),
        ("shuffled_auroc", json!(found.shuffled_auroc)),
        ("train_accuracy", json!(right as f64 / labels.len() as f64)),
        ("train_auroc", json!(auroc(&logits, labels))),
        ("fold_accuracy", json!(found.fold_accuracy)),
        ("fold_auroc", json!(found.fold_auroc)),
        ("n_steps", json!(found.n_steps)),
    ]);
    Ok((values, metrics))
}
