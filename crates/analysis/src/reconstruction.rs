//! Reconstruction errors of vectors.

use super::Summary;

/// One vector and its reconstruction. In float64; `None` where undefined or not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reconstructed {
    /// ‖x‖.
    pub norm: f64,
    /// ‖x̂‖.
    pub norm_out: f64,
    /// Mean of (xᵢ − x̂ᵢ)².
    pub mse: f64,
    /// ‖x − x̂‖² / ‖x‖²; undefined for a vector of zeros.
    pub relative: Option<f64>,
    /// x·x̂ / (‖x‖ ‖x̂‖); undefined when either is zero.
    pub cosine: Option<f64>,
}

impl Reconstructed {
    /// Compares a vector with its reconstruction; `None` unless all numbers are finite.
    ///
    /// ```
    /// use residuum_analysis::Reconstructed;
    /// let found = Reconstructed::of(&[3.0, 4.0], &[3.0, 2.0]).unwrap();
    /// assert_eq!((found.norm, found.mse, found.relative), (5.0, 2.0, Some(0.16)));
    /// assert_eq!(Reconstructed::of(&[f32::NAN, 0.0], &[0.0, 0.0]), None);
    /// ```
    #[must_use]
    pub fn of(x: &[f32], reconstruction: &[f32]) -> Option<Self> {
        if !x.iter().chain(reconstruction).all(|v| v.is_finite()) {
            return None;
        }
        let squares = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let pairs = || x.iter().zip(reconstruction).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (in_square, out_square) = (squares(x), squares(reconstruction));
        let error: f64 = pairs().map(|(a, b)| (a - b).powi(2)).sum();
        let along: f64 = pairs().map(|(a, b)| a * b).sum();
        let defined = |value: f64| Some(value).filter(|v| v.is_finite());
        Some(Self {
            norm: in_square.sqrt(),
            norm_out: out_square.sqrt(),
            #[expect(clippy::cast_precision_loss, reason = "a vector has fewer than 2^52 numbers")]
            mse: error / x.len().max(1) as f64,
            relative: defined(error / in_square),
            cosine: defined((along / (in_square.sqrt() * out_square.sqrt())).clamp(-1.0, 1.0)),
        })
    }
}

/// Accumulates many vectors and their reconstructions, in float64.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    vectors: Summary,
    mse: f64,
    cosine: f64,
    n_cosine: u64,
}

impl Reconstruction {
    /// Starts without vectors, of length `d`.
    #[must_use]
    pub fn new(d: usize) -> Self {
        Self { vectors: Summary::new(d), mse: 0.0, cosine: 0.0, n_cosine: 0 }
    }

    /// Adds a vector, with the result of [`Reconstructed::of`]. The caller counts the vectors for which that is `None`.
    pub fn add(&mut self, x: &[f32], one: &Reconstructed) {
        self.vectors.add(x);
        self.mse += one.mse;
        if let Some(cosine) = one.cosine {
            self.cosine += cosine;
            self.n_cosine += 1;
        }
    }

    /// Number of vectors added.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.vectors.n()
    }

    /// Mean over vectors and dimensions of (xᵢ − x̂ᵢ)²; `None` without vectors.
    #[must_use]
    pub fn mse(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 vectors")]
        let mean = self.mse / self.n() as f64;
        Some(mean).filter(|m| m.is_finite())
    }

    /// Mean of the cosines that are defined.
    #[must_use]
    pub fn cosine(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^52 vectors")]
        let mean = self.cosine / self.n_cosine as f64;
        Some(mean).filter(|m| m.is_finite())
    }

    /// The fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − x̄‖², where x̄ is the mean of these vectors; `None` if they are all
    /// equal or fewer than two. One minus this is the explained variance.
    #[must_use]
    pub fn fvu(&self) -> Option<f64> {
        let variance = self.vectors.variance();
        #[expect(clippy::cast_precision_loss, reason = "a vector has fewer than 2^52 numbers")]
        let mean_variance = variance.iter().sum::<f64>() / variance.len().max(1) as f64;
        Some(self.mse()? / mean_variance).filter(|v| v.is_finite() && mean_variance > 0.0)
    }

    /// Mean of the vectors' lengths.
    #[must_use]
    pub fn norm(&self) -> Option<f64> {
        (self.n() > 0).then(|| self.vectors.norm().mean)
    }
}
