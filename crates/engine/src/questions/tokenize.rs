//! Tokenises inputs in the same way as a run.

use std::ops::Range;

use serde_json::Value;

use super::Questions;
use crate::Content;
use residuum_domain::{Code, Problem, positions::Spelled};
use residuum_model::{Encoded, TextTokenizer};

/// Inputs to tokenise.
#[derive(Debug, Clone)]
pub struct TokenizeQuestion {
    /// Name of a served model.
    pub model: String,
    /// The inputs, each with its place in the request as a JSON pointer.
    pub inputs: Vec<(String, Content)>,
    /// Whether to put a BOS token in front; `None` leaves the decision to the tokenizer.
    pub prepend_bos: Option<bool>,
}

/// The tokens of one input.
#[derive(Debug, Clone)]
pub struct TokenizeAnswer {
    /// Ids, texts, special tokens, characters and the BOS decision.
    pub encoded: Encoded,
    /// The chat as rendered by the template, with its messages.
    pub chat: Option<RenderedChat>,
}

/// A chat that a template rendered.
#[derive(Debug, Clone)]
pub struct RenderedChat {
    /// The text.
    pub text: String,
    /// Where each message is.
    pub messages: Vec<MessageSpan>,
}

/// The tokens of a message's content, without white space at its ends and without what the template adds around it.
#[derive(Debug, Clone)]
pub struct MessageSpan {
    /// `system`, `user`, `assistant`, …
    pub role: Option<String>,
    /// Its tokens; `None` if the rendered chat does not contain the message unchanged.
    pub tokens: Option<Range<usize>>,
}

impl Questions {
    /// Tokenises inputs exactly as a run would.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], [`Code::Unavailable`] while it loads, [`Code::EmptyInput`] if there is no input, and those of
    /// tokenising and rendering, which point at the first input that is refused.
    pub async fn tokenize(&self, question: TokenizeQuestion) -> Result<Vec<TokenizeAnswer>, Problem> {
        let TokenizeQuestion { model, inputs, prepend_bos } = question;
        let model = self.models().get(&model)?;
        if inputs.is_empty() {
            return Err(Problem::at(Code::EmptyInput, "/input", "there is no input"));
        }
        let work = tokio::task::spawn_blocking(move || {
            let each = |(at, content): (String, Content)| tokens(&at, content, prepend_bos, model.tokenizer());
            inputs.into_iter().map(each).collect()
        });
        work.await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "tokenising panicked");
            Err(Problem::new(Code::Internal, "the input could not be tokenised"))
        })
    }
}

fn tokens(
    at: &str,
    content: Content,
    prepend_bos: Option<bool>,
    tokenizer: &TextTokenizer,
) -> Result<TokenizeAnswer, Problem> {
    let under = |p: Problem| p.under(at);
    let (encoded, chat) = match content {
        Content::Text(text) => (tokenizer.encode(&text, prepend_bos).map_err(under)?, None),
        Content::TokenIds(ids) => (tokenizer.from_ids(&ids, prepend_bos).map_err(under)?, None),
        Content::Messages { messages, end, template_kwargs, chat_template } => {
            let given = chat_template.as_ref();
            let text = tokenizer.render_chat(&messages, end, &template_kwargs, given)?;
            let encoded = tokenizer.encode_chat(&text, prepend_bos).map_err(under)?;
            let spans = tokenizer.message_spans(&messages, end, &template_kwargs, given, &text);
            let messages = message_spans(&messages, spans, &text, &encoded);
            (encoded, Some(RenderedChat { text, messages }))
        }
    };
    Ok(TokenizeAnswer { encoded, chat })
}

/// The messages with their spans in tokens, computed from their spans in characters.
fn message_spans(
    messages: &[Value],
    spans: Vec<Option<Range<usize>>>,
    rendered: &str,
    encoded: &Encoded,
) -> Vec<MessageSpan> {
    let offsets = encoded.offsets.as_deref().unwrap_or_default();
    let spelled = Spelled { text: rendered.into(), offsets: offsets.into(), cut: 0..0 };
    messages
        .iter()
        .zip(spans)
        .map(|(message, span)| {
            let role = message.get("role").and_then(Value::as_str).map(str::to_owned);
            MessageSpan { role, tokens: span.and_then(|span| spelled.tokens(&span)) }
        })
        .collect()
}
