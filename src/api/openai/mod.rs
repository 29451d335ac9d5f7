//! `/openai/v1`: the same models in the shapes of OpenAI's API, for programs that speak it.
//!
//! An exception to the contract of all other routes: errors and lists have OpenAI's form, and an unusual value of a field
//! that nothing acts on is refused. `docs/OPENAI.md` lists the fields.

mod answer_parts;
mod answering;
mod asked;
mod chat_answer;
mod chat_body;
mod chat_messages;
mod completion_answer;
mod completion_body;
mod completion_stream;
pub mod completions;
mod neutral_fields;
pub mod openai_embeddings;
pub mod openai_error;
pub mod openai_models;
mod pieces;
mod prompt_text;
mod recording;
mod sampling;

use axum::http::HeaderName;

/// Headers that OpenAI's own client for JavaScript sends from a page.
pub const CLIENT_HEADERS: [HeaderName; 10] = [
    HeaderName::from_static("openai-organization"),
    HeaderName::from_static("openai-project"),
    HeaderName::from_static("x-stainless-arch"),
    HeaderName::from_static("x-stainless-lang"),
    HeaderName::from_static("x-stainless-os"),
    HeaderName::from_static("x-stainless-package-version"),
    HeaderName::from_static("x-stainless-retry-count"),
    HeaderName::from_static("x-stainless-runtime"),
    HeaderName::from_static("x-stainless-runtime-version"),
    HeaderName::from_static("x-stainless-timeout"),
];
