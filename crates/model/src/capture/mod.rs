//! What happens at hook points: interventions change values, then the rows asked for go to the sink.
//!
//! The forward passes call [`taps`]. This module knows hooks, rows and sinks; it knows no weights and no architecture.

pub mod editor;
pub mod map_part;
pub mod ordered_sink;
pub mod recorder;
pub mod taps;
