//! Metrics over activation vectors: pure functions, accumulated in float64 whatever the storage dtype.
//!
//! Knows nothing of HTTP, SQL or the model.

pub mod distribution;
pub mod pairwise;
pub mod projection;
pub mod summary;

pub use distribution::Distribution;
pub use pairwise::{Metric, matrix};
pub use projection::{Projection, Projector};
pub use summary::Summary;
