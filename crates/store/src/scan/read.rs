//! Reading the rows of a plan.

use std::{fs::File, os::unix::fs::FileExt};

use super::{PackRows, Piece, RowKey, ScanPlan, ScanReport};
use crate::{blobs::LocalBlobs, error::StoreError};
use residuum_domain::{Dtype, PackId};

/// Windows of one task: a file is opened once for all of them.
const TASK: usize = 32;

impl ScanPlan {
    /// Parts that can be read in parallel.
    #[must_use]
    pub fn n_tasks(&self) -> usize {
        self.windows.len().div_ceil(TASK)
    }

    /// Reads one part on this thread: `visit` gets rows that lie side by side, `[keys, width]` in float32, with their
    /// keys. A row that cannot be read costs its cache and nothing else.
    pub(crate) fn read(&self, blobs: &LocalBlobs, task: usize, mut visit: impl FnMut(&[f32], &[RowKey])) -> ScanReport {
        let mut report = ScanReport::default();
        let mut reader = Reader { blobs, file: None, buffer: Vec::new(), keys: Vec::new() };
        let begin = (task * TASK).min(self.windows.len());
        for window in &self.windows[begin..(begin + TASK).min(self.windows.len())] {
            let (pack, pieces) = (&self.packs[window.pack], &self.pieces[window.pieces.clone()]);
            let error = match reader.window(pack, window.start, window.len, pieces, &mut visit, &mut report) {
                Ok(()) => continue,
                Err(StoreError::Gone) => {
                    report.deleted.extend(pieces.iter().map(|piece| piece.cache));
                    continue;
                }
                Err(error) => error,
            };
            // A file that is gone or short: what is left of it is read piece by piece.
            tracing::warn!(%error, "rows could not be read in a search");
            for piece in pieces {
                let len = piece.n_rows as usize * pack.row_bytes();
                let alone = std::slice::from_ref(piece);
                if reader.window(pack, piece.offset, len, alone, &mut visit, &mut report).is_err() {
                    report.unread.push(piece.cache);
                }
            }
        }
        report
    }
}

struct Reader<'a> {
    blobs: &'a LocalBlobs,
    file: Option<(PackId, File)>,
    /// Floats, so that float32 rows are read in place: every row of a blob begins at a multiple of its element's size.
    buffer: Vec<f32>,
    keys: Vec<RowKey>,
}

impl Reader<'_> {
    fn window(
        &mut self,
        pack: &PackRows,
        start: u64,
        len: usize,
        pieces: &[Piece],
        visit: &mut impl FnMut(&[f32], &[RowKey]),
        report: &mut ScanReport,
    ) -> Result<(), StoreError> {
        self.fill(pack.id, start, len)?;
        let row_bytes = pack.row_bytes();
        let end_of = |piece: &Piece| piece.offset + u64::from(piece.n_rows) * row_bytes as u64;
        let bytes: &[u8] = &bytemuck::cast_slice(&self.buffer)[..len];
        for run in pieces.chunk_by(|a, b| end_of(a) == b.offset) {
            self.keys.clear();
            for piece in run {
                let key = |i| (piece.cache, piece.position.map(|p| p + i));
                self.keys.extend((0..piece.n_rows).map(key));
            }
            // inside the window, which the buffer holds
            let from = (run[0].offset - start) as usize;
            let bytes = &bytes[from..from + self.keys.len() * row_bytes];
            match bytemuck::try_cast_slice(bytes) {
                Ok(rows) if pack.dtype == Dtype::Float32 && cfg!(target_endian = "little") => visit(rows, &self.keys),
                _ => visit(&pack.dtype.decode(bytes), &self.keys),
            }
            report.n_rows += self.keys.len() as u64;
            report.n_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    fn fill(&mut self, pack: PackId, start: u64, len: usize) -> Result<(), StoreError> {
        if self.file.as_ref().is_none_or(|(open, _)| *open != pack) {
            self.file = Some((pack, self.blobs.file(pack)?));
        }
        let floats = len.div_ceil(size_of::<f32>());
        if self.buffer.len() < floats {
            self.buffer.resize(floats, 0.0);
        }
        let Some((_, file)) = &self.file else { return Err(StoreError::Closed) };
        let bytes = &mut bytemuck::cast_slice_mut(&mut self.buffer)[..len];
        file.read_exact_at(bytes, start).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => StoreError::damaged(format!("the file of pack {pack} is too short")),
            _ => StoreError::io(format_args!("reading pack {pack}"))(e),
        })
    }
}
