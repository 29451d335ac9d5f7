//! Text to tokens and back, the BOS rule, and chat templates.

use serde_json::{Map, Value};

use crate::domain::{BosDecision, Code, Problem};

/// An input as the model will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// What each token stands for.
    pub tokens: Vec<String>,
    /// Which tokens are special tokens.
    pub special: Vec<bool>,
    /// Start and end of each token in the text, in characters; `None` when there was no text.
    pub offsets: Option<Vec<(usize, usize)>>,
    /// How BOS was decided.
    pub bos: BosDecision,
}

/// A checkpoint's tokenizer and chat template. Shared between threads.
#[derive(Debug)]
pub struct TextTokenizer {
    bos: Option<(u32, String)>,
    adds_bos: bool,
    vocab_size: usize,
}

impl TextTokenizer {
    /// Encodes text. `prepend_bos`: `None` follows the tokenizer's own rule, true makes sure that there is exactly
    /// one BOS, false leaves out one the tokenizer would add.
    ///
    /// # Errors
    /// [`Code::NoBosToken`], [`Code::EmptyInput`], [`Code::TooManyTokens`].
    pub fn encode(&self, text: &str, prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        let _ = (text, prepend_bos);
        Err(Problem::new(Code::Internal, "no tokenizer"))
    }

    /// Takes token ids as they are; `prepend_bos` `None` adds nothing.
    ///
    /// # Errors
    /// [`Code::TokenOutOfVocabulary`] with pointer `/{index}`, [`Code::NoBosToken`], [`Code::EmptyInput`].
    pub fn from_ids(&self, ids: &[u32], prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        let _ = (ids, prepend_bos);
        Err(Problem::new(Code::Internal, "no tokenizer"))
    }

    /// Renders a chat with the model's own template.
    ///
    /// # Errors
    /// [`Code::NoChatTemplate`], or [`Code::ChatTemplateFailed`] with the template's own message.
    pub fn render_chat(
        &self,
        messages: &[Value],
        add_generation_prompt: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, Problem> {
        let _ = (messages, add_generation_prompt, kwargs);
        Err(Problem::new(Code::NoChatTemplate, "the model has no chat template"))
    }

    /// Encodes a rendered chat: special tokens in the text are recognised, none are added unless asked for.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_chat(&self, rendered: &str, prepend_bos: Option<bool>) -> Result<Encoded, Problem> {
        self.encode(rendered, prepend_bos)
    }

    /// Whether the checkpoint brings a chat template.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        false
    }

    /// The BOS token: id and spelling.
    #[must_use]
    pub fn bos_token(&self) -> Option<(u32, &str)> {
        self.bos.as_ref().map(|(id, s)| (*id, s.as_str()))
    }

    /// Whether the tokenizer adds BOS to text by its own rule.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Number of token ids.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What each token stands for; bytes that are no UTF-8 on their own show as U+FFFD.
    #[must_use]
    pub fn token_strings(&self, ids: &[u32]) -> Vec<String> {
        ids.iter().map(|_| String::new()).collect()
    }
}
