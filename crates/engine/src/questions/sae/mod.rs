//! Sparse autoencoders: their catalogue, the features of stored rows, and the rows at which a feature is strongest.

pub mod catalogue;
pub mod feature_tokens;
pub mod features;
pub mod left_out;
mod matching;
