//! Linear probes: logistic regression on standardised features, with cross-validation and a shuffled-label baseline.

use faer::Mat;

use super::{
    classes::auroc,
    folds::{SplitMix64, stratified},
    logistic::{self, Diverged},
};

/// How to fit and validate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeSettings {
    /// Inverse strength of the L2 penalty, as scikit-learn's `C`.
    pub c: f64,
    /// Folds of the cross-validation, at least 2.
    pub folds: usize,
    /// Seed of the folds and the shuffles.
    pub seed: u64,
    /// Number of baselines with shuffled labels.
    pub shuffles: usize,
}

/// A probe in the space of the vectors: `log(p / (1 − p)) = weights · x + intercept`.
#[derive(Debug, Clone)]
pub struct Probe {
    /// `[d]`.
    pub weights: Vec<f64>,
    /// The intercept.
    pub intercept: f64,
    /// Number of Newton steps of the fit on all samples.
    pub n_steps: usize,
    /// Accuracy on each held-out fold.
    pub fold_accuracy: Vec<f64>,
    /// AUROC on each held-out fold; NaN for a fold without one of the classes.
    pub fold_auroc: Vec<f64>,
    /// Accuracy with shuffled labels, mean over folds and shuffles; NaN without shuffles.
    pub shuffled_accuracy: f64,
    /// AUROC with shuffled labels.
    pub shuffled_auroc: f64,
}

/// Fits a probe to finite vectors `[n][d]`; both classes need at least as many samples as there are folds.
///
/// Features are standardised with the mean and the (population) standard deviation of the training samples; in cross-validation,
/// those of the training folds. Constant features are divided by 1. The returned weights apply to vectors that are not standardised:
/// the deviations are divided out, and the means are part of the intercept.
///
/// # Errors
/// [`Diverged`].
pub fn probe(vectors: &[Vec<f32>], labels: &[bool], settings: ProbeSettings) -> Result<Probe, Diverged> {
    let all: Vec<usize> = (0..vectors.len()).collect();
    let (weights, intercept, n_steps) = fit_raw(vectors, labels, &all, settings.c)?;
    let (fold_accuracy, fold_auroc) = cross_validate(vectors, labels, settings, settings.seed)?;
    let (mut accuracies, mut aurocs) = (Vec::new(), Vec::new());
    for s in 1..=settings.shuffles as u64 {
        let seed = settings.seed.wrapping_add(s);
        let mut shuffled = labels.to_vec();
        SplitMix64::new(seed).shuffle(&mut shuffled);
        let (accuracy, auroc) = cross_validate(vectors, &shuffled, settings, seed)?;
        accuracies.extend(accuracy);
        aurocs.extend(auroc);
    }
    let (shuffled_accuracy, shuffled_auroc) = (mean_and_deviation(&accuracies).0, mean_and_deviation(&aurocs).0);
    Ok(Probe { weights, intercept, n_steps, fold_accuracy, fold_auroc, shuffled_accuracy, shuffled_auroc })
}

/// Mean and population standard deviation; NaN for an empty list.
#[must_use]
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// Accuracy and AUROC of each held-out fold.
fn cross_validate(
    vectors: &[Vec<f32>],
    labels: &[bool],
    settings: ProbeSettings,
    seed: u64,
) -> Result<(Vec<f64>, Vec<f64>), Diverged> {
    let folds = stratified(labels, settings.folds, seed);
    let one = |fold: usize| {
        let (test, train): (Vec<usize>, Vec<usize>) = (0..vectors.len()).partition(|i| folds[*i] == fold);
        let (weights, intercept, _) = fit_raw(vectors, labels, &train, settings.c)?;
        let logit =
            |i: &usize| vectors[*i].iter().zip(&weights).map(|(x, w)| f64::from(*x) * w).sum::<f64>() + intercept;
        let logits: Vec<f64> = test.iter().map(logit).collect();
        let truth: Vec<bool> = test.iter().map(|i| labels[*i]).collect();
        let right = logits.iter().zip(&truth).filter(|(l, t)| (**l > 0.0) == **t).count();
        Ok((right as f64 / test.len() as f64, auroc(&logits, &truth).unwrap_or(f64::NAN)))
    };
    Ok((0..settings.folds).map(one).collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

/// Weights, intercept and steps of a fit to these samples, for vectors that are not standardised.
fn fit_raw(
    vectors: &[Vec<f32>],
    labels: &[bool],
    samples: &[usize],
    c: f64,
) -> Result<(Vec<f64>, f64, usize), Diverged> {
    let (mean, scale) = standardisation(vectors, samples);
    let data = Mat::from_fn(samples.len(), mean.len(), |i, j| (f64::from(vectors[samples[i]][j]) - mean[j]) / scale[j]);
    let truth: Vec<bool> = samples.iter().map(|i| labels[*i]).collect();
    let fitted = logistic::fit(&data, &truth, c)?;
    let weights: Vec<f64> = fitted.weights.iter().zip(&scale).map(|(w, s)| w / s).collect();
    let shift: f64 = weights.iter().zip(&mean).map(|(w, m)| w * m).sum();
    Ok((weights, fitted.intercept - shift, fitted.n_steps))
}

/// Mean and standard deviation of each feature; the deviation of a feature that is constant up to rounding is 1.
fn standardisation(vectors: &[Vec<f32>], samples: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let (n, d) = (samples.len() as f64, vectors.first().map_or(0, Vec::len));
    let mut mean = vec![0.0; d];
    for i in samples {
        mean.iter_mut().zip(&vectors[*i]).for_each(|(m, v)| *m += f64::from(*v) / n);
    }
    let mut variance = vec![0.0; d];
    for i in samples {
        let deviations = vectors[*i].iter().zip(&mean).map(|(v, m)| f64::from(*v) - m);
        variance.iter_mut().zip(deviations).for_each(|(s, e)| *s += e * e / n);
    }
    let constant = |v: f64, m: f64| v <= n * f64::EPSILON * v + (n * m * f64::EPSILON).powi(2);
    let scale = variance.iter().zip(&mean).map(|(v, m)| if constant(*v, *m) { 1.0 } else { v.sqrt() }).collect();
    (mean, scale)
}
