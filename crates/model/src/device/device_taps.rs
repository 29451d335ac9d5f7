//! Hook points whose tensors are on the device.
//!
//! The rows asked for are gathered there, all inputs in one launch, and copied while the next layers are computed. What waits
//! to be handed out is bounded. Interventions run on the CPU, on the rows they touch and no others.

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

/// Values copied at once: of a larger tensor the rows are computed and copied as many at a time.
const PIECE_VALUES: usize = 16 << 20;

/// Values that may wait on their way from the device.
const WAITING_VALUES: usize = 32 << 20;

/// Computes part of an attention map, given the interventions and the rows of the queries in their buffer: `[heads, rows,
/// keys]`.
pub type ComputeMap<'f, 'a> =
    &'f mut dyn FnMut(Option<&Editor<'a>>, &MapPart<'_>, &[u32]) -> candle_core::Result<Vec<f32>>;

/// The hook points of one batch.
pub struct DeviceTaps<'t, 'a> {
    taps: &'t mut Taps<'a>,
    packing: &'t Packing,
    device: Device,
    copies: &'t Copies,
    /// For both sets, the rows to keep of every input, one after the other.
    picked: [Option<Tensor>; 2],
    waiting: VecDeque<Waiting>,
    waiting_values: usize,
    /// Hooks recorded or on their way.
    taken: usize,
}

/// Rows on their way to the recorder.
struct Waiting {
    hook: Hook,
    width: usize,
    set: RowSet,
    /// Whether interventions are still to be carried out.
    unedited: bool,
    copy: Pending,
}

impl<'t, 'a> DeviceTaps<'t, 'a> {
    /// The hook points of `taps`, for tensors on `device`.
    pub fn new(taps: &'t mut Taps<'a>, packing: &'t Packing, device: &Device, copies: &'t Copies) -> Self {
        Self {
            // What the embedding has recorded.
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

    /// Whether anyone looks at `hook` or changes something there.
    pub fn wants(&self, hook: Hook) -> bool {
        self.taps.wants(hook)
    }

    /// Whether something is changed at `hook`.
    pub fn edits(&self, hook: Hook) -> bool {
        self.taps.edits(hook)
    }

    /// The interventions, where there are any.
    pub fn editor(&self) -> Option<&Editor<'a>> {
        self.taps.editor()
    }

    /// Whether everything asked for has been recorded or is on its way.
    pub fn done(&self) -> bool {
        self.taken == self.taps.n_hooks()
    }

    /// Whether nothing behind the block that ends with `hook` was asked for.
    pub fn done_after(&self, hook: Hook) -> bool {
        self.taps.done_after(hook)
    }

    /// `values` `[rows, width]` or `[rows]`, whose rows are those of `set`, pass `hook`: interventions change them, then they are
    /// recorded.
    pub fn tap(&mut self, hook: Hook, values: &mut Tensor, set: RowSet) -> Result<(), ForwardError> {
        if !self.wants(hook) {
            return Ok(());
        }
        let width = values.elem_count() / values.dim(0)?.max(1);
        if let Some(editor) = self.editor().filter(|e| e.edits(hook)) {
            // None, where what is changed is not among the rows that go on.
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

    /// Records a tensor that is computed row by row, for the rows asked for only, each changed first. `compute` gives
    /// `[rows, width]` for the indices of rows of the buffer it computes from.
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
        if n_rows * width <= PIECE_VALUES {
            let copy = self.copies.start(&compute(&picked)?)?;
            self.waiting.push_back(Waiting { hook, width, set, unedited, copy });
            self.waiting_values += n_rows * width;
            // What has arrived is handed out while the device computes what it was told before.
            while self.waiting.front().is_some_and(|next| next.copy.is_done()) {
                self.hand_out_next()?;
            }
            return self.hand_out(WAITING_VALUES);
        }
        self.hand_out(0)?;
        let step = (PIECE_VALUES / width).max(1);
        let mut pieces = (0..n_rows).step_by(step).map(|first| (first, step.min(n_rows - first)));
        let copies = self.copies;
        let mut start = || {
            let piece = pieces.next().map(|(first, n)| copies.start(&compute(&picked.narrow(0, first, n)?)?));
            piece.transpose()
        };
        // One piece is on its way while the one before it is handed out.
        let mut next = start()?;
        feed(self.taps, hook, width, set, unedited, &mut || {
            let piece = next.take().map(Pending::wait).transpose()?;
            next = start()?;
            Ok(piece)
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
        self.hand_out(0)?;
        self.taken += 1;
        let mut failure = None;
        self.taps.map(hook, heads, set, &mut |editor, part, rows, out| {
            // behind an error nothing is asked of the device any more
            if failure.is_none() {
                match compute(editor, part, rows) {
                    Ok(values) => out.copy_from_slice(&values),
                    Err(e) => failure = Some(e),
                }
            }
        })?;
        failure.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Hands out what waits, the oldest first, until at most `keep` values do.
    fn hand_out(&mut self, keep: usize) -> Result<(), ForwardError> {
        while !self.waiting.is_empty() && (keep == 0 || self.waiting_values > keep) {
            self.hand_out_next()?;
        }
        Ok(())
    }

    /// Hands out what has waited longest.
    fn hand_out_next(&mut self) -> Result<(), ForwardError> {
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

    /// Hands out everything.
    pub fn finish(mut self) -> Result<(), ForwardError> {
        self.hand_out(0)
    }

    /// Whether every row of `set` is kept, in order.
    fn picks_all(&self, set: RowSet) -> bool {
        let selection = self.packing.of(set);
        let mut kept = selection.picked.iter().flat_map(rows_of).copied();
        let in_order = (0..index(selection.positions.len())).all(|row| kept.next() == Some(row));
        in_order && kept.next().is_none()
    }

    /// The rows to keep, as one list.
    fn pick(&mut self, set: RowSet) -> candle_core::Result<Tensor> {
        let held = &mut self.picked[set.index()];
        if let Some(held) = held {
            return Ok(held.clone());
        }
        let rows: Vec<u32> = self.packing.of(set).picked.iter().flat_map(rows_of).copied().collect();
        Ok(held.insert(Tensor::from_slice(&rows, rows.len(), &self.device)?).clone())
    }

    /// Some rows of `values`, on the CPU.
    pub fn pull(&self, values: &Tensor, rows: &[u32]) -> Result<Vec<f32>, ForwardError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let index = Tensor::from_slice(rows, rows.len(), &self.device)?;
        Ok(whole(&values.index_select(&index, 0)?)?)
    }

    /// `values` with other numbers in some rows.
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

/// The rows that are kept of an input, or whose mean is.
fn rows_of(picked: &Picked) -> &[u32] {
    match picked {
        Picked::Rows(rows) | Picked::Mean(rows) => rows,
    }
}

/// Gives the recorder the rows of a hook as `more` brings them, in order, until it brings none.
fn feed(
    taps: &mut Taps<'_>,
    hook: Hook,
    width: usize,
    set: RowSet,
    unedited: bool,
    more: &mut dyn FnMut() -> candle_core::Result<Option<Landed>>,
) -> Result<(), ForwardError> {
    let (mut piece, mut at, mut failure) = (Landed::Vec(Vec::new()), 0, None);
    let mut fill = |mut out: &mut [f32]| {
        while !out.is_empty() {
            if at == piece.as_ref().len() {
                (piece, at) = (more()?.ok_or_else(|| candle_core::Error::msg("too few rows"))?, 0);
                continue;
            }
            let values = &piece.as_ref()[at..];
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
    if failure.is_none() && at != piece.as_ref().len() {
        failure = Some(candle_core::Error::msg("too many rows"));
    }
    failure.map_or(Ok(()), |e: candle_core::Error| Err(e.into()))
}
