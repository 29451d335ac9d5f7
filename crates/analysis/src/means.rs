//! Distances between the means of groups of rows, absolute and relative to the spread within the groups.

use super::{
    pairwise::Metric,
    rows::{Prepared, RowSource, count},
};

/// Tables `[groups, groups]`, row by row, symmetric; NaN where undefined.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanDifferences {
    /// ‖μᵢ − μⱼ‖.
    pub difference: Vec<f64>,
    /// Cosine of μᵢ and μⱼ; undefined with a mean of zero.
    pub cosine: Vec<f64>,
    /// Cohen's d of the rows projected onto u = (μᵢ − μⱼ) / ‖μᵢ − μⱼ‖: ‖μᵢ − μⱼ‖ / s with the pooled variance
    /// s² = ((nᵢ − 1) sᵢ² + (nⱼ − 1) sⱼ²) / (nᵢ + nⱼ − 2). Undefined if the means are equal, the rows do not vary, or each
    /// group has one row.
    pub effect_size: Vec<f64>,
}

/// Compares the means of groups with the same width.
///
/// # Errors
/// Those of the source.
pub fn mean_differences<S: RowSource>(groups: &[Prepared<S>]) -> Result<MeanDifferences, S::Error> {
    let means: Vec<Vec<f64>> = groups.iter().map(Prepared::column_means).collect::<Result<_, _>>()?;
    let table = |metric: Metric| -> Vec<f64> {
        let value = |(a, b): (&Vec<f64>, &Vec<f64>)| metric.of(a, b).unwrap_or(f64::NAN);
        means.iter().flat_map(|a| means.iter().map(move |b| value((a, b)))).collect()
    };
    let difference = table(Metric::Euclidean);
    let n = groups.len();
    let mut spreads = Vec::with_capacity(n * n);
    for (i, group) in groups.iter().enumerate() {
        spreads.extend(spread_towards(group, i, &means, &difference[i * n..(i + 1) * n])?);
    }
    let effect = |i: usize, j: usize| {
        let freedom = count((groups[i].n_rows() + groups[j].n_rows()).saturating_sub(2));
        let d = difference[i * n + j] / ((spreads[i * n + j] + spreads[j * n + i]) / freedom).sqrt();
        if d.is_finite() { d } else { f64::NAN }
    };
    let effect_size = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| effect(i, j)).collect();
    Ok(MeanDifferences { cosine: table(Metric::Cosine), difference, effect_size })
}

/// Sums of squared deviations of a group's rows along the directions to the other means; NaN if means are equal.
fn spread_towards<S: RowSource>(
    group: &Prepared<S>,
    own: usize,
    means: &[Vec<f64>],
    distances: &[f64],
) -> Result<Vec<f64>, S::Error> {
    let towards = |(mean, distance): (&Vec<f64>, &f64)| -> Vec<f64> {
        mean.iter().zip(&means[own]).map(|(m, o)| (m - o) / distance).collect()
    };
    let directions: Vec<Vec<f64>> = means.iter().zip(distances).map(towards).collect();
    let mut sums = vec![0.0; means.len()];
    group.for_each_block(|_, block| {
        for row in block.chunks_exact(group.width().max(1)) {
            for (sum, direction) in sums.iter_mut().zip(&directions) {
                let along = row.iter().zip(&means[own]).zip(direction).map(|((x, m), u)| (x - m) * u).sum::<f64>();
                *sum += along * along;
            }
        }
    })?;
    Ok(sums)
}
