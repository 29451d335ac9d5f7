//! Similarity of two sets of rows that describe the same things in the same order, possibly in different widths.
//!
//! With X `[n, p]` and Y `[n, q]`, their columns centred over the n rows:
//!
//! * linear CKA, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with Frobenius norms (Kornblith et al. 2019, "Similarity of Neural Network
//!   Representations Revisited", section 3);
//! * debiased CKA, HSIC₁(K, L) / √(HSIC₁(K, K) HSIC₁(L, L)) with K = XXᵀ, L = YYᵀ and the unbiased estimator HSIC₁ of Song et
//!   al. 2012 ("Feature Selection via Dependence Maximization", eq. 5), as in Nguyen et al. 2020;
//! * the orthogonal Procrustes distance, 2 − 2 ‖XᵀY‖₊ / (‖X‖ ‖Y‖) with the nuclear norm: the smallest squared distance
//!   between X / ‖X‖ and a rotated Y / ‖Y‖ (Ding et al. 2021, "Grounding Representation Similarity Through Statistical Testing").
//!
//! For a pair, all three need only C = XᵀY. This holds for HSIC₁ too: it does not change when rows are shifted, and for centred rows
//! K1 = 0, so its sums over K and L without their diagonals are sums over squared row norms.

use faer::{Accum, Mat, MatRef, get_global_parallelism, linalg::matmul::matmul};

use super::rows::{Prepared, RowSource, blocks, count, subtract};

/// The metrics of a pair of sets. They are NaN where undefined: for a set of equal rows, values that are not finite, too few rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alignment {
    /// Linear CKA, in [0, 1].
    pub cka: f64,
    /// Debiased linear CKA, at most 1, around 0 for independent sets. Needs four rows.
    pub cka_debiased: f64,
    /// Orthogonal Procrustes distance, in [0, 2].
    pub procrustes: f64,
}

impl Alignment {
    const UNDEFINED: Self = Self { cka: f64::NAN, cka_debiased: f64::NAN, procrustes: f64::NAN };
}

/// A set of rows, prepared for many pairs.
pub struct AlignedSet<'a, S> {
    rows: &'a Prepared<S>,
    means: Vec<f64>,
    /// `[n, n]` coordinates of the centred rows in a basis of the space they span, kept if they are smaller than the rows. The
    /// metrics do not change under rotation.
    scores: Option<Mat<f64>>,
    /// The squared norm of each centred row.
    squared_norms: Vec<f64>,
    /// ‖XᵀX‖.
    self_norm: f64,
    finite: bool,
}

impl<'a, S: RowSource> AlignedSet<'a, S> {
    /// Reads the rows to compute their mean, their norms, and XᵀX.
    ///
    /// # Errors
    /// Those of the source.
    pub fn new(rows: &'a Prepared<S>) -> Result<Self, S::Error> {
        let means = rows.column_means()?;
        let mut this =
            Self { rows, means, scores: None, squared_norms: Vec::new(), self_norm: f64::NAN, finite: false };
        let mut squared_norms = Vec::with_capacity(rows.n_rows());
        rows.for_each_block(|_, block| {
            for row in block.chunks_exact(rows.width().max(1)) {
                squared_norms.push(row.iter().zip(&this.means).map(|(x, m)| (x - m).powi(2)).sum::<f64>());
            }
        })?;
        this.finite = squared_norms.iter().all(|norm| norm.is_finite());
        this.squared_norms = squared_norms;
        if this.finite {
            if rows.n_rows() <= rows.width() {
                let all = this.read(0..rows.n_rows())?;
                // Xᵀ = QR, so X = RᵀQᵀ: the coordinates are Rᵀ.
                this.scores = Some(matrix(&all, rows.width()).transpose().qr().thin_R().transpose().to_owned());
            }
            this.self_norm = cross(&this, &this)?.norm_l2();
        }
        Ok(this)
    }

    /// ‖X‖².
    fn total(&self) -> f64 {
        self.squared_norms.iter().sum()
    }

    fn columns(&self) -> usize {
        self.scores.as_ref().map_or_else(|| self.rows.width(), Mat::ncols)
    }

    /// Centred rows.
    fn read(&self, range: std::ops::Range<usize>) -> Result<Vec<f64>, S::Error> {
        let mut values = self.rows.read(range)?;
        values.chunks_exact_mut(self.rows.width().max(1)).for_each(|row| subtract(row, &self.means));
        Ok(values)
    }
}

fn matrix(values: &[f64], width: usize) -> MatRef<'_, f64> {
    MatRef::from_row_major_slice(values, values.len().checked_div(width).unwrap_or(0), width)
}

/// C = XᵀY, `[columns of x, columns of y]`, summed over blocks of rows.
fn cross<S: RowSource>(x: &AlignedSet<'_, S>, y: &AlignedSet<'_, S>) -> Result<Mat<f64>, S::Error> {
    let mut c = Mat::zeros(x.columns(), y.columns());
    for block in blocks(x.rows.n_rows(), x.rows.width().max(y.rows.width())) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let left = block_of(x, &block, &mut left)?;
        let right = block_of(y, &block, &mut right)?;
        matmul(c.as_mut(), Accum::Add, left.transpose(), right, 1.0, get_global_parallelism());
    }
    Ok(c)
}

fn block_of<'b, S: RowSource>(
    set: &'b AlignedSet<'_, S>,
    block: &std::ops::Range<usize>,
    values: &'b mut Vec<f64>,
) -> Result<MatRef<'b, f64>, S::Error> {
    if let Some(scores) = &set.scores {
        return Ok(scores.as_ref().subrows(block.start, block.len()));
    }
    *values = set.read(block.clone())?;
    Ok(matrix(values, set.rows.width()))
}

/// Compares two sets with the same number of rows. `distance`: whether to compute the Procrustes distance, which needs singular
/// values.
///
/// # Errors
/// Those of the source.
pub fn align<S: RowSource>(
    x: &AlignedSet<'_, S>,
    y: &AlignedSet<'_, S>,
    distance: bool,
) -> Result<Alignment, S::Error> {
    let totals = x.total().sqrt() * y.total().sqrt();
    if !x.finite || !y.finite || totals == 0.0 || x.squared_norms.len() != y.squared_norms.len() {
        return Ok(Alignment::UNDEFINED);
    }
    let c = cross(x, y)?;
    let norm = c.norm_l2();
    let nuclear = || c.singular_values().map_or(f64::NAN, |values| values.iter().sum::<f64>());
    Ok(Alignment {
        cka: (norm / x.self_norm * (norm / y.self_norm)).clamp(0.0, 1.0),
        cka_debiased: debiased(x, y, norm),
        procrustes: if distance { (2.0 - 2.0 * nuclear() / totals).clamp(0.0, 2.0) } else { f64::NAN },
    })
}

fn debiased<S>(x: &AlignedSet<'_, S>, y: &AlignedSet<'_, S>, norm: f64) -> f64 {
    let between = hsic(norm, &x.squared_norms, &y.squared_norms);
    let (of_x, of_y) =
        (hsic(x.self_norm, &x.squared_norms, &x.squared_norms), hsic(y.self_norm, &y.squared_norms, &y.squared_norms));
    if of_x > 0.0 && of_y > 0.0 { between / (of_x.sqrt() * of_y.sqrt()) } else { f64::NAN }
}

/// n (n − 3) HSIC₁ of two sets of centred rows, from ‖XᵀY‖ and the squared norms of the rows.
fn hsic(norm: f64, p: &[f64], q: &[f64]) -> f64 {
    if p.len() < 4 {
        return f64::NAN;
    }
    let n = count(p.len());
    let diagonal: f64 = p.iter().zip(q).map(|(p, q)| p * q).sum();
    let sums = p.iter().sum::<f64>() * q.iter().sum::<f64>();
    norm.powi(2) - diagonal + sums / ((n - 1.0) * (n - 2.0)) - 2.0 / (n - 2.0) * diagonal
}

/// Memory in bytes for comparing these sets, each `(rows, width)`, without the blocks that are read: the data of each set, and the
/// largest C with its singular values.
#[must_use]
pub fn bytes(sets: &[(usize, usize)]) -> usize {
    let held =
        |&(n, width): &(usize, usize)| if n <= width { n.saturating_mul(n) } else { 0 }.saturating_add(n + width);
    let widest = sets.iter().map(|&(n, width)| n.min(width)).max().unwrap_or(0);
    let loading = sets.iter().filter(|(n, width)| n <= width).map(|&(n, width)| n.saturating_mul(2 * width)).max();
    let values = sets.iter().map(held).fold(0, usize::saturating_add);
    let work = widest.saturating_mul(widest).saturating_mul(3).max(loading.unwrap_or(0));
    values.saturating_add(work).saturating_mul(8)
}
