//! Decides when and how to spread work over the rayon pool, and keeps scratch memory per thread.

use std::cell::Cell;

use rayon::prelude::*;

use super::simd::Line;

/// Nanoseconds of work below which waking another thread costs more than it saves.
const WORTH_A_TASK: usize = 10_000;

/// Number of tasks for work of about `nanoseconds`: one if it is small, else several for each thread, so that a thread that
/// starts late takes fewer.
pub fn tasks(nanoseconds: usize) -> usize {
    let threads = rayon::current_num_threads();
    if threads == 1 { 1 } else { (nanoseconds / WORTH_A_TASK).clamp(1, 4 * threads) }
}

/// Number of rows in each task, for work of about `nanoseconds` on `rows` rows; at least one.
pub fn rows_of_a_task(rows: usize, nanoseconds: usize) -> usize {
    rows.div_ceil(tasks(nanoseconds)).max(1)
}

/// Copies numbers, on several cores if there are many: a single core reads memory more slowly than a GPU writes it.
pub fn copy(to: &mut [f32], from: &[f32]) {
    const PART: usize = 1 << 18;
    if to.len() <= PART {
        return to.copy_from_slice(from);
    }
    to.par_chunks_mut(PART).zip(from.par_chunks(PART)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// A pointer that tasks share to write disjoint parts of one buffer.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32);

// SAFETY: a plain address; who dereferences it answers for writing only his own part.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr())
    }
    pub fn get(self) -> *mut f32 {
        self.0
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `floats` floats of scratch memory with arbitrary contents. The thread keeps the buffer for the next call.
///
/// The buffer is taken out while it is in use: a thread that waits in rayon may run another task of the same kind, which
/// then gets its own buffer.
pub fn with_scratch<T>(floats: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut lines = SCRATCH.take();
    let needed = floats.div_ceil(super::simd::LANES);
    if lines.len() < needed {
        lines.resize(needed, Line::ZERO);
    }
    let out = f(&mut super::simd::as_floats_mut(&mut lines)[..floats]);
    SCRATCH.set(lines);
    out
}
