//! Loading and unloading models and autoencoders while the server runs.

mod answer;
pub mod model_routes;
pub mod sae_routes;
mod sae_upload;
