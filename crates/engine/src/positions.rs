//! Settling the positions of one input: what depends on its tokens is looked up, once, when it is tokenised.

use super::input::Content;
use residuum_domain::{
    Code, Positions, PositionsRequest, Problem,
    positions::{Spelled, TokenView, Which},
};
use residuum_model::{ChatEnd, Encoded, TextTokenizer};

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

/// The messages of a chat that is continued, as its positions count them: those that were posted, and the reply.
pub enum Conversation {
    /// It has nothing to do with the reply: these positions, of what was posted.
    Posted(PositionsRequest),
    /// The reply, which begins at this token; of a last message that was left open, that message with what continues it.
    Reply(u32, Which),
}

/// What positions mean in an input that is continued. Negative indices of messages count from the end of the conversation,
/// and the reply is its last message, unless it continues the last one that was posted.
///
/// # Errors
/// As [`settle`], where the beginning of a message that was left open is not known.
pub fn in_conversation(
    asked: &PositionsRequest,
    content: &Content,
    encoded: &Encoded,
    text: Option<&str>,
    tokenizer: &TextTokenizer,
) -> Result<Conversation, Problem> {
    let (Content::Messages { messages, end, .. }, Some((message, which))) = (content, asked.message()) else {
        return Ok(Conversation::Posted(asked.clone()));
    };
    let first = |n: usize| u32::try_from(n).map_err(|e| Problem::at(Code::TooManyTokens, "", e.to_string()));
    let is_next = i64::try_from(messages.len()) == Ok(message);
    match (end, message) {
        (ChatEnd::Open, -1) => {
            let begins = PositionsRequest::Message { message, which: Which::First };
            let begins = settle(&begins, content, encoded, text, tokenizer)?.resolve(encoded.ids.len())?;
            Ok(Conversation::Reply(begins.positions().first().copied().unwrap_or_default(), which))
        }
        (ChatEnd::Open, _) => Ok(Conversation::Posted(asked.clone())),
        (_, message) if message == -1 || is_next => Ok(Conversation::Reply(first(encoded.ids.len())?, which)),
        (_, ..-1) => Ok(Conversation::Posted(asked.of_message(message + 1))),
        _ => Ok(Conversation::Posted(asked.clone())),
    }
}

fn spelled<'a>(encoded: &'a Encoded, text: Option<&'a str>, tokenizer: &TextTokenizer) -> Option<Spelled<'a>> {
    match (text, &encoded.offsets) {
        (Some(text), Some(offsets)) => {
            Some(Spelled { text: text.into(), offsets: offsets.into(), cut: encoded.cut.clone() })
        }
        _ => tokenizer.spell(&encoded.ids),
    }
}
