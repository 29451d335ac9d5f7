//! Means over rows, accumulated in float64 in the order of the rows and stored as float32.

/// Adds rows of `sums.len()` values each to the sums.
pub fn add_rows(sums: &mut [f64], rows: &[f32]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
    }
}

/// Appends the mean of `n` rows, given their sums.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean is stored as float32")]
pub fn finish_mean(sums: &[f64], n: usize, out: &mut Vec<f32>) {
    out.extend(sums.iter().map(|s| (s / n as f64) as f32));
}

/// The mean of rows of `width` values, as a forward pass records it.
pub fn mean_of_kept(rows: &[&[f32]], width: usize) -> Vec<f32> {
    let (mut sums, mut mean) = (vec![0f64; width], Vec::with_capacity(width));
    if width > 0 {
        rows.iter().for_each(|row| add_rows(&mut sums, row));
    }
    finish_mean(&sums, rows.len(), &mut mean);
    mean
}
