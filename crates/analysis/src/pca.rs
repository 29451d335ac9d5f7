//! Principal components.

use faer::Mat;

/// The principal components of a set of vectors, the largest variance first.
#[derive(Debug, Clone)]
pub struct Pca {
    /// Unit vectors `[k][d]`. Their sign is chosen so that the entry of largest magnitude (the first of several) is positive.
    pub components: Vec<Vec<f64>>,
    /// Variance along each: with n − 1 degrees of freedom when centred, else the mean square.
    pub explained_variance: Vec<f64>,
    /// The fraction of the total variance.
    pub explained_variance_ratio: Vec<f64>,
}

/// Why there are no components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PcaError {
    /// Fewer independent directions than components.
    #[error("the vectors span only {rank} dimensions")]
    Rank {
        /// Numerical rank of the data.
        rank: usize,
    },
    /// The decomposition failed.
    #[error("the singular value decomposition does not converge on these values")]
    Decomposition,
}

/// The first `k` principal components of finite vectors `[n][d]`, by singular value decomposition in float64.
///
/// # Errors
/// [`PcaError::Rank`] when the (centred) vectors span fewer than `k` dimensions, up to float32 rounding.
pub fn pca(vectors: &[Vec<f32>], k: usize, center: bool) -> Result<Pca, PcaError> {
    let (n, d) = (vectors.len(), vectors.first().map_or(0, Vec::len));
    if n == 0 || d == 0 {
        return Err(PcaError::Rank { rank: 0 });
    }
    let mean = if center { super::classes::mean(vectors, &vec![true; n], true) } else { vec![0.0; d] };
    let data = Mat::from_fn(n, d, |i, j| f64::from(vectors[i][j]) - mean[j]);
    let largest = vectors.iter().flatten().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let svd = data.thin_svd().map_err(|_| PcaError::Decomposition)?;
    let singular: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    // an upper bound of singular values that come only from rounding the inputs to float32
    let noise = largest * f64::from(f32::EPSILON) * (n.max(d) as f64).sqrt();
    let rank = singular.iter().filter(|s| **s > noise).count();
    if rank < k {
        return Err(PcaError::Rank { rank });
    }
    let freedom = if center { n - 1 } else { n } as f64;
    let total: f64 = singular.iter().map(|s| s * s).sum();
    let component = |c: usize| {
        let column: Vec<f64> = svd.V().col(c).iter().copied().collect();
        let peak = column.iter().fold(0.0f64, |peak, v| if v.abs() > peak.abs() { *v } else { peak });
        column.iter().map(|v| v * peak.signum()).collect()
    };
    Ok(Pca {
        components: (0..k).map(component).collect(),
        explained_variance: singular[..k].iter().map(|s| s * s / freedom).collect(),
        explained_variance_ratio: singular[..k].iter().map(|s| s * s / total).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_data_do_not_span_is_refused() {
        let line: Vec<Vec<f32>> = (0..4).map(|i| vec![i as f32, 2.0 * i as f32, 1.0]).collect();
        assert_eq!(pca(&line, 2, true).unwrap_err(), PcaError::Rank { rank: 1 });
        assert_eq!(pca(&[vec![0.5, 0.5], vec![0.5, 0.5]], 1, true).unwrap_err(), PcaError::Rank { rank: 0 });
        let one = pca(&line, 1, true).unwrap();
        assert!((one.components[0][1] - 2.0 / 5.0f64.sqrt()).abs() < 1e-12);
        assert!((one.explained_variance_ratio[0] - 1.0).abs() < 1e-12);
        assert_eq!(pca(&line, 2, false).unwrap().components.len(), 2);
    }
}
