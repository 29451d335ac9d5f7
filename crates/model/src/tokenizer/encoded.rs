//! A tokenised input: token ids, and the text of each token.

use std::ops::Range;

use residuum_domain::BosDecision;

/// A tokenised input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The text of each token.
    pub tokens: Vec<String>,
    /// Which tokens are special tokens.
    pub special: Vec<bool>,
    /// Characters (Unicode scalar values) of the text that each token covers, `[start, end)`, as the tokenizer reports them;
    /// `None` for a token that was added. `None` when there was no text.
    pub offsets: Option<Vec<Option<(usize, usize)>>>,
    /// How BOS was decided.
    pub bos: BosDecision,
    /// Number of tokens at the end that the tokenizer adds by its own rule (BERT's `[SEP]`).
    pub n_suffix: usize,
    /// Characters of the text whose tokens were cut out.
    pub cut: Range<usize>,
}

impl Encoded {
    /// Cuts tokens out. May be called once.
    pub fn cut(&mut self, tokens: Range<usize>) {
        self.ids.drain(tokens.clone());
        self.tokens.drain(tokens.clone());
        self.special.drain(tokens.clone());
        if let Some(offsets) = &mut self.offsets {
            let gone: Vec<(usize, usize)> = offsets.drain(tokens).flatten().collect();
            let start = gone.iter().map(|(start, _)| *start).min().unwrap_or(0);
            self.cut = start..gone.iter().map(|(_, end)| *end).max().unwrap_or(start);
        }
    }
}
