//! `/v1/saes`: sparse autoencoders and their features.

pub mod features;
mod features_answer;
mod left_out_answer;
pub mod list;
pub mod sae_description;
pub mod tokens;
