//! Metrics over activation vectors: pure functions, accumulated in float64 whatever the storage dtype; only the scans of a
//! search use float32.
//!
//! This crate knows numbers; it must not know HTTP, SQL or models.

pub mod aligned;
pub mod classes;
pub mod distribution;
pub mod folds;
pub mod logistic;
pub mod means;
pub mod pairwise;
pub mod pca;
pub mod probe;
pub mod projection;
pub mod reconstruction;
pub mod rows;
pub mod rsa;
pub mod scan;
pub mod sets;
pub mod summary;

pub use distribution::Distribution;
pub use pairwise::{Metric, VectorMetric};
pub use projection::{Projection, Projector};
pub use reconstruction::{Reconstructed, Reconstruction};
pub use rows::{MemoryRows, Preparation, Prepared, RowSource};
pub use sets::SetMetric;
pub use summary::Summary;
