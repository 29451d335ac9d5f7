//! `/v1/directions`: named vectors, posted or fitted to caches.

pub mod create;
mod examples;
mod fit;
pub mod manage;
mod request;
mod upload;
