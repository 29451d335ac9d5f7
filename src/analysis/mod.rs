//! Metrics over activation vectors: pure functions, accumulated in float64 whatever the storage dtype.
//!
//! Knows nothing of HTTP, SQL or the model.

pub mod classes;
pub mod folds;
pub mod logistic;
pub mod pairwise;
pub mod pca;
pub mod probe;

pub use pairwise::{Metric, matrix};
