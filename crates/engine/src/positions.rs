//! Resolves the positions of one input: names that depend on its tokens are looked up once, when it is tokenised.

use super::input::Content;
use residuum_domain::{
    Code, Positions, PositionsRequest, Problem,
    positions::{Spelled, TokenView, Which},
};
use residuum_model::{ChatEnd, Encoded, TextTokenizer};

/// The positions that `asked` names in an input. `encoded` is the input after truncation, `text` its whole text as
/// posted or rendered.
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

/// What positions mean in a chat that is continued: the posted part of it, or the reply.
pub enum Conversation {
    /// They do not concern the reply: these positions, within what was posted.
    Posted(PositionsRequest),
    /// Tokens of the reply, which begins at this token. If the last message was left open, that message and its
    /// continuation.
    Reply(u32, Which),
}

/// What positions mean in an input that is continued. Negative indices of messages count from the end of the
/// conversation; the reply is its last message, unless the reply continues the last posted message.
///
/// # Errors
/// Those of [`settle`], if the beginning of a message that was left open is not known.
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
