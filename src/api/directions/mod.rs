//! `/v1/directions`: named vectors, posted or fitted to caches.

pub mod new_direction;
mod new_direction_body;
mod new_direction_question;
pub mod stored_directions;
