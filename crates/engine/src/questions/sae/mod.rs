//! Sparse autoencoders: what they are, the features of stored rows, and the rows where a feature is strongest.

pub mod catalogue;
pub mod feature_tokens;
pub mod features;
pub mod left_out;
mod matching;
