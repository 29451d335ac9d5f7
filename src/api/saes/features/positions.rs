//! Which stored positions of a cache are encoded.

use super::super::left_out::LeftOut;
use residuum_domain::{Cache, Code, Positions, PositionsRequest, Problem, Rows, positions::TokenView};
use residuum_model::{
    TextTokenizer,
    sae::{ExcludedTokens, Sae},
};

/// Why a mean is refused.
const MEAN: &str = "single positions are encoded, and a mean over positions is none";

/// The positions to encode, and what was left out among those stored.
#[derive(Debug)]
pub struct Wanted {
    /// The positions.
    pub positions: Vec<u32>,
    /// Whether the server chose them: the request names none by number.
    pub chosen_here: bool,
    /// Which tokens were left out.
    pub left_out: LeftOut,
    /// How many positions that made.
    pub n_left_out: u64,
}

/// Looks up what a request means in a cache; without positions, those stored, tokens that the autoencoder was not trained on
/// left out.
///
/// # Errors
/// As [`PositionsRequest::resolve`], at `/positions`; [`Code::InvalidValue`] for means, and for what the cache does not know of
/// its tokens; [`Code::PositionOutOfRange`] when nothing is left.
pub fn wanted(
    request: Option<&PositionsRequest>,
    sae: &Sae,
    cache: &Cache,
    tokenizer: &TextTokenizer,
) -> Result<Wanted, Problem> {
    let refuse = |detail: &str| Err(Problem::at(Code::InvalidValue, "/positions", detail));
    let known = cache.knows_token_ids();
    match request {
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
            let left_out = LeftOut::by_request(ExcludedTokens::Nothing);
            Ok(Wanted { positions, chosen_here: true, left_out, n_left_out: 0 })
        }
        Some(PositionsRequest::Special { special: false }) => {
            let left_out = LeftOut::by_request(ExcludedTokens::Special);
            without(left_out, cache, tokenizer, "the cache stored positions of special tokens alone")
        }
        Some(PositionsRequest::Known(positions)) => numbered(positions, cache, false),
        Some(positions) => {
            if positions.names_message() {
                return refuse("a cache does not keep where the messages of its chat are; name their text instead");
            }
            let spelled = tokenizer.spell(&cache.token_ids);
            if spelled.is_none() {
                return refuse("the tokens of this model do not spell a text: name positions by number");
            }
            let special = tokenizer.special_mask(&cache.token_ids);
            let found = positions.resolve(&TokenView { special: &special, spelled, messages: None }).map_err(here)?;
            numbered(&found, cache, true)
        }
        None => {
            let left_out = if known { LeftOut::of(sae, None) } else { LeftOut::of(sae, Some(true)) };
            let why = "the cache stored positions alone whose tokens the autoencoder was not trained on \
                       (exclude_special_tokens); name positions to encode them all the same";
            without(left_out, cache, tokenizer, why)
        }
    }
}

/// Positions that do not depend on what the tokens are.
fn numbered(positions: &Positions, cache: &Cache, chosen_here: bool) -> Result<Wanted, Problem> {
    let Rows::List(positions) = positions.resolve(cache.token_ids.len()).map_err(here)? else {
        return Err(Problem::at(Code::InvalidValue, "/positions", MEAN));
    };
    let left_out = LeftOut::by_request(ExcludedTokens::Nothing);
    Ok(Wanted { positions, chosen_here, left_out, n_left_out: 0 })
}

/// The stored positions without those of some tokens.
fn without(left_out: LeftOut, cache: &Cache, tokenizer: &TextTokenizer, why: &str) -> Result<Wanted, Problem> {
    let stored = stored(cache)?;
    let n_stored = stored.len();
    let kept = stored.into_iter().filter(|p| !is_of(&left_out.tokens, cache, *p, tokenizer));
    let positions: Vec<u32> = kept.collect();
    if positions.is_empty() {
        return Err(nothing(why));
    }
    let n_left_out = (n_stored - positions.len()) as u64;
    Ok(Wanted { positions, chosen_here: true, left_out, n_left_out })
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
