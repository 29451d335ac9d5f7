//! Resolves a run's interventions for one input: which of its tokens each intervention changes.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    input::{Content, check_list},
    positions::{Conversation, in_conversation, settle},
};
use residuum_domain::{Applied, Code, Edits, Op, Problem, Tokens, TokensRequest, Which};
use residuum_model::{Encoded, TextTokenizer};

/// The interventions of a run, with their values read.
#[derive(Debug, Clone, PartialEq)]
pub struct Interventions {
    /// The changes to make.
    pub edits: Arc<Edits>,
    /// The interventions as requested. One with several strengths is here once for each.
    pub asked: Vec<Asked>,
    /// What each input becomes.
    pub variants: Variants,
}

/// The items that each input of a run becomes: one, or one for each strength. An item is the indices of the interventions
/// it has, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    /// Those of inputs without interventions of their own.
    pub of_others: Arc<[Vec<u32>]>,
    /// Those of inputs with interventions of their own, by index of the input.
    pub own: HashMap<usize, Arc<[Vec<u32>]>>,
}

impl Variants {
    /// The items of an input.
    #[must_use]
    pub fn of(&self, input: usize) -> &[Vec<u32>] {
        self.own.get(&input).unwrap_or(&self.of_others)
    }

    /// Number of items of `n_inputs` inputs.
    #[must_use]
    pub fn n_items(&self, n_inputs: usize) -> usize {
        let own: usize = self.own.values().map(|items| items.len()).sum();
        n_inputs.saturating_sub(self.own.len()).saturating_mul(self.of_others.len()).saturating_add(own)
    }
}

/// One intervention as requested, before it is resolved for an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The tokens it changes; for an attention map, the queries.
    pub tokens: TokensRequest,
    /// Where the tokens stand in the request body, as a JSON pointer.
    pub tokens_pointer: String,
    /// The keys it changes, for an attention map.
    pub keys: TokensRequest,
    /// Where the keys stand in the request body, as a JSON pointer.
    pub keys_pointer: String,
    /// Readable description for the receipt.
    pub described: Map<String, Value>,
}

/// One input: what is needed to look up its tokens.
pub(super) struct Subject<'a> {
    /// The input as posted.
    pub content: &'a Content,
    /// Where it stands in the request body, as a JSON pointer.
    pub pointer: &'a str,
    /// Its tokens.
    pub encoded: &'a Encoded,
    /// Its text, as posted or rendered.
    pub text: Option<&'a str>,
    /// The tokenizer that encoded it.
    pub tokenizer: &'a TextTokenizer,
    /// Whether generation continues it.
    pub generates: bool,
}

impl Interventions {
    /// The tokens that each of an item's interventions changes.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] and the other codes of positions, [`Code::InvalidValue`] for `generated` in a run
    /// that generates nothing, and [`Code::ShapeMismatch`] for a patch without one row per token; each points at the
    /// intervention.
    pub(super) fn settle(&self, item: &[u32], subject: &Subject<'_>) -> Result<Vec<Applied>, Problem> {
        let settled = item.iter().enumerate().map(|(place, i)| {
            let applied = self.settle_one(*i as usize, subject)?;
            Ok(Applied { intervention: (*i as usize != place).then_some(*i), ..applied })
        });
        settled.collect()
    }

    fn settle_one(&self, i: usize, subject: &Subject<'_>) -> Result<Applied, Problem> {
        let (asked, edits) = (&self.asked[i], self.edits.of(i));
        let table = edits.iter().find_map(|e| match e.op {
            Op::Replace { n_rows, n_keys, .. } => Some((n_rows, n_keys)),
            _ => None,
        });
        let patched = table.is_some_and(|(n_rows, _)| n_rows > 1);
        let tokens = subject.tokens(&asked.tokens, &asked.tokens_pointer, patched)?;
        let keys = subject.tokens(&asked.keys, &asked.keys_pointer, false)?;
        if let Some((n_rows, n_keys)) = table {
            subject.check_table(n_rows, n_keys, &tokens).map_err(|detail| {
                Problem::at(Code::ShapeMismatch, &asked.tokens_pointer, format!("{}: {detail}", subject.pointer))
            })?;
        }
        let mut described = asked.described.clone();
        let is_map = edits.iter().any(|e| e.hook.site().is_attention_map());
        described.insert(if is_map { "to" } else { "positions" }.to_owned(), described_tokens(&tokens, subject));
        if is_map {
            described.insert("from".to_owned(), described_tokens(&keys, subject));
        }
        Ok(Applied { intervention: None, tokens, keys, described })
    }
}

/// Lower bound for the number of tokens that limits the length of a list of positions.
const MIN_LISTED: usize = 1024;

impl Subject<'_> {
    fn tokens(&self, asked: &TokensRequest, pointer: &str, patched: bool) -> Result<Tokens, Problem> {
        let n = self.encoded.ids.len();
        #[expect(clippy::cast_possible_truncation, reason = "a context is shorter than 2^32")]
        let end = n as u32;
        let named = match asked {
            TokensRequest::All if patched => return Ok(Tokens::Before(end)),
            TokensRequest::All => return Ok(Tokens::All),
            TokensRequest::Prompt => return Ok(Tokens::Before(end)),
            TokensRequest::Generated if self.generates => return Ok(Tokens::From(end)),
            TokensRequest::Generated => {
                let detail = "the run generates nothing: give it `generate`, or name other positions";
                return Err(Problem::at(Code::InvalidValue, pointer, detail));
            }
            TokensRequest::At(named) => named,
        };
        let at = |p: Problem| Problem::at(p.code, pointer, format!("{}: {}", self.pointer, p.detail));
        // each input resolves the list again, and repeats have no effect here
        check_list(named, n.max(MIN_LISTED)).map_err(at)?;
        let posted;
        let named = if self.generates {
            let found = in_conversation(named, self.content, self.encoded, self.text, self.tokenizer);
            match found.map_err(at)? {
                Conversation::Reply(first, Which::All) => return Ok(Tokens::From(first)),
                Conversation::Reply(..) => {
                    let detail = "the reply is not generated yet: only all of its tokens can be changed (which: all)";
                    return Err(Problem::at(Code::InvalidValue, pointer, detail));
                }
                Conversation::Posted(named) => posted = named,
            }
            &posted
        } else {
            named
        };
        let positions = settle(named, self.content, self.encoded, self.text, self.tokenizer).map_err(at)?;
        let mut list = positions.resolve(n).map_err(at)?.positions().to_vec();
        if !patched {
            list.sort_unstable();
            list.dedup();
        }
        Tokens::list(&list)
            .ok_or_else(|| Problem::at(Code::InvalidValue, pointer, "a position that is patched is named twice"))
    }

    /// Checks that a patch has one row per token, or one for all, and one key per token.
    fn check_table(&self, n_rows: usize, n_keys: usize, tokens: &Tokens) -> Result<(), String> {
        let n = self.encoded.ids.len();
        if n_keys > 0 && n_keys != n {
            return Err(format!("the patched attention map has {n_keys} keys and the input has {n} tokens"));
        }
        match tokens {
            _ if n_rows == 1 => Ok(()),
            Tokens::From(_) => Err(format!("{n_rows} positions cannot be patched into generated tokens; give one")),
            tokens if tokens.count(n) == n_rows => Ok(()),
            tokens => Err(format!("{n_rows} positions cannot be patched into {} of the input's {n}", tokens.count(n))),
        }
    }
}

fn described_tokens(tokens: &Tokens, subject: &Subject<'_>) -> Value {
    match tokens {
        Tokens::All => json!("all"),
        // a continued message begins before the generated tokens
        Tokens::From(first) if (*first as usize) < subject.encoded.ids.len() => json!({"start": first}),
        Tokens::From(_) => json!("generated"),
        Tokens::Before(_) => json!("prompt"),
        Tokens::List(list) => {
            let mut list = list.clone();
            list.sort_unstable_by_key(|(_, place)| *place);
            json!(list.into_iter().map(|(position, _)| position).collect::<Vec<_>>())
        }
    }
}
