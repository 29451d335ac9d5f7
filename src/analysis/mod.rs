//! Metrics over activation vectors: pure functions, accumulated in float64 whatever the storage dtype.
//!
//! Knows nothing of HTTP, SQL or the model.

pub mod distribution;
pub mod pairwise;

pub use distribution::Distribution;
pub use pairwise::{Metric, matrix};
