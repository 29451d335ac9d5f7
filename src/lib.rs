//! Residuum: an activation server for language models.
//!
//! A client posts text for a model and names the activations it wants. The server queues a forward pass for a worker,
//! which owns a device, and stores the activations as safetensors blobs with an index in SQLite. From then on clients
//! can fetch, compare and reuse them over HTTP without running the model again.
//!
//! The map. `domain`, `model`, `store`, `analysis` and `engine` are crates of this workspace (`crates/`) under the names
//! that a library user sees; the rest is in `src/`:
//!
//! | module | owns | must not know |
//! |---|---|---|
//! | [`domain`] | ids, hook names, capture specifications, runs, caches, errors | axum, sqlx, candle |
//! | [`model`] | checkpoint → instrumented transformer, tokenizers, sparse autoencoders | sqlx, axum |
//! | [`store`] | SQLite index, blob files, verification, garbage collection | axum, candle |
//! | [`analysis`] | metrics over vectors, pure functions | axum, sqlx |
//! | [`engine`] | queue → planner → worker thread → store | axum |
//! | [`api`] | routes, bodies, extractors, the error table | SQL, tensor types |
//! | [`connections`] | accepting connections, with limits on their number and on time | what they carry |
//! | [`app`], [`cli`] | put it all together | |
//!
//! As a library: [`Archive`] reads a data folder without a server and returns [`ActivationCache`], [`PositionCache`]
//! and [`AttentionCache`].

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
