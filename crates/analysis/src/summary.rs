//! Statistics of many vectors for each dimension, in one pass.

/// Running mean and variance of every dimension and of the norms (Welford, 1962), in float64.
#[derive(Debug, Clone)]
pub struct Summary {
    n: u64,
    mean: Vec<f64>,
    /// Sums of squared deviations from the mean.
    squares: Vec<f64>,
    norm: Spread,
    n_zeros: u64,
    n_non_finite: u64,
}

/// Mean, standard deviation and extremes of numbers.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    n: u64,
    /// Their mean.
    pub mean: f64,
    squares: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Without numbers.
    const EMPTY: Self = Self { n: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    /// Of these numbers.
    ///
    /// ```
    /// use residuum_analysis::summary::Spread;
    /// let spread = Spread::of([1.0, 3.0].into_iter());
    /// assert_eq!((spread.mean, spread.std(), spread.min, spread.max), (2.0, 1.0, 1.0, 3.0));
    /// ```
    #[must_use]
    pub fn of(numbers: impl Iterator<Item = f64>) -> Self {
        numbers.fold(Self::EMPTY, Self::with)
    }

    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 vectors")]
    fn with(self, x: f64) -> Self {
        let n = self.n + 1;
        let mean = self.mean + (x - self.mean) / n as f64;
        let squares = self.squares + (x - self.mean) * (x - mean);
        Self { n, mean, squares, min: self.min.min(x), max: self.max.max(x) }
    }

    /// Their standard deviation (without Bessel's correction).
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 vectors")]
    #[must_use]
    pub fn std(&self) -> f64 {
        (self.squares / self.n.max(1) as f64).sqrt()
    }
}

impl Summary {
    /// Starts without vectors, of length `d`.
    #[must_use]
    pub fn new(d: usize) -> Self {
        Self { n: 0, mean: vec![0.0; d], squares: vec![0.0; d], norm: Spread::EMPTY, n_zeros: 0, n_non_finite: 0 }
    }

    /// Adds the vectors `[rows, d]`. Those with NaN or infinity are skipped and counted.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 vectors")]
    pub fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.mean.len().max(1)) {
            if !row.iter().all(|x| x.is_finite()) {
                self.n_non_finite += 1;
                continue;
            }
            self.n += 1;
            let n = self.n as f64;
            let mut norm = 0.0;
            for ((x, mean), squares) in row.iter().zip(&mut self.mean).zip(&mut self.squares) {
                let x = f64::from(*x);
                norm += x * x;
                let delta = x - *mean;
                *mean += delta / n;
                *squares += delta * (x - *mean);
            }
            self.norm = self.norm.with(norm.sqrt());
            self.n_zeros += row.iter().filter(|x| **x == 0.0).count() as u64;
        }
    }

    /// Number of vectors added.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Number of vectors skipped, because not all of their numbers are finite.
    #[must_use]
    pub fn n_non_finite(&self) -> u64 {
        self.n_non_finite
    }

    /// The vectors' lengths.
    #[must_use]
    pub fn norm(&self) -> Spread {
        self.norm
    }

    /// The mean of each dimension.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The variance of each dimension (without Bessel's correction).
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 vectors")]
    #[must_use]
    pub fn variance(&self) -> Vec<f64> {
        self.squares.iter().map(|s| s / self.n.max(1) as f64).collect()
    }

    /// The fraction of exact zeros among all numbers.
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 numbers")]
    #[must_use]
    pub fn zeros(&self) -> f64 {
        self.n_zeros as f64 / (self.n * self.mean.len() as u64).max(1) as f64
    }
}

/// Indices of the `k` largest values, the largest first; of equal values, the lower index first.
#[must_use]
pub fn largest(values: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    order.truncate(k);
    order
}

/// Indices of the values that are more than `sigma` standard deviations from the values' own mean.
#[must_use]
pub fn outliers(values: &[f64], sigma: f64) -> Vec<usize> {
    let spread = Spread::of(values.iter().copied());
    let limit = sigma * spread.std();
    (0..values.len()).filter(|i| (values[*i] - spread.mean).abs() > limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_that_of_two_passes() {
        let rows: Vec<f32> = (0..300u16).map(|i| (f32::from(i) * 1.3).sin() + 1000.0).collect();
        let mut summary = Summary::new(3);
        summary.add(&rows[..30]);
        summary.add(&rows[30..]);
        assert_eq!(summary.n(), 100);
        for d in 0..3 {
            let column: Vec<f64> = rows.iter().skip(d).step_by(3).map(|x| f64::from(*x)).collect();
            let mean = column.iter().sum::<f64>() / 100.0;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 100.0;
            assert!((summary.mean()[d] - mean).abs() < 1e-10);
            assert!((summary.variance()[d] - variance).abs() < 1e-10);
        }
        let norms = rows.chunks(3).map(|r| r.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt());
        assert!((summary.norm().mean - norms.sum::<f64>() / 100.0).abs() < 1e-9);
    }

    #[test]
    fn vectors_that_are_not_finite_are_left_out_and_counted() {
        let mut summary = Summary::new(2);
        summary.add(&[1.0, 0.0, f32::NAN, 1.0, f32::INFINITY, 0.0, 3.0, 4.0]);
        assert_eq!((summary.n(), summary.n_non_finite()), (2, 2));
        assert_eq!((summary.mean(), summary.zeros()), (&[2.0, 2.0][..], 0.25));
        assert_eq!((summary.norm().min, summary.norm().max), (1.0, 5.0));
    }

    #[test]
    fn outliers_are_far_from_the_others() {
        let mut values = vec![1.0; 50];
        assert!(outliers(&values, 3.0).is_empty(), "equal values have none");
        values[7] = -9.0;
        assert_eq!(outliers(&values, 3.0), [7]);
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
    }
}
