//! The store's pack as the recorder sees it.
//!
//! Encoding, hashing and writing many values take a while in which the cores could compute, so they have a thread of their own
//! where there are many.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use crate::{
    model::{CaptureSink, ForwardError, Lent},
    store::{PackWriter, StoreError},
};

type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a pack from which on a thread pays.
const MANY_BYTES: u64 = 1 << 20;

/// Values that may wait to be written while the pass goes on. An attention map of a long input has many more: the pass waits
/// for it, since two of them at once would be most of the memory that a server needs beside its weights.
const MAX_WAITING: usize = 8 << 20;

/// Writes what `forward` hands to its sink, and gives the pack back.
///
/// # Errors
/// Those of `forward`; of the pack as [`ForwardError::Sink`], with a [`StoreError`] in it.
pub fn write(
    pack: PackWriter,
    forward: impl FnOnce(&mut dyn CaptureSink) -> Result<(), ForwardError>,
) -> Result<PackWriter, ForwardError> {
    if pack.layout().total_bytes() < MANY_BYTES {
        return directly(pack, forward);
    }
    through_a_thread(pack, forward)
}

fn directly(
    pack: PackWriter,
    forward: impl FnOnce(&mut dyn CaptureSink) -> Result<(), ForwardError>,
) -> Result<PackWriter, ForwardError> {
    let pack = Mutex::new(pack);
    forward(&mut Direct { pack: &pack, first_item: 0 })?;
    Ok(pack.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn through_a_thread(
    pack: PackWriter,
    forward: impl FnOnce(&mut dyn CaptureSink) -> Result<(), ForwardError>,
) -> Result<PackWriter, ForwardError> {
    let (pieces, to_write) = sync_channel(1);
    thread::scope(|scope| {
        let name = "recorder".to_owned();
        let writer = thread::Builder::new().name(name).spawn_scoped(scope, move || drain(pack, &to_write));
        let writer = writer.map_err(|e| ForwardError::Sink(Box::new(e)))?;
        let outcome = forward(&mut Piped::new(pieces, Arc::default(), 0));
        let pack = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Of a pack that was refused, the pass only knows that nobody took more.
        match (pack, outcome) {
            (Err(e), Ok(()) | Err(ForwardError::Sink(_))) => Err(ForwardError::Sink(Box::new(e))),
            (pack, outcome) => outcome.and(pack.map_err(|e| ForwardError::Sink(Box::new(e)))),
        }
    })
}

/// Items of a lane as the pack counts them.
fn shifted(items: Range<usize>, first_item: usize) -> Range<usize> {
    items.start + first_item..items.end + first_item
}

/// Writes on the caller's thread.
struct Direct<'p> {
    pack: &'p Mutex<PackWriter>,
    first_item: usize,
}

impl Direct<'_> {
    fn put(&self, hook: usize, items: Range<usize>, values: &[f32]) -> Result<(), Refusal> {
        let mut pack = self.pack.lock().unwrap_or_else(PoisonError::into_inner);
        pack.write(hook, shifted(items, self.first_item), values).map_err(Into::into)
    }
}

impl CaptureSink for Direct<'_> {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.put(hook, items, values)
    }

    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        self.put(hook, items, (*values).as_ref())
    }

    fn lane(&self, first_item: usize) -> Option<Box<dyn CaptureSink + '_>> {
        Some(Box::new(Self { pack: self.pack, first_item: self.first_item + first_item }))
    }
}

/// Consecutive items of a hook.
struct Piece {
    hook: usize,
    items: Range<usize>,
    values: Values,
    answer: Answer,
}

/// Tells what became of a piece; one that was dropped was refused, or its writer is gone.
struct Answer(Option<Sender<Option<Written>>>);

impl Answer {
    fn written(mut self, written: Written) {
        // The last ones find nobody who waits for them.
        let _ = self.0.take().map(|done| done.send(Some(written)));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let _ = self.0.take().map(|done| done.send(None));
    }
}

/// Where values are that wait to be written.
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

/// Values that have been written: how many, and the buffer that can be used again.
struct Written(usize, Option<Vec<f32>>);

/// What the pass is told where nobody takes more.
const REFUSED: &str = "the pack was refused";

/// Hands the values over, with the buffer they are in.
struct Piped {
    pieces: SyncSender<Piece>,
    first_item: usize,
    /// Values of all lanes that have not been written.
    waiting: Arc<AtomicUsize>,
    /// Of these, the ones that came from here.
    own: usize,
    done: Sender<Option<Written>>,
    /// What has been written; `None`: nobody takes more.
    written: Receiver<Option<Written>>,
}

impl Piped {
    fn new(pieces: SyncSender<Piece>, waiting: Arc<AtomicUsize>, first_item: usize) -> Self {
        let (done, written) = channel();
        Self { pieces, first_item, waiting, own: 0, done, written }
    }

    /// Hands values over, waits while too much is not written, and gives a buffer that is free, or an empty one.
    fn hand_over(&mut self, hook: usize, items: Range<usize>, values: Values) -> Result<Vec<f32>, Refusal> {
        let n = values.as_slice().len();
        self.own += n;
        self.waiting.fetch_add(n, Ordering::Relaxed);
        let (items, answer) = (shifted(items, self.first_item), Answer(Some(self.done.clone())));
        self.pieces.send(Piece { hook, items, values, answer }).map_err(|_| REFUSED)?;
        let mut free = Vec::new();
        loop {
            // The others wait for what is theirs.
            let written = match self.own > 0 && self.waiting.load(Ordering::Relaxed) > MAX_WAITING {
                true => self.written.recv().map_err(|_| REFUSED)?,
                false => match self.written.try_recv() {
                    Ok(written) => written,
                    Err(_) => return Ok(free),
                },
            };
            let Written(n, buffer) = written.ok_or(REFUSED)?;
            self.own -= n;
            self.waiting.fetch_sub(n, Ordering::Relaxed);
            free = buffer.unwrap_or(free);
        }
    }
}

impl Drop for Piped {
    /// What it leaves unwritten is nothing that others wait for.
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.own, Ordering::Relaxed);
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

    fn lane(&self, first_item: usize) -> Option<Box<dyn CaptureSink + '_>> {
        Some(Box::new(Self::new(self.pieces.clone(), Arc::clone(&self.waiting), self.first_item + first_item)))
    }
}

/// Writes pieces until there are no more, or one is refused.
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
    use crate::{
        domain::{Dtype, Positions, RunId},
        store::{
            PackHeader, Store,
            tests::{capture, files, header, item},
        },
    };

    const HOOKS: [&str; 2] = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"];

    /// Two hooks of an input and a short one.
    fn pack_header(n_tokens: u32) -> PackHeader {
        let asked = capture(&HOOKS, Positions::All, Dtype::Float32);
        let ids: Vec<u32> = (0..n_tokens).collect();
        header(RunId::generate(), vec![(0, item(&ids, asked.clone())), (1, item(&[1, 2], asked))])
    }

    /// Hands out every value of a pack, the first item of a hook in pieces of different sizes.
    fn values(layout: &crate::domain::PackLayout, sink: &mut dyn CaptureSink) -> Result<(), ForwardError> {
        let mut buffer = Vec::new();
        for hook in 0..layout.hooks.len() {
            let mut elements = layout.elements(hook, 0..1);
            for n in (1000..).step_by(700) {
                buffer.clear();
                buffer.extend(elements.by_ref().take(n).map(|e| (hook * 31 + e) as f32));
                if buffer.is_empty() {
                    break;
                }
                sink.write(hook, 0..1, &mut buffer).map_err(ForwardError::Sink)?;
            }
            let last: Vec<f32> = layout.elements(hook, 1..2).map(|e| e as f32).collect();
            sink.take(hook, 1..2, Box::new(last)).map_err(ForwardError::Sink)?;
        }
        Ok(())
    }

    /// The blobs in a folder.
    fn blobs(folder: &Path) -> Vec<Vec<u8>> {
        let blobs = files(folder).into_iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors"));
        blobs.map(|f| std::fs::read(f).unwrap()).collect()
    }

    /// As [`values`], in lanes: the last item first, then the others.
    fn values_in_lanes(layout: &crate::domain::PackLayout, sink: &mut dyn CaptureSink) -> Result<(), ForwardError> {
        let mut last = sink.lane(1).unwrap();
        let mut others = sink.lane(0).unwrap();
        for hook in 0..layout.hooks.len() {
            let of_last: Vec<f32> = layout.elements(hook, 1..2).map(|e| e as f32).collect();
            last.take(hook, 0..1, Box::new(of_last)).map_err(ForwardError::Sink)?;
        }
        for hook in 0..layout.hooks.len() {
            let mut of_others = layout.elements(hook, 0..1).map(|e| (hook * 31 + e) as f32).collect();
            others.write(hook, 0..1, &mut of_others).map_err(ForwardError::Sink)?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn threads_and_lanes_write_what_the_caller_would() {
        let header = pack_header(30_000);
        let layout = &header.layout;
        let mut written = Vec::new();
        for (piped, in_lanes) in [(false, false), (false, true), (true, false), (true, true)] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).await.unwrap();
            let pack = store.begin_pack(header.clone()).unwrap();
            let forward = |sink: &mut dyn CaptureSink| match in_lanes {
                false => values(layout, sink),
                true => values_in_lanes(layout, sink),
            };
            let pack = if piped { through_a_thread(pack, forward) } else { directly(pack, forward) };
            let finished = pack.unwrap().finish().unwrap();
            written.push(blobs(folder.path()));
            drop(finished);
        }
        assert_eq!(written[0].len(), 1);
        assert!(written.iter().all(|blobs| *blobs == written[0]), "the same file");
    }

    #[test]
    fn a_pass_that_is_ahead_waits_for_what_is_large() {
        let (pieces, to_write) = sync_channel::<Piece>(1);
        let writer = thread::spawn(move || {
            for piece in to_write {
                thread::sleep(Duration::from_millis(2));
                piece.answer.written(Written(piece.values.as_slice().len(), None));
            }
        });
        let mut piped = Piped::new(pieces, Arc::default(), 0);
        let waiting = Arc::clone(&piped.waiting);
        for (n, left) in [(10, None), (MAX_WAITING / 2, None), (MAX_WAITING + 1, Some(0)), (3, None), (2, None)] {
            piped.take(0, 0..1, Box::new(vec![0.0; n])).unwrap();
            let waiting = waiting.load(Ordering::Relaxed);
            assert!(waiting <= MAX_WAITING && left.is_none_or(|left| waiting == left), "behind {n}");
        }
        // a lane waits for what is its own alone
        let mut lane = piped.lane(1).unwrap();
        waiting.fetch_add(MAX_WAITING, Ordering::Relaxed);
        lane.take(0, 0..1, Box::new(vec![0.0; 3])).unwrap();
        assert!(waiting.load(Ordering::Relaxed) >= MAX_WAITING);
        drop(lane);
        drop(piped);
        writer.join().unwrap();
    }

    #[test]
    fn who_waits_for_a_writer_that_is_gone_is_told() {
        let (pieces, to_write) = sync_channel::<Piece>(1);
        let (began, begun) = channel();
        let writer = thread::spawn(move || {
            let _first = to_write.recv().unwrap();
            begun.recv().unwrap();
            thread::sleep(Duration::from_millis(50));
            panic!("on purpose");
        });
        let mut piped = Piped::new(pieces, Arc::default(), 0);
        piped.take(0, 0..1, Box::new(vec![0.0])).unwrap();
        began.send(()).unwrap();
        // waits for both to be written
        let refused = piped.take(0, 1..2, Box::new(vec![0.0; MAX_WAITING + 1]));
        assert_eq!(refused.unwrap_err().to_string(), REFUSED);
        assert!(writer.join().is_err());
    }

    #[tokio::test]
    async fn what_the_pack_refuses_is_told_and_what_the_pass_says_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let begin = || store.begin_pack(pack_header(70_000)).unwrap();
        assert!(begin().layout().total_bytes() > MANY_BYTES);
        // The mistake is in the second piece; the pass goes on until it notices.
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
        assert!(blobs(folder.path()).is_empty(), "what is not finished leaves nothing");
    }

    #[tokio::test]
    async fn a_pass_that_panics_ends_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).await.unwrap();
        let pack = store.begin_pack(pack_header(70_000)).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let panicked =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write(pack, |_| panic!("on purpose"))));
            told.send(panicked.is_err())
        });
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
