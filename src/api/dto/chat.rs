//! Fields that all requests with chats have.

use serde::Serialize;
use utoipa::ToSchema;

use residuum_domain::{Code, Problem};
use residuum_engine::ChatEnd;

/// A message of a chat; the model's template may know further fields.
#[derive(Serialize, ToSchema)]
pub struct Message {
    /// `system`, `user`, `assistant`, …
    #[schema(example = "user")]
    pub role: String,
    /// The text.
    #[schema(example = "Where is the Eiffel Tower?")]
    pub content: String,
}

/// The problem of fields that only a chat has, beside another input.
pub fn needs_messages() -> Problem {
    let detail = "add_generation_prompt, continue_final_message, template_kwargs and chat_template need messages";
    Problem::at(Code::InvalidBody, "/messages", detail)
}

/// How a rendered chat ends, from the two fields that decide it.
///
/// # Errors
/// [`Code::InvalidValue`] if both are true.
pub fn chat_end(add_generation_prompt: Option<bool>, continue_final_message: bool) -> Result<ChatEnd, Problem> {
    match (add_generation_prompt, continue_final_message) {
        (Some(true), true) => Err(Problem::at(
            Code::InvalidValue,
            "/continue_final_message",
            "continue_final_message and add_generation_prompt cannot both be true",
        )),
        (_, true) => Ok(ChatEnd::Open),
        (Some(true), false) => Ok(ChatEnd::Prompt),
        (Some(false), false) => Ok(ChatEnd::Closed),
        (None, false) => Ok(ChatEnd::ByRole),
    }
}
