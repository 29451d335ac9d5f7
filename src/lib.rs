//! Residuum: an activation server for language models.
//!
//! A client posts text for a model; a forward pass is queued on a worker that owns a device; the activations it asked
//! for are stored as safetensors blobs indexed in SQLite; from then on anyone can fetch, compare and reuse them over HTTP
//! without running the model again.
//!
//! The map, in the direction of the data:
//!
//! | module | owns | must not know |
//! |---|---|---|
//! | [`domain`] | ids, hook names, capture specifications, runs, caches, errors | axum, sqlx, candle |
//! | [`model`] | checkpoint → instrumented transformer, tokenizers, sparse autoencoders | sqlx, axum |
//! | [`store`] | SQLite index, blob files, verify, gc | axum, candle |
//! | [`analysis`] | metrics over vectors, pure functions | axum, sqlx |
//! | [`engine`] | queue → planner → worker thread → store | axum |
//! | [`api`] | routes, bodies, extractors, the error table | SQL, tensor types |
//! | [`connections`] | accepting connections, bounded in number and patience | what they carry |
//! | [`app`], [`cli`] | put it all together | |
//!
//! As a library: [`Archive`] reads a data folder without a server and hands out [`ActivationCache`],
//! [`PositionCache`] and [`AttentionCache`].

pub mod activation;
pub mod api;
pub mod app;
pub mod archive;
pub mod cli;
pub mod connections;
pub mod telemetry;

pub use residuum_analysis as analysis;
pub use residuum_domain as domain;
pub use residuum_engine as engine;
pub use residuum_model as model;
pub use residuum_store as store;

pub use activation::{ActivationCache, ActivationError, AttentionCache, PositionCache};
pub use archive::{Archive, ArchiveError};
