//! `/v1/saes`.

mod dto;
pub mod features;
pub mod list;
mod matching;
pub mod tokens;
