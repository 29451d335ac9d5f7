//! Metrics over activation vectors: pure functions, accumulated in float64 whatever the storage dtype; the scans of a
//! search alone in float32.
//!
//! Knows nothing of HTTP, SQL or the model.

pub mod pairwise;
pub mod scan;

pub use pairwise::{Metric, matrix};
