//! Writes captured values from the recorder into a pack of the store.
//!
//! Encoding, hashing and writing many values takes time in which the cores could compute. If a batch is divided, each
//! sub-batch has a pack writer, which writes while other sub-batches compute. If it is not divided, a separate thread
//! writes, unless the pack is small.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{self, Scope, ScopedJoinHandle},
};

use residuum_model::{CaptureSink, ForwardError, Lent, Refusal};
use residuum_store::{PackWriter, StoreError, SubBatchWriter};

/// Bytes of a pack from which on a thread for writing pays off.
const MANY_BYTES: u64 = 1 << 20;

/// Values that may wait to be written while the forward pass continues. The attention map of a long input has many
/// more, and the pass waits until it is written: two of them in memory would be most of what a server needs beside its
/// weights.
const MAX_WAITING: usize = 8 << 20;

/// Runs `forward`, writes the values that it hands to its sink, and returns the pack.
///
/// # Errors
/// Those of `forward`; those of the pack as [`ForwardError::Sink`] around a [`StoreError`].
pub fn write(
    pack: PackWriter,
    forward: impl FnOnce(&mut dyn CaptureSink) -> Result<(), ForwardError>,
) -> Result<PackWriter, ForwardError> {
    thread::scope(|scope| {
        let is_large = pack.layout().total_bytes() >= MANY_BYTES;
        let pack = Whole(Box::new(pack));
        let mut sink =
            PackSink { scope, mode: if is_large { WriteMode::Undecided(pack) } else { WriteMode::Direct(pack) } };
        let outcome = forward(&mut sink);
        sink.finish(outcome)
    })
}

/// The sink of a whole pack.
struct PackSink<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    mode: WriteMode<'s>,
}

/// How values are written into the pack.
enum WriteMode<'s> {
    /// On the calling thread.
    Direct(Whole),
    /// On a separate thread, unless the batch is divided first.
    Undecided(Whole),
    Piped(Piped, Writer<'s>),
    /// The thread could not be started, and the pack is lost.
    Lost,
}

/// The thread that owns the pack.
type Writer<'s> = ScopedJoinHandle<'s, Result<PackWriter, StoreError>>;

impl<'s> PackSink<'s, '_> {
    /// Where to write the next values. Starts the thread if that has not been decided yet.
    fn sink(&mut self) -> Result<&mut dyn CaptureSink, Refusal> {
        self.mode = match std::mem::replace(&mut self.mode, WriteMode::Lost) {
            WriteMode::Undecided(pack) => {
                let (pieces, to_write) = sync_channel(1);
                let recorder = thread::Builder::new().name("recorder".to_owned());
                let writer = recorder.spawn_scoped(self.scope, move || drain(*pack.0, &to_write))?;
                WriteMode::Piped(Piped::new(pieces), writer)
            }
            decided => decided,
        };
        match &mut self.mode {
            WriteMode::Direct(pack) => Ok(pack),
            WriteMode::Piped(piped, _) => Ok(piped),
            WriteMode::Undecided(_) | WriteMode::Lost => Err(REFUSED.into()),
        }
    }

    /// The pack with everything that was handed over.
    fn finish(self, outcome: Result<(), ForwardError>) -> Result<PackWriter, ForwardError> {
        match self.mode {
            WriteMode::Direct(pack) | WriteMode::Undecided(pack) => outcome.map(|()| *pack.0),
            WriteMode::Lost => outcome.and(Err(ForwardError::Sink(REFUSED.into()))),
            WriteMode::Piped(pieces, writer) => {
                drop(pieces);
                let pack = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                // If the pack refused values, the pass only knows that its sink failed; the pack knows why.
                match (pack, outcome) {
                    (Err(e), Ok(()) | Err(ForwardError::Sink(_))) => Err(ForwardError::Sink(Box::new(e))),
                    (pack, outcome) => outcome.and(pack.map_err(|e| ForwardError::Sink(Box::new(e)))),
                }
            }
        }
    }
}

impl CaptureSink for PackSink<'_, '_> {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.sink()?.write(hook, items, values)
    }

    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        self.sink()?.take(hook, items, values)
    }

    fn split(&mut self, sub_batches: &[Range<usize>]) -> Option<Vec<Box<dyn CaptureSink + '_>>> {
        let (WriteMode::Direct(pack) | WriteMode::Undecided(pack)) = &mut self.mode else { return None };
        Some(pack.0.sub_batches(sub_batches).into_iter().map(|part| Box::new(SubBatch(part)) as _).collect())
    }
}

/// The whole pack, written on the calling thread.
struct Whole(Box<PackWriter>);

impl CaptureSink for Whole {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        Ok(self.0.write(hook, items, values)?)
    }

    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        Ok(self.0.write(hook, items, (*values).as_ref())?)
    }
}

/// The pack writer of one sub-batch.
struct SubBatch<'p>(SubBatchWriter<'p>);

impl CaptureSink for SubBatch<'_> {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        Ok(self.0.write(hook, items, values)?)
    }

    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        Ok(self.0.write(hook, items, (*values).as_ref())?)
    }
}

/// Consecutive items of a hook.
struct Piece {
    hook: usize,
    items: Range<usize>,
    values: Values,
    answer: Answer,
}

/// Reports what became of a piece. If it is dropped unused, the piece was refused or the writing thread is gone.
struct Answer(Option<Sender<Option<Written>>>);

impl Answer {
    fn written(mut self, written: Written) {
        // After the last pieces nobody receives this.
        let _ = self.0.take().map(|done| done.send(Some(written)));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let _ = self.0.take().map(|done| done.send(None));
    }
}

/// Values that wait to be written.
enum Values {
    Own(Vec<f32>),
    Lent(Lent),
}

impl Values {
    fn as_slice(&self) -> &[f32] {
        match self {
            Self::Own(values) => values,
            Self::Lent(values) => (**values).as_ref(),
        }
    }
}

/// Values that have been written: their number, and a buffer to use again.
struct Written(usize, Option<Vec<f32>>);

/// What the pass is told if the pack accepts no more values.
const REFUSED: &str = "the pack was refused";

/// Hands values and their buffer to the writing thread.
struct Piped {
    pieces: SyncSender<Piece>,
    /// Number of values that are not written yet.
    waiting: usize,
    done: Sender<Option<Written>>,
    /// What has been written; `None`: the pack accepts no more values.
    written: Receiver<Option<Written>>,
}

impl Piped {
    fn new(pieces: SyncSender<Piece>) -> Self {
        let (done, written) = channel();
        Self { pieces, waiting: 0, done, written }
    }

    /// Hands values over and waits while too many are unwritten. Returns a buffer to use again, or an empty one.
    fn hand_over(&mut self, hook: usize, items: Range<usize>, values: Values) -> Result<Vec<f32>, Refusal> {
        self.waiting += values.as_slice().len();
        let answer = Answer(Some(self.done.clone()));
        self.pieces.send(Piece { hook, items, values, answer }).map_err(|_| REFUSED)?;
        let mut free = Vec::new();
        loop {
            let written = match self.waiting > MAX_WAITING {
                true => self.written.recv().map_err(|_| REFUSED)?,
                false => match self.written.try_recv() {
                    Ok(written) => written,
                    Err(_) => return Ok(free),
                },
            };
            let Written(n, buffer) = written.ok_or(REFUSED)?;
            self.waiting -= n;
            free = buffer.unwrap_or(free);
        }
    }
}

impl CaptureSink for Piped {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        *values = self.hand_over(hook, items, Values::Own(std::mem::take(values)))?;
        Ok(())
    }

    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        self.hand_over(hook, items, Values::Lent(values))?;
        Ok(())
    }
}

/// Writes pieces until there are no more or one is refused.
fn drain(mut pack: PackWriter, pieces: &Receiver<Piece>) -> Result<PackWriter, StoreError> {
    for Piece { hook, items, values, answer } in pieces {
        let n = values.as_slice().len();
        pack.write(hook, items, values.as_slice())?;
        let buffer = match values {
            Values::Own(buffer) => Some(buffer),
            Values::Lent(_) => None,
        };
        answer.written(Written(n, buffer));
    }
    Ok(pack)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use residuum_domain::{Dtype, PackLayout, Positions, RunId};
    use residuum_store::{
        PackHeader, Store,
        testing::{capture, files, header, item, value},
    };

    const HOOKS: [&str; 2] = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"];

    /// Two inputs, a long one and a short one, with these hooks.
    fn pack_header(n_tokens: u32, positions: Positions, dtype: Dtype, hooks: &[&str]) -> PackHeader {
        let asked = capture(hooks, positions, dtype);
        let ids: Vec<u32> = (0..n_tokens).collect();
        header(RunId::generate(), vec![(0, item(&ids, asked.clone())), (1, item(&[1, 2], asked))])
    }

    /// A pack that is large enough for a writing thread.
    fn large() -> PackHeader {
        let header = pack_header(70_000, Positions::All, Dtype::Float32, &HOOKS);
        assert!(header.layout.total_bytes() > MANY_BYTES);
        header
    }

    /// The values of an item for a hook.
    fn values(layout: &PackLayout, hook: usize, item: usize) -> Vec<f32> {
        layout.elements(hook, item..item + 1).map(|e| value(hook, e)).collect()
    }

    /// Writes every value of a pack, the first item of each hook in pieces of different sizes.
    fn in_pieces(layout: &PackLayout, sink: &mut dyn CaptureSink) -> Result<(), ForwardError> {
        for hook in 0..layout.hooks.len() {
            let first = values(layout, hook, 0);
            let (mut rest, mut lengths) = (first.as_slice(), (1000..).step_by(700));
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rest.len().min(lengths.next().unwrap_or(1)));
                sink.write(hook, 0..1, &mut piece.to_vec()).map_err(ForwardError::Sink)?;
                rest = others;
            }
            sink.take(hook, 1..2, Box::new(values(layout, hook, 1))).map_err(ForwardError::Sink)?;
        }
        Ok(())
    }

    /// As [`in_pieces`], through pack writers: the last item whole, then the others.
    fn in_sub_batches(layout: &PackLayout, sink: &mut dyn CaptureSink) -> Result<(), ForwardError> {
        let mut sub_batches = sink.split(&[0..1, 1..2]).unwrap();
        for (item, sub_batch) in sub_batches.iter_mut().enumerate().rev() {
            for hook in 0..layout.hooks.len() {
                let values = values(layout, hook, item);
                match item {
                    0 => sub_batch.write(hook, 0..1, &mut values.clone()),
                    _ => sub_batch.take(hook, 0..1, Box::new(values)),
                }
                .map_err(ForwardError::Sink)?;
            }
        }
        Ok(())
    }

    /// The blobs in a store's folder, whatever their names.
    fn blobs(folder: &Path) -> Vec<Vec<u8>> {
        files(folder).iter().map(|f| std::fs::read(f).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_thread_and_pack_writers_write_the_same_file_as_the_pack() {
        let with_maps = ["blocks.0.attn.hook_pattern", HOOKS[0], HOOKS[1]];
        for (n_tokens, positions, dtype, hooks, is_large) in [
            (70_000, Positions::All, Dtype::Float32, &HOOKS[..], true),
            (70_000, Positions::All, Dtype::BFloat16, &HOOKS[..], true),
            (600, Positions::All, Dtype::Float16, &with_maps[..], true),
            (140_000, Positions::Mean, Dtype::Float32, &with_maps[..], true),
            (3, Positions::Last, Dtype::BFloat16, &with_maps[..], false),
        ] {
            let header = pack_header(n_tokens, positions, dtype, hooks);
            let layout = &header.layout;
            assert_eq!(layout.total_bytes() >= MANY_BYTES, is_large);
            let mut written = Vec::new();
            for mode in 0..3 {
                let folder = tempfile::tempdir().unwrap();
                let store = Store::open(folder.path()).await.unwrap();
                let mut pack = store.begin_pack(header.clone()).unwrap();
                pack = match mode {
                    0 => {
                        for (hook, item) in (0..hooks.len()).flat_map(|hook| [(hook, 0), (hook, 1)]) {
                            pack.write(hook, item..item + 1, &values(layout, hook, item)).unwrap();
                        }
                        pack
                    }
                    1 => write(pack, |sink| in_pieces(layout, sink)).unwrap(),
                    _ => write(pack, |sink| in_sub_batches(layout, sink)).unwrap(),
                };
                let finished = pack.finish().unwrap();
                written.push(blobs(folder.path()));
                drop(finished);
            }
            assert_eq!(written[0].len(), 1);
            assert!(written.iter().all(|blobs| *blobs == written[0]), "{n_tokens} {dtype:?}: the same file");
        }
    }

    #[tokio::test]
    async fn pack_writers_refuse_other_items_and_wrong_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let header = pack_header(3, Positions::All, Dtype::Float32, &HOOKS);
        let mut pack = store.begin_pack(header.clone()).unwrap();
        let [mut first, mut second] = <[SubBatchWriter<'_>; 2]>::try_from(pack.sub_batches(&[0..1, 1..2])).unwrap();
        let refused = |outcome| assert!(matches!(outcome, Err(StoreError::Misuse(_))), "{outcome:?}");
        refused(first.write(0, 1..2, &values(&header.layout, 0, 1)));
        refused(first.write(1, 0..1, &values(&header.layout, 1, 0)));
        refused(second.write(0, 0..1, &values(&header.layout, 0, 0)));
        second.write(0, 0..1, &values(&header.layout, 0, 1)).unwrap();
        refused(pack.finish().map(drop));
    }

    #[test]
    fn the_pass_waits_while_too_many_values_are_unwritten() {
        let (pieces, to_write) = sync_channel::<Piece>(1);
        let writer = thread::spawn(move || {
            for piece in to_write {
                thread::sleep(Duration::from_millis(2));
                piece.answer.written(Written(piece.values.as_slice().len(), None));
            }
        });
        let mut piped = Piped::new(pieces);
        for (n, left) in [(10, None), (MAX_WAITING / 2, None), (MAX_WAITING + 1, Some(0)), (3, None), (2, None)] {
            piped.take(0, 0..1, Box::new(vec![0.0; n])).unwrap();
            assert!(piped.waiting <= MAX_WAITING && left.is_none_or(|left| piped.waiting == left), "behind {n}");
        }
        drop(piped);
        writer.join().unwrap();
    }

    #[test]
    fn waiting_for_a_writer_that_is_gone_fails() {
        let (pieces, to_write) = sync_channel::<Piece>(1);
        let (began, begun) = channel();
        let writer = thread::spawn(move || {
            let _first = to_write.recv().unwrap();
            begun.recv().unwrap();
            thread::sleep(Duration::from_millis(50));
            panic!("on purpose");
        });
        let mut piped = Piped::new(pieces);
        piped.take(0, 0..1, Box::new(vec![0.0])).unwrap();
        began.send(()).unwrap();
        // waits until both are written
        let refused = piped.take(0, 1..2, Box::new(vec![0.0; MAX_WAITING + 1]));
        assert_eq!(refused.unwrap_err().to_string(), REFUSED);
        assert!(writer.join().is_err());
    }

    #[tokio::test]
    async fn errors_of_the_pack_and_of_the_pass_are_returned() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let begin = || store.begin_pack(large()).unwrap();
        // The mistake is in the second piece; the pass continues until it notices.
        let refused = write(begin(), |sink| {
            for _ in 0..1000 {
                sink.write(0, 0..1, &mut vec![0.0; 8]).map_err(ForwardError::Sink)?;
                sink.write(1, 0..1, &mut vec![0.0; 8]).map_err(ForwardError::Sink)?;
            }
            Ok(())
        });
        let Err(ForwardError::Sink(e)) = refused else { panic!("a hook came out of order") };
        assert!(matches!(e.downcast_ref(), Some(StoreError::Misuse(_))), "{e}");
        let cancelled = write(begin(), |sink| {
            sink.write(0, 0..1, &mut vec![0.0; 8]).map_err(ForwardError::Sink)?;
            Err(ForwardError::Cancelled)
        });
        assert!(matches!(cancelled, Err(ForwardError::Cancelled)));
        let refused = write(begin(), |sink| {
            let mut sub_batches = sink.split(&[0..1, 1..2]).unwrap();
            sub_batches[1].write(1, 0..1, &mut vec![0.0; 8]).map_err(ForwardError::Sink)
        });
        let Err(ForwardError::Sink(e)) = refused else { panic!("a hook of a pack writer came out of order") };
        assert!(matches!(e.downcast_ref(), Some(StoreError::Misuse(_))), "{e}");
        assert!(blobs(folder.path()).is_empty(), "an unfinished pack leaves nothing");
    }

    #[tokio::test]
    async fn a_pass_that_panics_ends_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let pack = store.begin_pack(large()).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let pass = |sink: &mut dyn CaptureSink| {
                sink.write(0, 0..1, &mut vec![0.0; 8]).unwrap();
                panic!("on purpose")
            };
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write(pack, pass)));
            told.send(panicked.is_err())
        });
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(true));
        assert!(blobs(folder.path()).is_empty());
    }
}
