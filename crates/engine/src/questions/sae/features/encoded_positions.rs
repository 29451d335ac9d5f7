//! Decides which stored positions of a cache are encoded.

use crate::questions::sae::left_out::{LeftOut, LeftOutPositions};
use residuum_domain::{Cache, Code, Positions, PositionsRequest, Problem, Rows, positions::TokenView};
use residuum_model::{
    TextTokenizer,
    sae::{ExcludedTokens, Sae},
};

/// The reason for refusing a mean.
const MEAN: &str = "single positions are encoded, not a mean over positions";

/// The positions to encode, and the stored ones that were left out.
#[derive(Debug)]
pub(super) struct EncodedPositions {
    /// The positions.
    pub positions: Vec<u32>,
    /// Whether the question gives them as numbers.
    pub numbered: bool,
    /// Stored positions left out because of their tokens.
    pub left_out: LeftOutPositions,
}

impl EncodedPositions {
    /// Resolves the positions of a question for a cache. Without positions, these are all stored ones, except tokens
    /// that the autoencoder was not trained on.
    ///
    /// # Errors
    /// Those of [`PositionsRequest::resolve`], at `/positions`; [`Code::InvalidValue`] for means, and if the cache does
    /// not keep what the positions depend on; [`Code::PositionOutOfRange`] if no position is left.
    pub fn of(
        question: Option<&PositionsRequest>,
        sae: &Sae,
        cache: &Cache,
        tokenizer: &TextTokenizer,
    ) -> Result<Self, Problem> {
        let refuse = |detail: &str| Err(Problem::at(Code::InvalidValue, "/positions", detail));
        let known = cache.knows_token_ids();
        match question {
            Some(positions) if positions.is_mean() => refuse(MEAN),
            Some(positions) if (positions.names_text() || positions.names_kind()) && !known => {
                refuse("the cache was imported without token ids: name positions by number")
            }
            Some(PositionsRequest::Special { special: true }) => {
                let special = stored(cache)?.into_iter();
                let positions: Vec<u32> =
                    special.filter(|p| is_of(&ExcludedTokens::Special, cache, *p, tokenizer)).collect();
                if positions.is_empty() {
                    return Err(nothing("the cache stored no position of a special token"));
                }
                Ok(Self { positions, numbered: false, left_out: nothing_left_out() })
            }
            Some(PositionsRequest::Special { special: false }) => {
                let left_out = LeftOut::by_question(ExcludedTokens::Special);
                without(left_out, cache, tokenizer, "the cache only stored positions of special tokens")
            }
            Some(PositionsRequest::Known(positions)) => resolved(positions, cache, true),
            Some(positions) => {
                if positions.names_message() {
                    return refuse(
                        "a cache does not record where the messages of its chat are; name their text instead",
                    );
                }
                let spelled = tokenizer.spell(&cache.token_ids);
                if spelled.is_none() {
                    return refuse("the tokens of this model do not spell a text: name positions by number");
                }
                let special = tokenizer.special_mask(&cache.token_ids);
                let found =
                    positions.resolve(&TokenView { special: &special, spelled, messages: None }).map_err(here)?;
                resolved(&found, cache, false)
            }
            None => {
                let left_out = if known { LeftOut::of(sae, None) } else { LeftOut::of(sae, Some(true)) };
                let why = "the cache only stored positions of tokens that the autoencoder was not trained on \
                           (exclude_special_tokens); name positions to encode them anyway";
                without(left_out, cache, tokenizer, why)
            }
        }
    }
}

/// Positions that are known as numbers, whether or not the question gives them so.
fn resolved(positions: &Positions, cache: &Cache, numbered: bool) -> Result<EncodedPositions, Problem> {
    let Rows::List(positions) = positions.resolve(cache.token_ids.len()).map_err(here)? else {
        return Err(Problem::at(Code::InvalidValue, "/positions", MEAN));
    };
    Ok(EncodedPositions { positions, numbered, left_out: nothing_left_out() })
}

fn nothing_left_out() -> LeftOutPositions {
    LeftOut::by_question(ExcludedTokens::Nothing).positions(0)
}

/// The stored positions except those of some tokens.
fn without(
    left_out: LeftOut,
    cache: &Cache,
    tokenizer: &TextTokenizer,
    why: &str,
) -> Result<EncodedPositions, Problem> {
    let stored = stored(cache)?;
    let n_stored = stored.len();
    let kept = stored.into_iter().filter(|p| !is_of(&left_out.tokens, cache, *p, tokenizer));
    let positions: Vec<u32> = kept.collect();
    if positions.is_empty() {
        return Err(nothing(why));
    }
    let n_left_out = (n_stored - positions.len()) as u64;
    Ok(EncodedPositions { positions, numbered: false, left_out: left_out.positions(n_left_out) })
}

/// Every stored position.
fn stored(cache: &Cache) -> Result<Vec<u32>, Problem> {
    match cache.rows()? {
        Rows::List(list) => Ok(list),
        Rows::Mean(_) => Err(Problem::at(Code::InvalidValue, "/positions", MEAN)),
    }
}

fn is_of(tokens: &ExcludedTokens, cache: &Cache, position: u32, tokenizer: &TextTokenizer) -> bool {
    cache.token_ids.get(position as usize).is_some_and(|id| tokens.contains(*id, tokenizer))
}

fn here(problem: Problem) -> Problem {
    Problem::at(problem.code, "/positions", problem.detail)
}

fn nothing(why: &str) -> Problem {
    Problem::at(Code::PositionOutOfRange, "/positions", why)
}
