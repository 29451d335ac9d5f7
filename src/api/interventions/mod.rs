//! Interventions of a run as a body writes them, and what is asked of the engine for them.

mod intervention_body;
mod intervention_question;

pub use intervention_body::InterventionDto;
pub use intervention_question::questions;
