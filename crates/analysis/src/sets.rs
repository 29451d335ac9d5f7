//! Metrics of two sets of rows, for all pairs of sets.

use rayon::prelude::*;

use super::{
    aligned::{self, AlignedSet, Alignment, align},
    means::mean_differences,
    rows::{Prepared, RowSource, block_bytes},
    rsa::{self, Profile},
};

/// A metric of two sets of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetMetric {
    /// Linear CKA ([`aligned`]).
    Cka,
    /// Debiased linear CKA ([`aligned`]).
    CkaDebiased,
    /// Representational similarity analysis ([`rsa`]).
    Rsa,
    /// Orthogonal Procrustes distance ([`aligned`]).
    Procrustes,
    /// Distance of the means ([`super::means`]).
    MeanDifference,
    /// Cosine of the means.
    MeanCosine,
    /// Cohen's d along the difference of the means.
    EffectSize,
}

impl SetMetric {
    /// Whether the rows of both sets must describe the same things in the same order; if not, only the widths must agree.
    #[must_use]
    pub const fn is_aligned(self) -> bool {
        matches!(self, Self::Cka | Self::CkaDebiased | Self::Rsa | Self::Procrustes)
    }

    /// Smallest number of rows for which it is defined.
    #[must_use]
    pub const fn min_rows(self) -> usize {
        match self {
            Self::MeanDifference | Self::MeanCosine => 1,
            Self::Cka | Self::Procrustes | Self::EffectSize => 2,
            Self::Rsa => 3,
            Self::CkaDebiased => 4,
        }
    }
}

/// For each metric a table `[left, right]`, row by row, NaN where undefined. Without `right`, the sets on the left are compared with
/// each other.
///
/// The mean metrics are defined only without `right`, for sets of the same width; else they are NaN.
///
/// # Errors
/// Those of the source.
pub fn tables<S: RowSource>(
    left: &[Prepared<S>],
    right: Option<&[Prepared<S>]>,
    metrics: &[SetMetric],
) -> Result<Vec<Vec<f64>>, S::Error> {
    let (rows, columns) = (left.len(), right.map_or(left.len(), <[_]>::len));
    let wanted = |wanted: &[SetMetric]| metrics.iter().any(|m| wanted.contains(m));
    let undefined = || vec![f64::NAN; rows * columns];
    let alignments = if wanted(&[SetMetric::Cka, SetMetric::CkaDebiased, SetMetric::Procrustes]) {
        aligned_tables(left, right, wanted(&[SetMetric::Procrustes]))?
    } else {
        Vec::new()
    };
    let correlations = if wanted(&[SetMetric::Rsa]) { rsa_table(left, right)? } else { Vec::new() };
    let means = match right {
        None if wanted(&[SetMetric::MeanDifference, SetMetric::MeanCosine, SetMetric::EffectSize]) => {
            Some(mean_differences(left)?)
        }
        _ => None,
    };
    let of_alignments = |value: fn(&Alignment) -> f64| alignments.iter().map(value).collect();
    let table = |metric: &SetMetric| match metric {
        SetMetric::Cka => of_alignments(|a| a.cka),
        SetMetric::CkaDebiased => of_alignments(|a| a.cka_debiased),
        SetMetric::Procrustes => of_alignments(|a| a.procrustes),
        SetMetric::Rsa => correlations.clone(),
        SetMetric::MeanDifference => means.as_ref().map_or_else(undefined, |m| m.difference.clone()),
        SetMetric::MeanCosine => means.as_ref().map_or_else(undefined, |m| m.cosine.clone()),
        SetMetric::EffectSize => means.as_ref().map_or_else(undefined, |m| m.effect_size.clone()),
    };
    Ok(metrics.iter().map(table).collect())
}

/// Upper bound of the memory of [`tables`] in bytes, for sets `(rows, width)`, the left ones before the right ones.
#[must_use]
pub fn bytes(sets: &[(usize, usize)], metrics: &[SetMetric]) -> usize {
    let widest = sets.iter().map(|(_, width)| *width).max().unwrap_or(0);
    let of_pairs =
        if metrics.iter().any(|m| m.is_aligned() && *m != SetMetric::Rsa) { aligned::bytes(sets) } else { 0 };
    let of_ranks = if metrics.contains(&SetMetric::Rsa) { rsa::bytes(sets) } else { 0 };
    let of_means = sets.len().saturating_mul(widest).saturating_mul(24);
    of_pairs.max(of_ranks).saturating_add(of_means).saturating_add(block_bytes(widest).saturating_mul(2))
}

fn ready<S: RowSource>(sets: &[Prepared<S>]) -> Result<Vec<AlignedSet<'_, S>>, S::Error> {
    sets.iter().map(AlignedSet::new).collect()
}

fn aligned_tables<S: RowSource>(
    left: &[Prepared<S>],
    right: Option<&[Prepared<S>]>,
    distance: bool,
) -> Result<Vec<Alignment>, S::Error> {
    let left = ready(left)?;
    match right {
        Some(right) => {
            let right = ready(right)?;
            left.iter().flat_map(|x| right.iter().map(move |y| align(x, y, distance))).collect()
        }
        None => symmetric(left.len(), |i, j| align(&left[i], &left[j], distance)),
    }
}

fn rsa_table<S: RowSource>(left: &[Prepared<S>], right: Option<&[Prepared<S>]>) -> Result<Vec<f64>, S::Error> {
    let profiles = |sets: &[Prepared<S>]| sets.iter().map(Profile::new).collect::<Result<Vec<_>, _>>();
    let left = profiles(left)?;
    let right = right.map(profiles).transpose()?;
    let right = right.as_ref().unwrap_or(&left);
    let value = |x: &Option<Profile>, y: &Option<Profile>| Some(x.as_ref()?.correlation(y.as_ref()?));
    let row = |x: &Option<Profile>| right.iter().map(|y| value(x, y).unwrap_or(f64::NAN)).collect::<Vec<_>>();
    Ok(left.par_iter().flat_map_iter(row).collect())
}

/// A symmetric table; each pair is computed once.
fn symmetric<T: Copy, E>(n: usize, value: impl Fn(usize, usize) -> Result<T, E>) -> Result<Vec<T>, E> {
    let upper: Vec<Vec<T>> = (0..n).map(|i| (i..n).map(|j| value(i, j)).collect()).collect::<Result<_, E>>()?;
    Ok((0..n).flat_map(|i| (0..n).map(move |j| (i.min(j), i.abs_diff(j)))).map(|(i, j)| upper[i][j]).collect())
}
