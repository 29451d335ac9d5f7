//! Everything that needs more than one module, in one binary.

mod api_caches;
mod api_compare;
mod api_encoders;
mod api_experts;
mod api_generate;
mod api_runs;
mod api_search;
mod api_system;
mod api_tensors;
mod library;
mod model_generate;
mod model_goldens;
mod model_invariants;
mod model_loading;
mod model_minilm;
mod model_smollm2;
mod model_support;
mod model_tokenizer;
mod restart;
mod second_opinion;
mod support;
