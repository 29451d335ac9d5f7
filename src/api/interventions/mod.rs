//! Interventions in a body, and their conversion to interventions of the engine.

mod intervention_body;
mod intervention_question;

pub use intervention_body::InterventionDto;
pub use intervention_question::PostedInterventions;
