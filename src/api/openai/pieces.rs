//! Turns the events of a generation into pieces of answers, in the order in which they came.

use std::collections::HashMap;

use super::prompt_text::PromptText;
use residuum_domain::{FinishReason, Problem, TokenScore};
use residuum_engine::{Change, Completing, GenerationEvent, PromptTokens, SpelledToken, WrittenToken};

/// What happened to one choice.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Piece {
    /// The choice: `prompt × n + sample`.
    pub index: usize,
    /// Text to append.
    pub text: String,
    /// Tokens to append; none unless log-probabilities are wanted.
    pub tokens: Vec<ScoredToken>,
    /// Why the choice ended, in its last piece.
    pub finish_reason: Option<&'static str>,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredToken {
    /// The token.
    pub token: WrittenForm,
    /// Its log-probability; `None` for the first token of a prompt.
    pub logprob: Option<f32>,
    /// The most probable tokens, most probable first.
    pub top: Vec<(WrittenForm, f32)>,
    /// Where it begins in the text of the choice, in code points.
    pub offset: usize,
}

/// A token as it is written in answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenForm {
    /// Its text; `bytes:\xNN…` if its bytes are no whole characters.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl From<SpelledToken> for WrittenForm {
    fn from(SpelledToken { bytes, .. }: SpelledToken) -> Self {
        let text = match String::from_utf8(bytes.clone()) {
            Ok(text) => text,
            Err(_) => std::iter::once("bytes:".to_owned()).chain(bytes.iter().map(|b| format!("\\x{b:02x}"))).collect(),
        };
        Self { text, bytes }
    }
}

/// Makes pieces of events.
pub struct Pieces {
    /// Whether log-probabilities are wanted.
    logprobs: bool,
    /// The prompts as text, if answers begin with them.
    prompts: Option<Vec<PromptText>>,
    samples: usize,
    /// Number of generated tokens.
    n_generated: usize,
    n_prompt: usize,
}

impl Pieces {
    /// For a generation that has just begun.
    pub fn new(completing: &Completing, echo: bool, logprobs: bool) -> Self {
        let prompts = completing.prompts();
        let text_of = |prompt: &PromptTokens| {
            let spelled = completing.spell(&prompt.token_ids);
            PromptText::of(prompt, &spelled.into_iter().map(|token| token.bytes).collect::<Vec<_>>())
        };
        Self {
            logprobs,
            prompts: echo.then(|| prompts.iter().map(text_of).collect()),
            samples: completing.n_items() / prompts.len().max(1),
            n_generated: 0,
            n_prompt: prompts.iter().map(|prompt| prompt.token_ids.len()).sum(),
        }
    }

    /// Tokens of all prompts, each counted once, and generated tokens so far.
    pub fn counts(&self) -> (usize, usize) {
        (self.n_prompt, self.n_generated)
    }

    fn prompt(&self, index: usize) -> Option<&PromptText> {
        self.prompts.as_ref()?.get(index / self.samples.max(1))
    }

    /// The first pieces: the prompts, if answers begin with them and their tokens are not scored.
    pub fn first(&self, n_items: usize) -> Vec<Piece> {
        if self.logprobs {
            return Vec::new();
        }
        let echoed = |index| {
            let text = self.prompt(index)?.text.clone();
            Some(Piece { index, text, ..Piece::default() })
        };
        (0..n_items).filter_map(echoed).collect()
    }

    /// The piece that an event makes.
    ///
    /// # Errors
    /// The problem with which the choice ended.
    pub fn of(&mut self, event: &GenerationEvent, completing: &Completing) -> Result<Piece, Problem> {
        let index = event.item as usize;
        Ok(match &event.change {
            Change::Scored(scores) => self.scored(index, scores, completing),
            Change::Written(written) => {
                self.n_generated += 1;
                self.written(index, written, completing)
            }
            Change::Ended { reason, text } => {
                let reason = reason.clone()?;
                Piece { index, text: text.clone(), tokens: Vec::new(), finish_reason: Some(name(reason)) }
            }
        })
    }

    fn scored(&self, index: usize, scores: &[TokenScore], completing: &Completing) -> Piece {
        let Some(prompt) = self.prompt(index) else { return Piece { index, ..Piece::default() } };
        let spelled = Spelled::of(scores.iter(), completing);
        let tokens = scores.iter().zip(&prompt.offsets).map(|(score, offset)| spelled.token(score, *offset)).collect();
        Piece { index, text: prompt.text.clone(), tokens, finish_reason: None }
    }

    fn written(&self, index: usize, written: &WrittenToken, completing: &Completing) -> Piece {
        let WrittenToken { score, text, text_start, .. } = written;
        let before = self.prompt(index).map_or(0, |prompt| prompt.n_chars);
        let spelled = |()| Spelled::of(std::iter::once(score), completing).token(score, before + text_start);
        let tokens = self.logprobs.then_some(()).map(spelled).into_iter().collect();
        Piece { index, text: text.clone(), tokens, finish_reason: None }
    }
}

/// The spellings of all tokens that scores mention.
struct Spelled(HashMap<u32, WrittenForm>);

impl Spelled {
    fn of<'s>(scores: impl Iterator<Item = &'s TokenScore>, completing: &Completing) -> Self {
        let mut ids: Vec<u32> = scores
            .flat_map(|score| std::iter::once(score.token_id).chain(score.top.iter().map(|(id, _)| *id)))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let spelled = completing.spell(&ids);
        Self(ids.into_iter().zip(spelled.into_iter().map(Into::into)).collect())
    }

    fn form(&self, id: u32) -> WrittenForm {
        self.0.get(&id).cloned().unwrap_or_else(|| WrittenForm { text: String::new(), bytes: Vec::new() })
    }

    fn token(&self, score: &TokenScore, offset: usize) -> ScoredToken {
        let top = score.top.iter().map(|(id, logprob)| (self.form(*id), *logprob)).collect();
        ScoredToken { token: self.form(score.token_id), logprob: score.logprob, top, offset }
    }
}

/// OpenAI's name of a reason; a cancelled generation has none.
fn name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::EndOfSequence | FinishReason::Stop => "stop",
        FinishReason::Cancelled => "cancelled",
    }
}
