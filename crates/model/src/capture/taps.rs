//! The hook points of a forward pass on the CPU: at each, interventions change the values, then the recorder takes them.

use super::{
    editor::Editor,
    map_part::MapPart,
    recorder::{Compute, ComputeMap, Recorder},
};
use crate::{
    Batch, CaptureSink, ForwardError, Lent,
    packing::{Packing, RowSet},
};
use residuum_domain::Hook;

/// As [`ComputeMap`], and applies the interventions itself.
type ComputeChangedMap<'f, 'a> = &'f mut dyn FnMut(Option<&Editor<'a>>, &MapPart<'_>, &[u32], &mut [f32]);

/// The hook points of one batch. A hook that nobody asked for costs one look-up.
pub struct Taps<'a> {
    editor: Option<Editor<'a>>,
    recorder: Recorder<'a>,
}

impl<'a> Taps<'a> {
    /// The hook points of `batch`, recorded to `sink`.
    pub fn new(batch: &Batch<'a>, packing: &'a Packing, sink: &'a mut dyn CaptureSink) -> Self {
        Self { editor: Editor::new(batch, packing), recorder: Recorder::new(batch.layout, packing, sink) }
    }

    /// Whether `hook` is recorded or changed.
    pub fn wants(&self, hook: Hook) -> bool {
        self.recorder.wants(hook) || self.edits(hook)
    }

    /// Whether an intervention changes something at `hook`.
    pub fn edits(&self, hook: Hook) -> bool {
        self.editor.as_ref().is_some_and(|e| e.edits(hook))
    }

    /// The interventions, where there are any.
    pub fn editor(&self) -> Option<&Editor<'a>> {
        self.editor.as_ref()
    }

    /// Whether everything asked for has been recorded.
    pub fn done(&self) -> bool {
        self.recorder.done()
    }

    /// Whether no hook after `hook`, the last one of a block, was asked for.
    pub fn done_after(&self, hook: Hook) -> bool {
        self.recorder.done_after(hook)
    }

    /// Whether `hook` is recorded.
    pub fn records(&self, hook: Hook) -> bool {
        self.recorder.wants(hook)
    }

    /// Number of hooks to record.
    pub fn n_hooks(&self) -> usize {
        self.recorder.n_hooks()
    }

    /// Number of hooks recorded.
    pub fn n_taken(&self) -> usize {
        self.recorder.n_taken()
    }

    /// The values at `hook`, with the rows of `set`: interventions change them in place, then they are recorded.
    pub fn tap(&mut self, hook: Hook, values: &mut [f32], set: RowSet) -> Result<(), ForwardError> {
        if let Some(editor) = &self.editor {
            editor.rows(hook, values, set);
        }
        self.recorder.tap(hook, values, set)
    }

    /// Records a tensor that is computed row by row, for the rows that are asked for only. Interventions change each row first.
    pub fn compute(&mut self, hook: Hook, width: usize, set: RowSet, compute: Compute<'_>) -> Result<(), ForwardError> {
        self.record(hook, width, set, true, compute)
    }

    /// As [`Self::compute`], but applies interventions only if the rows are `unedited`.
    pub fn record(
        &mut self,
        hook: Hook,
        width: usize,
        set: RowSet,
        unedited: bool,
        compute: Compute<'_>,
    ) -> Result<(), ForwardError> {
        let Self { editor, recorder } = self;
        let editor = editor.as_ref().filter(|_| unedited);
        recorder.compute(hook, width, set, &mut |rows, out| {
            compute(rows, out);
            if let Some(editor) = editor {
                editor.some_rows(hook, rows, out, set);
            }
        })
    }

    /// Whether rows of `set` themselves are kept of every input, not their mean.
    pub fn keeps_rows(&self, set: RowSet) -> bool {
        self.recorder.keeps_rows(set)
    }

    /// Records a hook whose kept rows, of all inputs in order, are in `values` already, after interventions.
    pub fn take(&mut self, hook: Hook, values: Lent) -> Result<(), ForwardError> {
        self.recorder.take(hook, values)
    }

    /// Records an attention map, input by input.
    pub fn map(
        &mut self,
        hook: Hook,
        heads: usize,
        set: RowSet,
        compute: ComputeChangedMap<'_, 'a>,
    ) -> Result<(), ForwardError> {
        let Self { editor, recorder } = self;
        let compute: ComputeMap<'_> = &mut |part, rows, out| compute(editor.as_ref(), part, rows, out);
        recorder.map(hook, heads, set, compute)
    }
}
