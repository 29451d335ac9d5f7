//! Interventions of a run: read from the request, checked against the model, their numbers fetched from the store.

mod dto;
mod parts;
mod resolve;

pub use dto::InterventionDto;
pub use resolve::resolve;
