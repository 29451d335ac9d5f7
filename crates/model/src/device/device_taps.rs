//! The hook points of a forward pass on a device.
//!
//! The rows that are asked for are gathered on the device, for all inputs in one launch, and copied while the next layers run. The
//! number of values that wait for a copy is bounded. Interventions run on the CPU, and only the rows they touch are copied for them.

use std::collections::VecDeque;

use candle_core::{Device, Tensor};

use super::copies::{Copies, Landed, Pending, whole};
use crate::{
    ForwardError,
    capture::{editor::Editor, map_part::MapPart, taps::Taps},
    ops::parallel::copy,
    packing::{Packing, Picked, RowSet, index},
};
use residuum_domain::Hook;

/// Largest number of values in one copy. The rows of a larger tensor are computed and copied in chunks.
const CHUNK_VALUES: usize = 16 << 20;

/// Largest number of values whose copies may be pending.
const WAITING_VALUES: usize = 32 << 20;

/// Computes part of an attention map, `[heads, rows, keys]`. Arguments: the interventions, the part, and the rows of its queries in
/// the query buffer.
pub type ComputeMap<'f, 'a> =
    &'f mut dyn FnMut(Option<&Editor<'a>>, &MapPart<'_>, &[u32]) -> candle_core::Result<Vec<f32>>;

/// The hook points of one batch.
pub struct DeviceTaps<'t, 'a> {
    taps: &'t mut Taps<'a>,
    packing: &'t Packing,
    device: Device,
    copies: &'t Copies,
    /// For each set, the rows that are kept, of all inputs in order.
    picked: [Option<Tensor>; 2],
    waiting: VecDeque<Waiting>,
    waiting_values: usize,
    /// Number of hooks that are recorded or pending.
    taken: usize,
}

/// Rows whose copy is pending.
struct Waiting {
    hook: Hook,
    width: usize,
    set: RowSet,
    /// Whether interventions have yet to be applied.
    unedited: bool,
    copy: Pending,
}

impl<'t, 'a> DeviceTaps<'t, 'a> {
    /// The hook points of `taps`, for tensors on `device`.
    pub fn new(taps: &'t mut Taps<'a>, packing: &'t Packing, device: &Device, copies: &'t Copies) -> Self {
        Self {
            // Hooks of the embedding are recorded already.
            taken: taps.n_taken(),
            taps,
            packing,
            device: device.clone(),
            copies,
            picked: [None, None],
            waiting: VecDeque::new(),
            waiting_values: 0,
        }
    }

    /// Whether `hook` is recorded or changed.
    pub fn wants(&self, hook: Hook) -> bool {
        self.taps.wants(hook)
    }

    /// Whether an intervention changes something at `hook`.
    pub fn edits(&self, hook: Hook) -> bool {
        self.taps.edits(hook)
    }

    /// The interventions, where there are any.
    pub fn editor(&self) -> Option<&Editor<'a>> {
        self.taps.editor()
    }

    /// Whether everything asked for is recorded or pending.
    pub fn done(&self) -> bool {
        self.taken == self.taps.n_hooks()
    }

    /// Whether no hook after `hook`, the last one of a block, was asked for.
    pub fn done_after(&self, hook: Hook) -> bool {
        self.taps.done_after(hook)
    }

    /// The values at `hook`, `[rows, width]` or `[rows]`, with the rows of `set`: interventions change them, then they are
    /// recorded.
    pub fn tap(&mut self, hook: Hook, values: &mut Tensor, set: RowSet) -> Result<(), ForwardError> {
        if !self.wants(hook) {
            return Ok(());
        }
        let width = values.elem_count() / values.dim(0)?.max(1);
        if let Some(editor) = self.editor().filter(|e| e.edits(hook)) {
            // This is empty if the rows that are changed are not in the set.
            let rows = editor.touched(&[hook], set);
            let mut changed = self.pull(values, &rows)?;
            editor.some_rows(hook, &rows, &mut changed, set);
            *values = self.replace(values, &rows, changed)?;
        }
        let (values, all) = (&*values, self.picks_all(set));
        self.record(hook, width, set, false, &mut |rows| match all && rows.dim(0)? == values.dim(0)? {
            true => values.contiguous(),
            false => values.index_select(rows, 0),
        })
    }

    /// Records a tensor that is computed row by row, for the rows that are asked for only. Interventions change each row first.
    /// `compute` returns `[rows, width]` for given indices of rows in the buffer it computes from.
    pub fn compute(
        &mut self,
        hook: Hook,
        width: usize,
        set: RowSet,
        compute: &mut dyn FnMut(&Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<(), ForwardError> {
        self.record(hook, width, set, self.edits(hook), compute)
    }

    fn record(
        &mut self,
        hook: Hook,
        width: usize,
        set: RowSet,
        unedited: bool,
        compute: &mut dyn FnMut(&Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<(), ForwardError> {
        if !self.taps.records(hook) {
            return Ok(());
        }
        self.taken += 1;
        let picked = self.pick(set)?;
        let n_rows = picked.dim(0)?;
        if n_rows * width <= CHUNK_VALUES {
            let copy = self.copies.start(&compute(&picked)?)?;
            self.waiting.push_back(Waiting { hook, width, set, unedited, copy });
            self.waiting_values += n_rows * width;
            // Pass on what has arrived, while the device works on what is queued.
            while self.waiting.front().is_some_and(|next| next.copy.is_done()) {
                self.deliver_next()?;
            }
            return self.deliver(WAITING_VALUES);
        }
        self.deliver(0)?;
        let step = (CHUNK_VALUES / width).max(1);
        let mut chunks = (0..n_rows).step_by(step).map(|first| (first, step.min(n_rows - first)));
        let copies = self.copies;
        let mut start = || {
            let chunk = chunks.next().map(|(first, n)| copies.start(&compute(&picked.narrow(0, first, n)?)?));
            chunk.transpose()
        };
        // The next chunk is copied while the one before it is passed on.
        let mut next = start()?;
        feed(self.taps, hook, width, set, unedited, &mut || {
            let chunk = next.take().map(Pending::wait).transpose()?;
            next = start()?;
            Ok(chunk)
        })
    }

    /// Records an attention map `[heads, rows, keys]`, input by input.
    pub fn map(
        &mut self,
        hook: Hook,
        heads: usize,
        set: RowSet,
        compute: ComputeMap<'_, 'a>,
    ) -> Result<(), ForwardError> {
        if !self.taps.records(hook) {
            return Ok(());
        }
        self.deliver(0)?;
        self.taken += 1;
        let mut failure = None;
        self.taps.map(hook, heads, set, &mut |editor, part, rows, out| {
            // after an error, the device is not called again
            if failure.is_none() {
                match compute(editor, part, rows) {
                    Ok(values) => out.copy_from_slice(&values),
                    Err(e) => failure = Some(e),
                }
            }
        })?;
        failure.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Waits for pending copies and passes them on, the oldest first, until at most `keep` values are pending.
    fn deliver(&mut self, keep: usize) -> Result<(), ForwardError> {
        while !self.waiting.is_empty() && (keep == 0 || self.waiting_values > keep) {
            self.deliver_next()?;
        }
        Ok(())
    }

    /// Waits for the oldest pending copy and passes it on.
    fn deliver_next(&mut self) -> Result<(), ForwardError> {
        let Some(Waiting { hook, width, set, unedited, copy }) = self.waiting.pop_front() else { return Ok(()) };
        let landed = copy.wait()?;
        let n_values = landed.as_ref().len();
        self.waiting_values -= n_values;
        if !unedited && self.taps.keeps_rows(set) && n_values == self.pick(set)?.dim(0)? * width {
            return self.taps.take(hook, Box::new(landed));
        }
        let mut landed = Some(landed);
        feed(self.taps, hook, width, set, unedited, &mut || Ok(landed.take()))
    }

    /// Waits for all pending copies and passes them on.
    pub fn finish(mut self) -> Result<(), ForwardError> {
        self.deliver(0)
    }

    /// Whether every row of `set` is kept, in order.
    fn picks_all(&self, set: RowSet) -> bool {
        let selection = self.packing.of(set);
        let mut kept = selection.picked.iter().flat_map(rows_of).copied();
        let in_order = (0..index(selection.positions.len())).all(|row| kept.next() == Some(row));
        in_order && kept.next().is_none()
    }

    /// The rows that are kept, of all inputs in order.
    fn pick(&mut self, set: RowSet) -> candle_core::Result<Tensor> {
        let held = &mut self.picked[set.index()];
        if let Some(held) = held {
            return Ok(held.clone());
        }
        let rows: Vec<u32> = self.packing.of(set).picked.iter().flat_map(rows_of).copied().collect();
        Ok(held.insert(Tensor::from_slice(&rows, rows.len(), &self.device)?).clone())
    }

    /// Copies some rows of `values` to the CPU.
    pub fn pull(&self, values: &Tensor, rows: &[u32]) -> Result<Vec<f32>, ForwardError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let index = Tensor::from_slice(rows, rows.len(), &self.device)?;
        Ok(whole(&values.index_select(&index, 0)?)?)
    }

    /// `values`, with some rows replaced.
    pub fn replace(&self, values: &Tensor, rows: &[u32], with: Vec<f32>) -> Result<Tensor, ForwardError> {
        if rows.is_empty() {
            return Ok(values.clone());
        }
        let n = values.dim(0)?;
        let mut shape = values.dims().to_vec();
        shape[0] = rows.len();
        let changed = Tensor::from_vec(with, shape, &self.device)?;
        let mut places: Vec<u32> = (0..index(n)).collect();
        rows.iter().zip(index(n)..).for_each(|(row, at)| places[*row as usize] = at);
        let places = Tensor::from_vec(places, n, &self.device)?;
        Ok(Tensor::cat(&[values, &changed], 0)?.index_select(&places, 0)?)
    }
}

/// The rows of an input that are kept, or whose mean is kept.
fn rows_of(picked: &Picked) -> &[u32] {
    match picked {
        Picked::Rows(rows) | Picked::Mean(rows) => rows,
    }
}

/// Passes the rows of a hook to the recorder, in order. `more` returns the next chunk of them, and `None` after the last.
fn feed(
    taps: &mut Taps<'_>,
    hook: Hook,
    width: usize,
    set: RowSet,
    unedited: bool,
    more: &mut dyn FnMut() -> candle_core::Result<Option<Landed>>,
) -> Result<(), ForwardError> {
    let (mut chunk, mut at, mut failure) = (Landed::Vec(Vec::new()), 0, None);
    let mut fill = |mut out: &mut [f32]| {
        while !out.is_empty() {
            if at == chunk.as_ref().len() {
                (chunk, at) = (more()?.ok_or_else(|| candle_core::Error::msg("too few rows"))?, 0);
                continue;
            }
            let values = &chunk.as_ref()[at..];
            let n = out.len().min(values.len());
            let (head, rest) = out.split_at_mut(n);
            copy(head, &values[..n]);
            (out, at) = (rest, at + n);
        }
        Ok(())
    };
    taps.record(hook, width, set, unedited, &mut |_, out| {
        if failure.is_none() {
            failure = fill(out).err();
        }
    })?;
    if failure.is_none() && at != chunk.as_ref().len() {
        failure = Some(candle_core::Error::msg("too many rows"));
    }
    failure.map_or(Ok(()), |e: candle_core::Error| Err(e.into()))
}
