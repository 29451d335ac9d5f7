//! Logistic regression with an L2 penalty, by Newton's method in float64.
//!
//! Minimises `½‖w‖² + c Σ log(1 + exp(−yᵢ(w·xᵢ + b)))`, y = ±1, without a penalty on the intercept, as scikit-learn's
//! `LogisticRegression(C=c)`. The function is strictly convex, so the result does not depend on the solver. If there are more
//! dimensions than samples, the weights are in the span of the samples, and a QR decomposition reduces the problem to that space.

use faer::{Col, Mat, Side, linalg::solvers::Solve};

/// Largest number of Newton steps; usually a few are enough.
const MAX_STEPS: usize = 200;

/// A fitted regression: `log(p / (1 − p)) = weights · x + intercept`.
#[derive(Debug, Clone)]
pub struct Logistic {
    /// One weight for each dimension.
    pub weights: Vec<f64>,
    /// The intercept.
    pub intercept: f64,
    /// Number of Newton steps.
    pub n_steps: usize,
}

/// The regression did not converge: numbers that are not finite, or a penalty too weak for float64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the logistic regression does not converge; use a smaller c")]
pub struct Diverged;

/// Fits `data` `[n, d]` with a label for each row.
///
/// # Errors
/// [`Diverged`].
pub fn fit(data: &Mat<f64>, labels: &[bool], c: f64) -> Result<Logistic, Diverged> {
    let (n, d) = (data.nrows(), data.ncols());
    if d <= n {
        let (theta, n_steps) = minimise(data, labels, c)?;
        return Ok(Logistic { weights: (0..d).map(|j| theta[j]).collect(), intercept: theta[d], n_steps });
    }
    // dataᵀ = Q R, weights = Q β
    let qr = data.transpose().qr();
    let (theta, n_steps) = minimise(&qr.thin_R().transpose().to_owned(), labels, c)?;
    let weights = qr.compute_thin_Q() * Col::from_fn(n, |j| theta[j]);
    Ok(Logistic { weights: weights.iter().copied().collect(), intercept: theta[n], n_steps })
}

/// The problem divided by c, over `theta` = the weights followed by the intercept.
struct Objective {
    /// The data with a column of ones `[n, p]`.
    rows: Mat<f64>,
    /// +1 or −1.
    signs: Vec<f64>,
    /// Penalty of each parameter: 1/c, and 0 for the intercept.
    penalty: Vec<f64>,
}

impl Objective {
    fn new(data: &Mat<f64>, labels: &[bool], c: f64) -> Self {
        let (n, d) = (data.nrows(), data.ncols());
        let rows = Mat::from_fn(n, d + 1, |i, j| if j < d { data[(i, j)] } else { 1.0 });
        let signs = labels.iter().map(|l| if *l { 1.0 } else { -1.0 }).collect();
        Self { rows, signs, penalty: (0..=d).map(|j| if j < d { 1.0 / c } else { 0.0 }).collect() }
    }

    fn value(&self, theta: &Col<f64>) -> f64 {
        let logits = &self.rows * theta;
        let losses: f64 = self.signs.iter().zip(logits.iter()).map(|(y, f)| softplus(-y * f)).sum();
        losses + self.penalty.iter().zip(theta.iter()).map(|(l, t)| 0.5 * l * t * t).sum::<f64>()
    }

    /// Gradient `[p]` and Hessian `[p, p]`.
    fn derivatives(&self, theta: &Col<f64>) -> (Col<f64>, Mat<f64>) {
        let logits = &self.rows * theta;
        let slope = Col::from_fn(self.rows.nrows(), |i| -self.signs[i] * sigmoid(-self.signs[i] * logits[i]));
        let pull = self.rows.transpose() * &slope;
        let gradient = Col::from_fn(theta.nrows(), |j| pull[j] + self.penalty[j] * theta[j]);
        let root: Vec<f64> = logits.iter().map(|f| (sigmoid(*f) * sigmoid(-f)).sqrt()).collect();
        let weighted = Mat::from_fn(self.rows.nrows(), self.rows.ncols(), |i, j| root[i] * self.rows[(i, j)]);
        let mut hessian = weighted.transpose() * &weighted;
        self.penalty.iter().enumerate().for_each(|(j, l)| hessian[(j, j)] += l);
        (gradient, hessian)
    }
}

/// Newton's method with step halving. It ends when a step is smaller than the first eleven digits of the largest parameter, or when
/// steps, which should shrink quadratically, no longer shrink: then they are rounding errors.
fn minimise(data: &Mat<f64>, labels: &[bool], c: f64) -> Result<(Col<f64>, usize), Diverged> {
    let objective = Objective::new(data, labels, c);
    let mut theta = Col::zeros(data.ncols() + 1);
    let mut value = objective.value(&theta);
    let mut last = f64::INFINITY;
    for n_steps in 1..=MAX_STEPS {
        let (gradient, hessian) = objective.derivatives(&theta);
        let step = hessian.llt(Side::Lower).map_err(|_| Diverged)?.solve(&gradient);
        let decrement: f64 = gradient.iter().zip(step.iter()).map(|(g, s)| g * s).sum();
        if !decrement.is_finite() {
            return Err(Diverged);
        }
        let mut scale = 1.0;
        // below this, differences of the objective are rounding errors, and the quadratic model is exact
        let tiny = decrement <= 1e-10 * value.abs();
        loop {
            let next = Col::from_fn(theta.nrows(), |j| theta[j] - scale * step[j]);
            let next_value = objective.value(&next);
            if tiny || next_value <= value - 1e-4 * scale * decrement {
                (theta, value) = (next, next_value);
                break;
            }
            scale *= 0.5;
            if scale < 1e-10 {
                return Err(Diverged);
            }
        }
        let largest = |v: &Col<f64>| v.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        if tiny {
            let size = largest(&step);
            if size <= 1e-11 * largest(&theta).max(1e-3) || size > 0.5 * last {
                return Ok((theta, n_steps));
            }
            last = size;
        }
    }
    Err(Diverged)
}

/// `1 / (1 + exp(−x))` without overflow.
#[must_use]
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `log(1 + exp(x))` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_vanishes_also_where_the_hessian_is_nearly_singular() {
        // Two columns are equal, a third nearly so; wide and tall; penalties from strong to next to none.
        for (n, d) in [(40, 6), (12, 30)] {
            let entry = |i: usize, j: usize| ((i * 31 + j.max(2) * 17) as f64).sin() * 3.0;
            let data = Mat::from_fn(n, d, |i, j| entry(i, j) + if j == 1 { 1e-7 * (i as f64).cos() } else { 0.0 });
            let labels: Vec<bool> = (0..n).map(|i| (i * 7) % 5 < 2).collect();
            for c in [1e-6, 1.0, 1e3, 1e6] {
                let found = fit(&data, &labels, c).unwrap();
                let theta = Col::from_fn(d + 1, |j| if j < d { found.weights[j] } else { found.intercept });
                let (gradient, _) = Objective::new(&data, &labels, c).derivatives(&theta);
                let worst = gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
                assert!(worst < 1e-9, "{n} x {d}, c = {c}: {worst:e} after {} steps", found.n_steps);
            }
        }
    }

    #[test]
    fn what_is_not_finite_diverges() {
        let data = Mat::from_fn(3, 1, |i, _| if i == 0 { f64::NAN } else { 1.0 });
        assert_eq!(fit(&data, &[true, false, true], 1.0).unwrap_err(), Diverged);
    }
}
