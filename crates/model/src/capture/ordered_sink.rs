//! Hands tensors to the sink in the order of the layout, even where they are computed in another order.

use std::{collections::BTreeMap, ops::Range};

use crate::{CaptureSink, ForwardError, Lent};

/// Wraps a sink. A tensor that is computed before its turn is held back. That happens in post-norm blocks, where the layout puts
/// norms before tensors that are computed first; at most the tensors of one block wait.
pub struct OrderedSink<'a> {
    sink: &'a mut dyn CaptureSink,
    n_items: usize,
    /// The hook whose turn it is.
    next: usize,
    /// Values of later hooks.
    held: BTreeMap<usize, Vec<f32>>,
}

impl<'a> OrderedSink<'a> {
    /// Wraps `sink`, for a batch of `n_items` items.
    pub fn new(sink: &'a mut dyn CaptureSink, n_items: usize) -> Self {
        Self { sink, n_items, next: 0, held: BTreeMap::new() }
    }

    /// Number of hooks that the sink has received completely; they are the first ones of the layout.
    pub fn handed_out(&self) -> usize {
        self.next
    }

    /// Passes on the values of consecutive items of a hook. The sink may keep the buffer and leave another.
    pub fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), ForwardError> {
        if hook == self.next {
            return self.sink.write(hook, items, values).map_err(ForwardError::Sink);
        }
        self.held.entry(hook).or_default().extend_from_slice(values);
        Ok(())
    }

    /// As [`Self::write`], for values in a lent buffer.
    pub fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), ForwardError> {
        if hook == self.next {
            return self.sink.take(hook, items, values).map_err(ForwardError::Sink);
        }
        self.held.entry(hook).or_default().extend_from_slice((*values).as_ref());
        Ok(())
    }

    /// Notes that every item of a hook has been written, and passes on the hooks that waited for it.
    pub fn finish(&mut self, hook: usize) -> Result<(), ForwardError> {
        if hook != self.next {
            return Ok(());
        }
        self.next += 1;
        while let Some(mut values) = self.held.remove(&self.next) {
            self.sink.write(self.next, 0..self.n_items, &mut values).map_err(ForwardError::Sink)?;
            self.next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refusal;

    /// Records the calls.
    #[derive(Default)]
    struct Calls(Vec<(usize, Range<usize>, Vec<f32>)>);

    impl CaptureSink for Calls {
        fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
            self.0.push((hook, items, values.to_vec()));
            Ok(())
        }
    }

    #[test]
    fn a_tensor_that_comes_early_waits_for_those_before_it() {
        let mut calls = Calls::default();
        let mut sink = OrderedSink::new(&mut calls, 2);
        for hook in [1, 2, 0, 3] {
            let value = hook as f32;
            sink.write(hook, 0..1, &mut vec![value]).unwrap();
            sink.write(hook, 1..2, &mut vec![-value]).unwrap();
            sink.finish(hook).unwrap();
            assert_eq!(sink.handed_out(), [3, 0, 0, 4][hook]);
        }
        let hooks: Vec<usize> = calls.0.iter().map(|c| c.0).collect();
        assert_eq!(hooks, [0, 0, 1, 2, 3, 3], "those in order pass straight on, those that waited go at once");
        assert_eq!(calls.0[2], (1, 0..2, vec![1.0, -1.0]));
    }
}
