//! Exact nearest-neighbour search: every row is scored against every query, and the best rows are kept.
//!
//! Scores are sums of products in float32, computed with vectors of sixteen SIMD lanes. The score of a row depends on the row and the
//! query alone, bit for bit: not on the other rows and queries of a call, nor on how work is split.

mod best;
mod kernel;
mod simd;

use serde::{Deserialize, Serialize};

pub use best::Best;
use kernel::{Padded, Products};

/// The metric. `Cosine` and `Dot` rank the largest values first, `Euclidean` the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nearness {
    /// Cosine of the angle, in [-1, 1]; it is undefined for a row of zeros, which is never a result.
    #[default]
    Cosine,
    /// Inner product.
    Dot,
    /// Length of the difference.
    Euclidean,
}

/// Number of rows that are scored before they are ranked: their scores fit the first-level cache.
const BLOCK: usize = 32;

/// Queries, prepared for comparison with rows of their width.
#[derive(Debug)]
pub struct Scan {
    nearness: Nearness,
    queries: Padded,
    /// ‖q‖ of each query, for the cosine.
    norms: Vec<f32>,
    level: simd::Level,
}

impl Scan {
    /// Prepares queries, which must all have the same width; at least one.
    ///
    /// # Panics
    /// When the widths differ; the caller must check.
    #[must_use]
    pub fn new(nearness: Nearness, queries: &[Vec<f32>]) -> Self {
        Self::at(simd::Level::best(), nearness, queries)
    }

    fn at(level: simd::Level, nearness: Nearness, queries: &[Vec<f32>]) -> Self {
        let norm = |q: &Vec<f32>| q.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "scores are float32")]
        let norms = queries.iter().map(|q| norm(q) as f32).collect();
        Self { nearness, queries: Padded::new(queries), norms, level }
    }

    /// Width of every query and row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.queries.width()
    }

    /// An empty ranking of `k` for each query.
    #[must_use]
    pub fn rankings<K: Ord + Copy>(&self, k: usize) -> Vec<Best<K>> {
        (0..self.queries.len()).map(|_| Best::new(k)).collect()
    }

    /// Scores `rows`, `[keys.len(), width]`, and adds each under its key to the ranking of every query, unless its score is not
    /// finite. Rankings contain goodness, where larger is better; [`Self::score`] converts it to the metric.
    ///
    /// # Panics
    /// When the lengths do not match.
    pub fn offer<K: Ord + Copy>(&self, rows: &[f32], keys: &[K], rankings: &mut [Best<K>]) {
        let width = self.width();
        assert_eq!(rows.len(), keys.len() * width, "rows are not [keys, width]");
        assert_eq!(rankings.len(), self.queries.len(), "a ranking is missing");
        let mut scores = vec![0.0; BLOCK * self.queries.len()];
        let mut squares = [0.0; BLOCK];
        for (rows, keys) in rows.chunks(BLOCK * width).zip(keys.chunks(BLOCK)) {
            let difference = self.nearness == Nearness::Euclidean;
            let scores = &mut scores[..keys.len() * self.queries.len()];
            self.level.run(Products { rows, queries: &self.queries, difference, out: scores });
            if self.nearness == Nearness::Cosine {
                self.level.run(kernel::Squares { rows, width, out: &mut squares[..keys.len()] });
            }
            for (q, best) in rankings.iter_mut().enumerate() {
                for (r, key) in keys.iter().enumerate() {
                    let product = scores[r * self.queries.len() + q];
                    let goodness = match self.nearness {
                        Nearness::Dot => product,
                        Nearness::Euclidean => -product,
                        Nearness::Cosine => product / (squares[r].sqrt() * self.norms[q]),
                    };
                    best.offer(goodness, *key);
                }
            }
        }
    }

    /// Converts a goodness to the value of the metric.
    #[must_use]
    pub fn score(&self, goodness: f32) -> f32 {
        match self.nearness {
            Nearness::Dot => goodness,
            Nearness::Euclidean => (-goodness).max(0.0).sqrt(),
            Nearness::Cosine => goodness.clamp(-1.0, 1.0),
        }
    }
}

#[cfg(test)]
mod tests;
