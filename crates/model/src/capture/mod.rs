//! What happens at hook points: interventions change the values, then the rows that are asked for go to the sink.
//!
//! Forward passes call [`taps`] at every hook point. This module owns the order and the chunks in which values reach the sink. It knows
//! hooks, rows and sinks; it must not know weights or the architecture.

pub mod editor;
pub mod map_part;
pub mod mean;
pub mod ordered_sink;
pub mod recorder;
pub mod taps;
