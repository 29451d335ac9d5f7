//! Metrics of two vectors, and their matrices over many.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A metric of two vectors of one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// a·b / (‖a‖ ‖b‖), in [-1, 1]; undefined when either is zero.
    Cosine,
    /// a·b.
    Dot,
    /// ‖a − b‖.
    Euclidean,
}

impl Metric {
    /// Every metric, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Cosine, Self::Dot, Self::Euclidean];

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
        }
    }

    /// The value for `a` and `b`, which must have one length. `None` where it is undefined or not finite: a
    /// cosine with a zero vector, anything with NaN or infinity in it.
    ///
    /// ```
    /// use residuum::analysis::Metric;
    /// assert_eq!(Metric::Cosine.of(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
    /// assert_eq!(Metric::Euclidean.of(&[0.0, 0.0], &[3.0, 4.0]), Some(5.0));
    /// assert_eq!(Metric::Cosine.of(&[0.0, 0.0], &[3.0, 4.0]), None);
    /// ```
    #[must_use]
    pub fn of(self, a: &[f32], b: &[f32]) -> Option<f64> {
        let value = match self {
            Self::Dot => dot(a, b),
            Self::Euclidean => {
                a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>().sqrt()
            }
            Self::Cosine => {
                // Two roots, not the root of the product: a product of squares overflows sooner.
                let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
                if norms == 0.0 {
                    return None;
                }
                (dot(a, b) / norms).clamp(-1.0, 1.0)
            }
        };
        value.is_finite().then_some(value)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

/// The metric of every vector with every other, `[n, n]` and symmetric, on the current rayon pool.
#[must_use]
pub fn matrix(metric: Metric, vectors: &[&[f32]]) -> Vec<Vec<Option<f64>>> {
    let n = vectors.len();
    let upper: Vec<Vec<Option<f64>>> =
        (0..n).into_par_iter().map(|i| (i..n).map(|j| metric.of(vectors[i], vectors[j])).collect()).collect();
    (0..n).map(|i| (0..n).map(|j| upper[i.min(j)][i.abs_diff(j)]).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_symmetric_and_agrees_with_the_pairs() {
        let vectors: Vec<Vec<f32>> = (0..5).map(|i| (0..7).map(|j| ((i * 7 + j) as f32).sin()).collect()).collect();
        let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        for metric in Metric::ALL {
            let m = matrix(metric, &views);
            for i in 0..5 {
                for j in 0..5 {
                    assert_eq!(m[i][j], metric.of(&vectors[i.min(j)], &vectors[i.max(j)]));
                    assert_eq!(m[i][j], m[j][i]);
                }
            }
        }
        assert!((matrix(Metric::Cosine, &views)[2][2].unwrap() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn sums_do_not_suffer_the_storage_precision() {
        // In float32 the small terms would vanish beside the large one.
        let mut a = vec![1.0f32; 1 << 16];
        a[0] = 4096.0;
        assert_eq!(Metric::Dot.of(&a, &a), Some(4096.0 * 4096.0 + 65535.0));
    }

    #[test]
    fn what_is_not_a_number_is_none() {
        assert_eq!(Metric::Dot.of(&[f32::NAN], &[1.0]), None);
        assert_eq!(Metric::Euclidean.of(&[f32::INFINITY], &[1.0]), None);
    }
}
