//! One input of a run as a client posts it.

use serde_json::{Map, Value};

use residuum_domain::{Code, PositionsRequest, Problem};
use residuum_model::{ChatEnd, GivenTemplate};

/// One input as posted.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Text for the tokenizer.
    Text(String),
    /// Token ids.
    TokenIds(Vec<u32>),
    /// A chat for the model's template.
    Messages {
        /// Messages with `role` and `content`.
        messages: Vec<Value>,
        /// How the rendered chat ends.
        end: ChatEnd,
        /// Further variables for the template.
        template_kwargs: Map<String, Value>,
        /// A template to use instead of the model's own, or the name of one of the model's templates.
        chat_template: Option<GivenTemplate>,
    },
}

impl Content {
    /// The field that holds the content, as a JSON pointer within the input; empty if the input has no fields.
    pub(super) fn pointer(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::TokenIds(_) => "",
            Self::Messages { .. } => "/messages",
        }
    }
}

/// One input with the settings that apply to it alone.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// Where it stands in the request body, as a JSON pointer.
    pub pointer: String,
    /// The input.
    pub content: Content,
    /// Positions to use for this input instead of the run's.
    pub positions: Option<PositionsRequest>,
    /// Tags of its cache, added to the run's.
    pub tags: Vec<String>,
    /// Metadata of its cache. Its keys override the run's.
    pub metadata: Map<String, Value>,
    /// Label of its cache.
    pub label: Option<String>,
}

impl InputSpec {
    /// An input without settings of its own.
    #[must_use]
    pub fn new(pointer: String, content: Content) -> Self {
        Self { pointer, content, positions: None, tags: Vec::new(), metadata: Map::new(), label: None }
    }
}

/// Entries a list of positions may have per token of the context. Repeats are allowed, and each is stored.
const LISTED_PER_TOKEN: usize = 4;

/// Refuses a list of positions that is much longer than the context.
///
/// # Errors
/// [`Code::InvalidValue`].
pub(super) fn check_list(asked: &PositionsRequest, n_ctx: usize) -> Result<(), Problem> {
    let (n, most) = (asked.n_listed(), n_ctx.saturating_mul(LISTED_PER_TOKEN));
    if n <= most {
        return Ok(());
    }
    let detail = format!("{n} positions are listed; at most {most} are taken, four times the model's context");
    Err(Problem::at(Code::InvalidValue, "/positions", detail))
}
