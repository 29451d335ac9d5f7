//! Runs a large batch as sub-batches in parallel: each takes some of the inputs through all layers, mostly on one thread.
//!
//! Threads that share every matrix product wait for each other after each of them. Threads with inputs of their own do not, and a
//! thread that has finished helps the others. This file knows inputs and sinks, and nothing of the model.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use rayon::prelude::*;

use crate::{Batch, CaptureSink, ForwardError, Input};

/// Tokens that a sub-batch needs on average to pay for itself: each reads all weights from memory once.
const SUB_BATCH_TOKENS: usize = 128;

/// Largest number of sub-batches: each has recording buffers of its own.
const MAX_SUB_BATCHES: usize = 4;

type Cancelled<'a> = &'a (dyn Fn() -> bool + Sync);

/// Runs a batch or a sub-batch until it is cancelled.
type Pass<'a> = &'a (dyn Fn(&Batch<'_>, &mut dyn CaptureSink, Cancelled<'_>) -> Result<(), ForwardError> + Sync);

/// Runs a batch in sub-batches if it is large enough and its sink can be split; else as a whole.
///
/// # Errors
/// Those of `pass`. An error in one sub-batch cancels the others.
pub fn run(
    batch: &Batch<'_>,
    sink: &mut dyn CaptureSink,
    cancelled: Cancelled<'_>,
    pass: Pass<'_>,
) -> Result<(), ForwardError> {
    let sub_batches = divide(batch.inputs, rayon::current_num_threads().min(MAX_SUB_BATCHES));
    if sub_batches.len() > 1
        && batch.inputs.len() == batch.layout.items.len()
        && let Some(outcome) = in_parallel(batch, sub_batches, sink, cancelled, pass)
    {
        return outcome;
    }
    pass(batch, sink, cancelled)
}

/// Runs sub-batches in parallel; `None` if the sink cannot be split.
fn in_parallel(
    batch: &Batch<'_>,
    sub_batches: Vec<Range<usize>>,
    sink: &mut dyn CaptureSink,
    cancelled: Cancelled<'_>,
    pass: Pass<'_>,
) -> Option<Result<(), ForwardError>> {
    let sinks = sink.split(&sub_batches)?;
    if sinks.len() != sub_batches.len() {
        return Some(Err(ForwardError::Failed(format!(
            "{} sub-batches have {} sinks",
            sub_batches.len(),
            sinks.len()
        ))));
    }
    let failed = AtomicBool::new(false);
    let cancelled = || failed.load(Ordering::Relaxed) || cancelled();
    let run = |(inputs, mut sink): (Range<usize>, Box<dyn CaptureSink + '_>)| {
        let guard = CancelOthers(&failed);
        let layout = batch.layout.part(inputs.clone());
        let outcome = pass(&Batch { inputs: &batch.inputs[inputs], layout: &layout }, &mut *sink, &cancelled);
        if outcome.is_ok() {
            std::mem::forget(guard);
        }
        outcome
    };
    let outcomes: Vec<_> = sub_batches.into_par_iter().zip(sinks).with_max_len(1).map(run).collect();
    // The error that cancelled the others comes first.
    let is_cause =
        |outcome: &Result<(), ForwardError>| matches!(outcome, Err(e) if !matches!(e, ForwardError::Cancelled));
    let (causes, others): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(is_cause);
    Some(causes.into_iter().chain(others).collect())
}

/// Cancels the other sub-batches when it is dropped: when one fails or panics. One that succeeds forgets it.
struct CancelOthers<'f>(&'f AtomicBool);

impl Drop for CancelOthers<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Divides inputs into at most `most` sub-batches with about as many tokens each. It does not divide them if one sub-batch would
/// have far more tokens than the others: it would run alone most of the time, and no other would compute while it writes.
fn divide(inputs: &[Input<'_>], most: usize) -> Vec<Range<usize>> {
    let tokens: usize = inputs.iter().map(|i| i.token_ids.len()).sum();
    let n = (tokens / SUB_BATCH_TOKENS).min(most).max(1);
    let mut sub_batches: Vec<Range<usize>> = Vec::with_capacity(n);
    let (mut before, mut of_last) = (0, 0);
    for (i, input) in inputs.iter().enumerate() {
        // an input belongs to the sub-batch that its middle token falls into
        let at = (2 * before + input.token_ids.len()) * n / (2 * tokens).max(1);
        before += input.token_ids.len();
        match sub_batches.last_mut() {
            Some(last) if at == of_last => last.end = i + 1,
            _ => sub_batches.push(i..i + 1),
        }
        of_last = at;
    }
    let tokens_of =
        |sub_batch: &Range<usize>| inputs[sub_batch.clone()].iter().map(|i| i.token_ids.len()).sum::<usize>();
    let largest = sub_batches.iter().map(tokens_of).max().unwrap_or(0);
    // at most one and a half times its share
    if 2 * largest * n > 3 * tokens { std::iter::once(0..inputs.len()).collect() } else { sub_batches }
}

#[cfg(test)]
mod tests {
    use super::*;
    use residuum_domain::Rows;

    #[test]
    fn sub_batches_have_all_inputs_and_about_as_many_tokens() {
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
            let sub_batches = divide(&inputs, most);
            let ends: Vec<usize> = sub_batches.iter().map(|sub_batch| sub_batch.end).collect();
            assert_eq!(ends, expected, "{lengths:?} in {most}");
            assert!(
                sub_batches.iter().zip([0].iter().chain(&ends)).all(|(sub_batch, end)| sub_batch.start == *end),
                "{sub_batches:?}"
            );
        }
    }
}
