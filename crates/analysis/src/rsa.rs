//! Representational similarity analysis: whether the same pairs of rows are similar in two sets.
//!
//! The dissimilarity of two rows is 1 − their Pearson correlation over the dimensions. Two sets are compared by the Spearman
//! correlation of the upper triangles of their dissimilarity matrices, ties taking the mean of their ranks (Kriegeskorte et al.
//! 2008, "Representational similarity analysis").

use rayon::prelude::*;

use super::{
    pairwise::deviations,
    rows::{Prepared, RowSource, count},
};

/// The ranks of the dissimilarities of a set, centred and scaled to unit length: the inner product of two profiles is their Spearman
/// correlation.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile(Vec<f64>);

impl Profile {
    /// The profile of a set. `None` if it is undefined: for a constant row, values that are not finite, or if all dissimilarities
    /// are equal (always the case for two rows).
    ///
    /// # Errors
    /// Those of the source.
    pub fn new<S: RowSource>(rows: &Prepared<S>) -> Result<Option<Self>, S::Error> {
        let (n, width) = (rows.n_rows(), rows.width());
        let mut unit = Vec::with_capacity(n.saturating_mul(width));
        let mut defined = true;
        rows.for_each_block(|_, block| {
            for row in block.chunks_exact(width.max(1)) {
                match deviations(row).and_then(unit_length) {
                    Some(row) => unit.extend(row),
                    None => defined = false,
                }
            }
        })?;
        if !defined || n < 3 {
            return Ok(None);
        }
        let row = |i: usize| &unit[i * width..(i + 1) * width];
        let from = |i: usize| (i + 1..n).map(move |j| 1.0 - dot(row(i), row(j)).clamp(-1.0, 1.0));
        let distances: Vec<f64> = (0..n).into_par_iter().flat_map_iter(from).collect();
        drop(unit);
        Ok(deviations(&ranks(&distances)).and_then(unit_length).map(Self))
    }

    /// Spearman correlation with the profile of another set with the same number of rows, in [-1, 1].
    #[must_use]
    pub fn correlation(&self, other: &Self) -> f64 {
        dot(&self.0, &other.0).clamp(-1.0, 1.0)
    }
}

/// Memory in bytes for comparing these sets, each `(rows, width)`, without the blocks that are read: the ranks of all sets, and what
/// computing them for one set takes.
#[must_use]
pub fn bytes(sets: &[(usize, usize)]) -> usize {
    let pairs = |n: usize| n.saturating_mul(n) / 2;
    let held = sets.iter().map(|&(n, _)| pairs(n)).fold(0, usize::saturating_add);
    let making = sets.iter().map(|&(n, width)| n.saturating_mul(width).saturating_add(3 * pairs(n))).max().unwrap_or(0);
    held.saturating_add(making).saturating_mul(8)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn unit_length(mut values: Vec<f64>) -> Option<Vec<f64>> {
    let length = dot(&values, &values).sqrt();
    (length.is_finite() && length > 0.0).then(|| {
        values.iter_mut().for_each(|v| *v /= length);
        values
    })
}

/// Ranks from 1; equal values get the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.par_sort_unstable_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let ties = order[start..].iter().take_while(|i| values[**i] == values[order[start]]).count();
        let shared = count(2 * start + ties + 1) / 2.0;
        order[start..start + ties].iter().for_each(|i| ranks[*i] = shared);
        start += ties;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
        assert_eq!(ranks(&[]), [0.0; 0]);
    }
}
