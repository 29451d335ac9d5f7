//! Integration tests, one binary.

mod model_goldens;
mod model_invariants;
mod model_loading;
mod model_smollm2;
mod model_support;
mod model_tokenizer;
