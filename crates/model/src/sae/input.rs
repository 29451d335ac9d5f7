//! Prepares rows for an encoder (selects columns, centres, normalises), and undoes the normalisation after decoding.

use std::ops::Range;

/// Added to the standard deviation that a row is divided by (`run_time_activation_ln_in` of SAELens).
const LAYER_NORM_EPS: f64 = 1e-5;

/// The normalisation of a row, which is undone after decoding (`_setup_activation_normalization` of SAELens).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// Multiplies the row by this constant (`expected_average_only_in`, if the factor was not folded into the weights).
    Scale(f32),
    /// Scales the row to length `√d_in`.
    ConstantNorm,
    /// Subtracts the row's mean and divides by its standard deviation (with d_in − 1 degrees of freedom).
    LayerNorm,
}

impl Normalization {
    /// The spelling in `cfg.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scale(_) => "expected_average_only_in",
            Self::ConstantNorm => "constant_norm_rescale",
            Self::LayerNorm => "layer_norm",
        }
    }

    /// What is subtracted from a row, the divisor, and the factor that undoes the division. The last two differ where an epsilon
    /// was added.
    fn of(self, row: &[f32]) -> (f64, f64, f64) {
        let n = row.len() as f64;
        match self {
            Self::None => (0.0, 1.0, 1.0),
            Self::Scale(factor) => (0.0, 1.0 / f64::from(factor), 1.0 / f64::from(factor)),
            Self::ConstantNorm => {
                let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                (0.0, norm / n.sqrt(), norm / n.sqrt())
            }
            Self::LayerNorm => {
                let mean = mean(row);
                let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
                let std = (squares / (n - 1.0)).sqrt();
                (mean, std + LAYER_NORM_EPS, std)
            }
        }
    }
}

fn mean(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64
}

/// From rows of the hook to the input of the encoder, and from decoded sums to reconstructions.
#[derive(Debug)]
pub(super) struct Input {
    /// The columns of a row that are encoded.
    columns: Range<usize>,
    row_width: usize,
    centre: bool,
    normalization: Normalization,
    /// `[d_in]`.
    b_dec: Vec<f32>,
    subtract_b_dec: bool,
}

impl Input {
    pub(super) fn new(
        normalization: Normalization,
        subtract_b_dec: bool,
        columns: Range<usize>,
        row_width: usize,
        centre: bool,
        b_dec: Vec<f32>,
    ) -> Self {
        Self { columns, row_width, centre, normalization, b_dec, subtract_b_dec }
    }

    pub(super) fn row_width(&self) -> usize {
        self.row_width
    }

    pub(super) fn centres(&self) -> bool {
        self.centre
    }

    pub(super) fn b_dec(&self) -> &[f32] {
        &self.b_dec
    }

    /// The constant factor of rows.
    pub(super) fn scale(&self) -> f32 {
        match self.normalization {
            Normalization::Scale(factor) => factor,
            _ => 1.0,
        }
    }

    /// The targets `[n, d_in]` of rows `[n, row_width]`.
    pub(super) fn targets(&self, rows: &[f32]) -> Vec<f32> {
        let mut targets = Vec::with_capacity(rows.len() / self.row_width * self.columns.len());
        for row in rows.chunks_exact(self.row_width) {
            let row = &row[self.columns.clone()];
            let shift = if self.centre { mean(row) } else { 0.0 };
            #[expect(clippy::cast_possible_truncation, reason = "the encoder computes in float32")]
            targets.extend(row.iter().map(|x| (f64::from(*x) - shift) as f32));
        }
        targets
    }

    /// The input of the encoder's product, `[n, d_in]`, from targets `[n, d_in]`. A row with a number that is not finite becomes
    /// NaN throughout.
    pub(super) fn normalised(&self, targets: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(targets.len());
        for target in targets.chunks_exact(self.columns.len()) {
            let (shift, divisor, _) = self.normalization.of(target);
            let start = out.len();
            let bias = self.b_dec.iter().map(|b| if self.subtract_b_dec { *b } else { 0.0 });
            #[expect(clippy::cast_possible_truncation, reason = "the encoder computes in float32")]
            out.extend(target.iter().zip(bias).map(|(x, b)| ((f64::from(*x) - shift) / divisor) as f32 - b));
            if out[start..].iter().any(|x| !x.is_finite()) {
                out[start..].fill(f32::NAN);
            }
        }
        out
    }

    /// Undoes the normalisation of `target` on a decoded sum `[d_in]`.
    pub(super) fn denormalise(&self, target: &[f32], sum: &[f64], out: &mut [f32]) {
        let (shift, _, factor) = self.normalization.of(target);
        #[expect(clippy::cast_possible_truncation, reason = "a reconstruction is float32 as its target is")]
        out.iter_mut().zip(sum).for_each(|(out, s)| *out = (s * factor + shift) as f32);
    }

    /// A vector `[d_in]` as a row `[row_width]`, zero in the columns that are not encoded.
    pub(super) fn place(&self, vector: &[f32]) -> Vec<f32> {
        let mut row = vec![0.0; self.row_width];
        row[self.columns.clone()].copy_from_slice(vector);
        row
    }
}
