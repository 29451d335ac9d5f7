//! What happens at a hook point: interventions change the values, then the recorder takes them.

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

/// As [`ComputeMap`], and gets the interventions to carry out itself.
type ComputeChangedMap<'f, 'a> = &'f mut dyn FnMut(Option<&Editor<'a>>, &MapPart<'_>, &[u32], &mut [f32]);

/// The hook points of one batch. One that nobody asked for costs a look-up.
pub struct Taps<'a> {
    editor: Option<Editor<'a>>,
    recorder: Recorder<'a>,
}

impl<'a> Taps<'a> {
    /// The hook points of `batch`, recorded to `sink`.
    pub fn new(batch: &Batch<'a>, packing: &'a Packing, sink: &'a mut dyn CaptureSink) -> Self {
        Self { editor: Editor::new(batch, packing), recorder: Recorder::new(batch.layout, packing, sink) }
    }

    /// Whether anyone looks at `hook` or changes something there.
    pub fn wants(&self, hook: Hook) -> bool {
        self.recorder.wants(hook) || self.edits(hook)
    }

    /// Whether something is changed at `hook`.
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

    /// Whether nothing behind the block that ends with `hook` was asked for.
    pub fn done_after(&self, hook: Hook) -> bool {
        self.recorder.done_after(hook)
    }

    /// Whether `hook` is recorded.
    pub fn records(&self, hook: Hook) -> bool {
        self.recorder.wants(hook)
    }

    /// Hooks to record.
    pub fn n_hooks(&self) -> usize {
        self.recorder.n_hooks()
    }

    /// Hooks recorded.
    pub fn n_taken(&self) -> usize {
        self.recorder.n_taken()
    }

    /// A buffer whose rows are those of `set` passes `hook`.
    pub fn tap(&mut self, hook: Hook, values: &mut [f32], set: RowSet) -> Result<(), ForwardError> {
        if let Some(editor) = &self.editor {
            editor.rows(hook, values, set);
        }
        self.recorder.tap(hook, values, set)
    }

    /// Records a tensor that is computed row by row, for the rows asked for only, each changed first.
    pub fn compute(&mut self, hook: Hook, width: usize, set: RowSet, compute: Compute<'_>) -> Result<(), ForwardError> {
        self.record(hook, width, set, true, compute)
    }

    /// As [`Self::compute`]; the rows are changed only where they are `unedited`.
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

    /// Whether what is kept of every input is rows of `set` themselves, not a mean of them.
    pub fn keeps_rows(&self, set: RowSet) -> bool {
        self.recorder.keeps_rows(set)
    }

    /// Records the rows to keep of a hook as they are: those of every input, one after the other, changed before.
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
