//! A batch in lanes: parts that go through the model side by side, each for the most part on a thread of its own.
//!
//! Threads that share every product wait for each other behind each of them. Those with a part of the inputs each do not, and
//! whoever has finished helps the others.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use rayon::prelude::*;

use crate::{Batch, CaptureSink, ForwardError, Input};

/// Tokens that a batch needs for each of its lanes: the weights are read from memory for every one of them.
const LANE_TOKENS: usize = 128;

/// Lanes of a batch at most: what is recorded has a buffer in each.
const MAX_LANES: usize = 4;

type Cancelled<'a> = &'a (dyn Fn() -> bool + Sync);

/// Runs a batch, or a part of one, until it is cancelled.
type Pass<'a> = &'a (dyn Fn(&Batch<'_>, &mut dyn CaptureSink, Cancelled<'_>) -> Result<(), ForwardError> + Sync);

/// Runs a batch whole, or in lanes where it is large enough for more than one and its sink takes them.
///
/// # Errors
/// Those of the pass. An error in one lane ends the others.
pub fn run(
    batch: &Batch<'_>,
    sink: &mut dyn CaptureSink,
    cancelled: Cancelled<'_>,
    pass: Pass<'_>,
) -> Result<(), ForwardError> {
    let lanes = divide(batch.inputs, rayon::current_num_threads().min(MAX_LANES));
    if lanes.len() > 1
        && batch.inputs.len() == batch.layout.items.len()
        && let Some(outcome) = side_by_side(batch, lanes, sink, cancelled, pass)
    {
        return outcome;
    }
    pass(batch, sink, cancelled)
}

/// Runs lanes; `None` where the sink takes none.
fn side_by_side(
    batch: &Batch<'_>,
    lanes: Vec<Range<usize>>,
    sink: &mut dyn CaptureSink,
    cancelled: Cancelled<'_>,
    pass: Pass<'_>,
) -> Option<Result<(), ForwardError>> {
    let sinks = sink.lanes(&lanes)?;
    if sinks.len() != lanes.len() {
        return Some(Err(ForwardError::Failed(format!("{} lanes have {} sinks", lanes.len(), sinks.len()))));
    }
    let failed = AtomicBool::new(false);
    let ends = || failed.load(Ordering::Relaxed) || cancelled();
    let lane = |(inputs, mut sink): (Range<usize>, Box<dyn CaptureSink + '_>)| {
        let guard = EndsOthers(&failed);
        let layout = batch.layout.part(inputs.clone());
        let outcome = pass(&Batch { inputs: &batch.inputs[inputs], layout: &layout }, &mut *sink, &ends);
        if outcome.is_ok() {
            std::mem::forget(guard);
        }
        outcome
    };
    let outcomes: Vec<_> = lanes.into_par_iter().zip(sinks).with_max_len(1).map(lane).collect();
    // What ended the others, before what came of them.
    let is_cause =
        |outcome: &Result<(), ForwardError>| matches!(outcome, Err(e) if !matches!(e, ForwardError::Cancelled));
    let (causes, others): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(is_cause);
    Some(causes.into_iter().chain(others).collect())
}

/// Ends the other lanes, unless it is forgotten: when one fails or panics.
struct EndsOthers<'f>(&'f AtomicBool);

impl Drop for EndsOthers<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Divides inputs into at most `most` lanes of about as many tokens, or not at all where one would have far more than the others:
/// it would be alone for most of the time, with nobody to compute while it writes.
fn divide(inputs: &[Input<'_>], most: usize) -> Vec<Range<usize>> {
    let tokens: usize = inputs.iter().map(|i| i.token_ids.len()).sum();
    let n = (tokens / LANE_TOKENS).min(most).max(1);
    let mut lanes: Vec<Range<usize>> = Vec::with_capacity(n);
    let (mut before, mut of_last) = (0, 0);
    for (i, input) in inputs.iter().enumerate() {
        // the lane that the middle of the input is in
        let lane = (2 * before + input.token_ids.len()) * n / (2 * tokens).max(1);
        before += input.token_ids.len();
        match lanes.last_mut() {
            Some(last) if lane == of_last => last.end = i + 1,
            _ => lanes.push(i..i + 1),
        }
        of_last = lane;
    }
    let tokens_of = |lane: &Range<usize>| inputs[lane.clone()].iter().map(|i| i.token_ids.len()).sum::<usize>();
    let largest = lanes.iter().map(tokens_of).max().unwrap_or(0);
    // half as many again as its share
    if 2 * largest * n > 3 * tokens { std::iter::once(0..inputs.len()).collect() } else { lanes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residuum_domain::Rows;

    #[test]
    fn lanes_have_all_inputs_and_about_as_many_tokens() {
        let rows = Rows::List(vec![0]);
        let ids = vec![0; 2000];
        for (lengths, most, expected) in [
            (vec![], 2, vec![]),
            (vec![5], 2, vec![1]),
            (vec![2000], 8, vec![1]),
            (vec![100, 100], 2, vec![2]),
            (vec![128, 128], 2, vec![1, 2]),
            (vec![128, 128], 1, vec![2]),
            (vec![10, 300, 10, 10, 200], 2, vec![2, 5]),
            (vec![1000, 1, 1, 1], 4, vec![4]),
            (vec![700, 300], 2, vec![1, 2]),
            (vec![800, 200], 2, vec![2]),
            (vec![64; 12], 4, vec![3, 6, 9, 12]),
        ] {
            let inputs: Vec<Input<'_>> =
                lengths.iter().map(|n| Input { token_ids: &ids[..*n], rows: &rows, edits: None }).collect();
            let lanes = divide(&inputs, most);
            let ends: Vec<usize> = lanes.iter().map(|lane| lane.end).collect();
            assert_eq!(ends, expected, "{lengths:?} in {most}");
            assert!(lanes.iter().zip([0].iter().chain(&ends)).all(|(lane, end)| lane.start == *end), "{lanes:?}");
        }
    }
}
