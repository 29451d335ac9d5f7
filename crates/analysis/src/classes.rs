//! Two classes of vectors: their means, and how well a score separates them.

/// How well scores separate two classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Separation {
    /// Mean score of the positive class.
    pub positive_mean: f64,
    /// Mean score of the negative class.
    pub negative_mean: f64,
    /// Cohen's d: difference of the means in pooled standard deviations (n₁ + n₀ − 2 degrees of freedom). `None` if the scores
    /// do not vary within the classes, or a class is empty.
    pub cohens_d: Option<f64>,
    /// Area under the ROC curve.
    pub auroc: Option<f64>,
}

impl Separation {
    /// Computes these for `scores`; scores with a true label belong to the positive class.
    #[must_use]
    pub fn of(scores: &[f64], labels: &[bool]) -> Self {
        let (n1, m1, s1) = spread(scores, labels, true);
        let (n0, m0, s0) = spread(scores, labels, false);
        let pooled = ((s1 + s0) / (n1 + n0 - 2.0)).sqrt();
        let cohens_d = Some((m1 - m0) / pooled).filter(|d| d.is_finite());
        Self { positive_mean: m1, negative_mean: m0, cohens_d, auroc: auroc(scores, labels) }
    }
}

/// Count, mean, and sum of squared deviations of one class's scores.
fn spread(scores: &[f64], labels: &[bool], class: bool) -> (f64, f64, f64) {
    let of_class = || scores.iter().zip(labels).filter(|(_, l)| **l == class).map(|(s, _)| *s);
    let n = of_class().count() as f64;
    let mean = of_class().sum::<f64>() / n;
    (n, mean, of_class().map(|s| (s - mean).powi(2)).sum())
}

/// Area under the ROC curve: the probability that a positive scores higher than a negative, ties counting half
/// (Mann–Whitney). `None` without both classes or with a score that is not a number.
///
/// ```
/// use residuum_analysis::classes::auroc;
/// assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
/// assert_eq!(auroc(&[1.0, 1.0], &[false, true]), Some(0.5));
/// assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
/// ```
#[must_use]
pub fn auroc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    let n1 = labels.iter().filter(|l| **l).count();
    let n0 = labels.len() - n1;
    if n1 == 0 || n0 == 0 || scores.iter().any(|s| s.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    // Twice the sum of the positives' ranks: a run of equal scores from i to j shares the rank (i + j + 1) / 2.
    let (mut doubled, mut i) = (0.0, 0);
    for tied in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let positives = tied.iter().filter(|s| labels[**s]).count();
        doubled += (positives * (2 * i + tied.len() + 1)) as f64;
        i += tied.len();
    }
    let (n1, n0) = (n1 as f64, n0 as f64);
    Some((doubled / 2.0 - n1 * (n1 + 1.0) / 2.0) / (n1 * n0))
}

/// Mean of the vectors with this label, in float64; zeros if there are none.
#[must_use]
pub fn mean(vectors: &[Vec<f32>], labels: &[bool], class: bool) -> Vec<f64> {
    let mut sum = vec![0.0; vectors.first().map_or(0, Vec::len)];
    let mut n = 0.0f64;
    for (vector, _) in vectors.iter().zip(labels).filter(|(_, l)| **l == class) {
        sum.iter_mut().zip(vector).for_each(|(s, v)| *s += f64::from(*v));
        n += 1.0;
    }
    sum.iter_mut().for_each(|s| *s /= n.max(1.0));
    sum
}

/// Inner product of each vector with `direction`, in float64.
#[must_use]
pub fn project(vectors: &[Vec<f32>], direction: &[f64]) -> Vec<f64> {
    vectors.iter().map(|v| v.iter().zip(direction).map(|(x, w)| f64::from(*x) * w).sum()).collect()
}

/// Euclidean length.
#[must_use]
pub fn norm(vector: &[f64]) -> f64 {
    vector.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cohens_d_is_in_pooled_standard_deviations() {
        let s = Separation::of(&[3.0, 5.0, 0.0, 2.0], &[true, true, false, false]);
        assert_eq!((s.positive_mean, s.negative_mean, s.auroc), (4.0, 1.0, Some(1.0)));
        assert!((s.cohens_d.unwrap() - 3.0 / 2.0f64.sqrt()).abs() < 1e-15);
        assert_eq!(Separation::of(&[1.0, 1.0, 0.0, 0.0], &[true, true, false, false]).cohens_d, None);
        assert_eq!(Separation::of(&[1.0, 0.0], &[true, false]).cohens_d, None);
    }
}
