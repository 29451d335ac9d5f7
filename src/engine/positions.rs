//! Settling the positions of one input: what depends on its tokens is looked up, once, when it is tokenised.

use super::request::Content;
use crate::{
    domain::{
        Positions, PositionsRequest, Problem,
        positions::{Spelled, TokenView},
    },
    model::{Encoded, TextTokenizer},
};

/// The positions that `asked` means in an input. `encoded` is what is left of it, `text` the whole text as posted or
/// rendered.
///
/// # Errors
/// As [`PositionsRequest::resolve`].
pub fn settle(
    asked: &PositionsRequest,
    content: &Content,
    encoded: &Encoded,
    text: Option<&str>,
    tokenizer: &TextTokenizer,
) -> Result<Positions, Problem> {
    let spelled = if asked.names_text() { spelled(encoded, text, tokenizer) } else { None };
    let messages = match (content, text) {
        (Content::Messages { messages, end, template_kwargs, chat_template }, Some(rendered))
            if asked.names_message() =>
        {
            Some(tokenizer.message_spans(messages, *end, template_kwargs, chat_template.as_ref(), rendered))
        }
        _ => None,
    };
    asked.resolve(&TokenView { special: &encoded.special, spelled, messages })
}

fn spelled<'a>(encoded: &'a Encoded, text: Option<&'a str>, tokenizer: &TextTokenizer) -> Option<Spelled<'a>> {
    match (text, &encoded.offsets) {
        (Some(text), Some(offsets)) => {
            Some(Spelled { text: text.into(), offsets: offsets.into(), cut: encoded.cut.clone() })
        }
        _ => tokenizer.spell(&encoded.ids),
    }
}
