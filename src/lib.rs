//! Residuum: an activation server for language models.

pub mod domain;
pub mod model;
