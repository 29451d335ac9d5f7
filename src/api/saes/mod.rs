//! `/v1/saes`.

mod dto;
pub mod features;
mod left_out;
pub mod list;
mod matching;
pub mod tokens;
