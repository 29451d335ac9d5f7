//! Metrics of two vectors, and tables of a metric over many vectors.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rows::{Prepared, RowSource, blocks, count};

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
    /// Mean of |a − b| over the dimensions.
    Mae,
    /// Cosine after subtracting each vector's own mean, in [-1, 1]; undefined when either is constant.
    Pearson,
}

impl Metric {
    /// Every metric, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Mae, Self::Pearson];

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Mae => "mae",
            Self::Pearson => "pearson",
        }
    }

    /// The value for `a` and `b`, which must have the same length. `None` if it is undefined or not finite: a cosine with a
    /// zero vector, or anything with NaN or infinity.
    ///
    /// ```
    /// use residuum_analysis::Metric;
    /// assert_eq!(Metric::Cosine.of(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
    /// assert_eq!(Metric::Euclidean.of(&[0.0, 0.0], &[3.0, 4.0]), Some(5.0));
    /// assert_eq!(Metric::Mae.of(&[0.0, 0.0], &[3.0, -4.0]), Some(3.5));
    /// assert_eq!(Metric::Pearson.of(&[1.0, 1.0, 3.0, 3.0], &[5.0, 5.0, 3.0, 3.0]), Some(-1.0));
    /// assert_eq!(Metric::Cosine.of(&[0.0, 0.0], &[3.0, 4.0]), None);
    /// ```
    #[must_use]
    pub fn of<T: Copy + Into<f64>>(self, a: &[T], b: &[T]) -> Option<f64> {
        let differences = || a.iter().zip(b).map(|(x, y)| (*x).into() - (*y).into());
        let value: f64 = match self {
            Self::Dot => dot(a, b),
            Self::Euclidean => differences().map(|d: f64| d.powi(2)).sum::<f64>().sqrt(),
            Self::Mae => differences().map(f64::abs).sum::<f64>() / count(a.len()),
            Self::Cosine => cosine(a, b)?,
            Self::Pearson => cosine(&deviations(a)?, &deviations(b)?)?,
        };
        value.is_finite().then_some(value)
    }
}

fn dot<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (*x).into() * (*y).into()).sum()
}

fn cosine<T: Copy + Into<f64>>(a: &[T], b: &[T]) -> Option<f64> {
    // Two square roots rather than the root of the product, which overflows sooner.
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    (norms != 0.0).then(|| (dot(a, b) / norms).clamp(-1.0, 1.0))
}

/// A vector minus its mean; `None` for a constant one, whose deviations would be rounding errors.
pub(super) fn deviations<T: Copy + Into<f64>>(values: &[T]) -> Option<Vec<f64>> {
    let first: f64 = (*values.first()?).into();
    if values.iter().all(|v| (*v).into() == first) {
        return None;
    }
    let mean = values.iter().map(|v| (*v).into()).sum::<f64>() / count(values.len());
    Some(values.iter().map(|v| (*v).into() - mean).collect())
}

/// Indices of the `k` largest magnitudes, ascending; of equal magnitudes, the lower index is chosen. All indices if `k` is larger than
/// the vector; `None` with NaN or infinity.
#[must_use]
pub fn top_k(values: &[f64], k: usize) -> Option<Vec<usize>> {
    if !values.iter().all(|v| v.is_finite()) {
        return None;
    }
    let mut places: Vec<usize> = (0..values.len()).collect();
    let by_magnitude = |i: &usize, j: &usize| values[*j].abs().total_cmp(&values[*i].abs()).then(i.cmp(j));
    if (1..places.len()).contains(&k) {
        places.select_nth_unstable_by(k - 1, by_magnitude);
        places.truncate(k);
    }
    places.sort_unstable();
    Some(places)
}

/// |A ∩ B| / |A ∪ B| of two ascending lists, which are not both empty.
fn jaccard(a: &[usize], b: &[usize]) -> f64 {
    let shared = a.iter().filter(|place| b.binary_search(place).is_ok()).count();
    count(shared) / count(a.len() + b.len() - shared)
}

/// A metric of two vectors with its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorMetric {
    /// A metric without options.
    Plain(Metric),
    /// Jaccard index of the indices of the `k` largest magnitudes (see [`top_k`]), in [0, 1].
    Jaccard {
        /// Number of indices.
        k: usize,
    },
}

impl VectorMetric {
    /// The values for `left[i]` and `right[i]`; NaN where undefined.
    #[must_use]
    pub fn zip(self, left: &[&[f64]], right: &[&[f64]]) -> Vec<f64> {
        let one = |(a, b): (&&[f64], &&[f64])| match self {
            Self::Plain(metric) => metric.of(a, b),
            Self::Jaccard { k } => Some(jaccard(&top_k(a, k)?, &top_k(b, k)?)),
        };
        left.par_iter().zip(right).map(|(a, b)| one((a, b)).unwrap_or(f64::NAN)).collect()
    }

    /// The values for every `left[i]` and every `right[j]`, `[left, right]` row by row, on the current rayon pool; NaN
    /// where undefined.
    #[must_use]
    pub fn table(self, left: &[&[f64]], right: &[&[f64]]) -> Vec<f64> {
        self.tile(left, right, false)
    }

    /// A table. If it is symmetric, only the upper triangle is computed, and the rest is NaN.
    fn tile(self, left: &[&[f64]], right: &[&[f64]], symmetric: bool) -> Vec<f64> {
        let fill = |value: &(dyn Fn(usize, usize) -> Option<f64> + Sync)| -> Vec<f64> {
            let cell = |i, j| if symmetric && j < i { None } else { value(i, j) };
            let row = |i| (0..right.len()).map(move |j| cell(i, j).unwrap_or(f64::NAN)).collect::<Vec<_>>();
            (0..left.len()).into_par_iter().flat_map_iter(row).collect()
        };
        match self {
            Self::Plain(metric) => fill(&|i, j| metric.of(left[i], right[j])),
            Self::Jaccard { k } => {
                let places = |vectors: &[&[f64]]| vectors.par_iter().map(|v| top_k(v, k)).collect::<Vec<_>>();
                let (left, right) = (places(left), places(right));
                fill(&|i, j| Some(jaccard(left[i].as_ref()?, right[j].as_ref()?)))
            }
        }
    }
}

/// For each metric, the symmetric table of every row with every other, `[n, n]` row by row; NaN where undefined. It keeps the tables
/// and two blocks of rows in memory.
///
/// # Errors
/// Those of the source.
pub fn self_tables<S: RowSource>(rows: &Prepared<S>, metrics: &[VectorMetric]) -> Result<Vec<Vec<f64>>, S::Error> {
    let (n, width) = (rows.n_rows(), rows.width());
    let mut tables = vec![vec![f64::NAN; n * n]; metrics.len()];
    for above in blocks(n, width) {
        let left = rows.read(above.clone())?;
        let left: Vec<&[f64]> = left.chunks_exact(width.max(1)).collect();
        for beside in blocks(n, width).skip_while(|b| b.start < above.start) {
            let diagonal = beside == above;
            let read = if diagonal { Vec::new() } else { rows.read(beside.clone())? };
            let right: Vec<&[f64]> = if diagonal { left.clone() } else { read.chunks_exact(width.max(1)).collect() };
            for (metric, table) in metrics.iter().zip(&mut tables) {
                let tile = metric.tile(&left, &right, diagonal);
                for (cell, value) in tile.into_iter().enumerate() {
                    let (i, j) = (above.start + cell / beside.len(), beside.start + cell % beside.len());
                    if i <= j {
                        (table[i * n + j], table[j * n + i]) = (value, value);
                    }
                }
            }
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors() -> Vec<Vec<f64>> {
        (0..5).map(|i| (0..7).map(|j| f64::from(i * 7 + j).sin()).collect()).collect()
    }

    #[test]
    fn the_table_is_symmetric_and_agrees_with_the_pairs() {
        let vectors = vectors();
        let views: Vec<&[f64]> = vectors.iter().map(Vec::as_slice).collect();
        let metrics = Metric::ALL.map(VectorMetric::Plain);
        for metric in [&metrics[..], &[VectorMetric::Jaccard { k: 3 }]].concat() {
            let table = metric.table(&views, &views);
            for i in 0..5 {
                let pairs = metric.zip(&[views[i]; 5], &views);
                for j in 0..5 {
                    assert_eq!(table[i * 5 + j], table[j * 5 + i], "{metric:?}");
                    assert_eq!(table[i * 5 + j], pairs[j], "{metric:?}");
                }
            }
        }
        assert!((VectorMetric::Plain(Metric::Cosine).table(&views, &views)[12] - 1.0).abs() < 1e-15);
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
        assert_eq!(Metric::Pearson.of(&[0.1f32; 3], &[1.0, 2.0, 4.0]), None, "a constant vector has no correlation");
        assert_eq!(top_k(&[1.0, f64::NAN], 1), None);
    }

    #[test]
    fn the_largest_magnitudes_are_taken_and_ties_go_to_the_earlier() {
        assert_eq!(top_k(&[1.0, -3.0, 2.0, 3.0], 2), Some(vec![1, 3]));
        assert_eq!(top_k(&[2.0, -2.0, 2.0, 5.0], 2), Some(vec![0, 3]));
        assert_eq!(top_k(&[2.0, 1.0], 9), Some(vec![0, 1]));
        let jaccard = VectorMetric::Jaccard { k: 2 };
        assert_eq!(jaccard.zip(&[&[3.0, 2.0, 0.0]], &[&[0.0, 5.0, 9.0]]), [1.0 / 3.0]);
    }
}
