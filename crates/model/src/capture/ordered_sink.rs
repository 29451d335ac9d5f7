//! Hands tensors to the sink in the order of the layout, whatever order they are computed in.

use std::{collections::BTreeMap, ops::Range};

use crate::{CaptureSink, ForwardError, Lent};

/// The way to the sink. A tensor that comes before its turn waits here: in post-norm blocks, whose norms run after what
/// the layout puts behind them, those of one block.
pub struct Outlet<'a> {
    sink: &'a mut dyn CaptureSink,
    n_items: usize,
    /// The hook whose turn it is.
    next: usize,
    /// What has been computed of hooks behind it.
    held: BTreeMap<usize, Vec<f32>>,
}

impl<'a> Outlet<'a> {
    /// A way to `sink` for batches of `n_items`.
    pub fn new(sink: &'a mut dyn CaptureSink, n_items: usize) -> Self {
        Self { sink, n_items, next: 0, held: BTreeMap::new() }
    }

    /// Hooks handed out, from the first on without a gap.
    pub fn handed_out(&self) -> usize {
        self.next
    }

    /// Takes the values of consecutive items of a hook, and maybe the buffer they are in.
    pub fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), ForwardError> {
        if hook == self.next {
            return self.sink.write(hook, items, values).map_err(ForwardError::Sink);
        }
        self.held.entry(hook).or_default().extend_from_slice(values);
        Ok(())
    }

    /// As [`Self::write`], of values in a buffer that is lent.
    pub fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), ForwardError> {
        if hook == self.next {
            return self.sink.take(hook, items, values).map_err(ForwardError::Sink);
        }
        self.held.entry(hook).or_default().extend_from_slice((*values).as_ref());
        Ok(())
    }

    /// Takes note that every item of a hook has been written, and hands out what has waited for that.
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

    /// The calls as they come.
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
        let mut outlet = Outlet::new(&mut calls, 2);
        for hook in [1, 2, 0, 3] {
            let value = hook as f32;
            outlet.write(hook, 0..1, &mut vec![value]).unwrap();
            outlet.write(hook, 1..2, &mut vec![-value]).unwrap();
            outlet.finish(hook).unwrap();
            assert_eq!(outlet.handed_out(), [3, 0, 0, 4][hook]);
        }
        let hooks: Vec<usize> = calls.0.iter().map(|c| c.0).collect();
        assert_eq!(hooks, [0, 0, 1, 2, 3, 3], "those in order pass straight on, those that waited go at once");
        assert_eq!(calls.0[2], (1, 0..2, vec![1.0, -1.0]));
    }
}
