//! The store's pack as the recorder sees it.
//!
//! Encoding, hashing and writing many values take a while in which the cores could compute, so they have a thread of their own
//! where there are many.

use std::{
    ops::Range,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
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
        let mut sink = Direct(pack);
        forward(&mut sink)?;
        return Ok(sink.0);
    }
    through_a_thread(pack, forward)
}

fn through_a_thread(
    pack: PackWriter,
    forward: impl FnOnce(&mut dyn CaptureSink) -> Result<(), ForwardError>,
) -> Result<PackWriter, ForwardError> {
    let (pieces, to_write) = sync_channel(1);
    let (done, written) = channel();
    thread::scope(|scope| {
        let name = "recorder".to_owned();
        let writer = thread::Builder::new().name(name).spawn_scoped(scope, move || drain(pack, &to_write, &done));
        let writer = writer.map_err(|e| ForwardError::Sink(Box::new(e)))?;
        let outcome = forward(&mut Piped { pieces, written, waiting: 0 });
        let pack = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Of a pack that was refused, the pass only knows that nobody took more.
        match (pack, outcome) {
            (Err(e), Ok(()) | Err(ForwardError::Sink(_))) => Err(ForwardError::Sink(Box::new(e))),
            (pack, outcome) => outcome.and(pack.map_err(|e| ForwardError::Sink(Box::new(e)))),
        }
    })
}

/// Writes on the caller's thread.
struct Direct(PackWriter);

impl CaptureSink for Direct {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.0.write(hook, items, values).map_err(Into::into)
    }

    fn take(&mut self, hook: usize, items: Range<usize>, values: Lent) -> Result<(), Refusal> {
        self.0.write(hook, items, (*values).as_ref()).map_err(Into::into)
    }
}

/// Consecutive items of a hook.
struct Piece {
    hook: usize,
    items: Range<usize>,
    values: Values,
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
    /// What has been written.
    written: Receiver<Written>,
    /// Values that have not.
    waiting: usize,
}

impl Piped {
    /// Hands values over, waits while too much is not written, and gives a buffer that is free, or an empty one.
    fn hand_over(&mut self, hook: usize, items: Range<usize>, values: Values) -> Result<Vec<f32>, Refusal> {
        self.waiting += values.as_slice().len();
        self.pieces.send(Piece { hook, items, values }).map_err(|_| REFUSED)?;
        let mut free = Vec::new();
        loop {
            let Written(n, buffer) = match self.waiting > MAX_WAITING {
                true => self.written.recv().map_err(|_| REFUSED)?,
                false => match self.written.try_recv() {
                    Ok(written) => written,
                    Err(_) => return Ok(free),
                },
            };
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

/// Writes pieces until there are no more.
fn drain(mut pack: PackWriter, pieces: &Receiver<Piece>, written: &Sender<Written>) -> Result<PackWriter, StoreError> {
    for Piece { hook, items, values } in pieces {
        let n = values.as_slice().len();
        pack.write(hook, items, values.as_slice())?;
        let buffer = match values {
            Values::Own(buffer) => Some(buffer),
            Values::Lent(_) => None,
        };
        // The last ones find nobody who waits for them.
        let _ = written.send(Written(n, buffer));
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

    #[tokio::test]
    async fn a_thread_of_its_own_writes_what_the_callers_would() {
        let header = pack_header(30_000);
        let folders = [(), ()].map(|()| tempfile::tempdir().unwrap());
        let mut written = Vec::new();
        for (folder, piped) in folders.iter().zip([false, true]) {
            let store = Store::open(folder.path()).await.unwrap();
            let pack = store.begin_pack(header.clone()).unwrap();
            let pack = if piped {
                through_a_thread(pack, |sink| values(&header.layout, sink)).unwrap()
            } else {
                let mut sink = Direct(pack);
                values(&header.layout, &mut sink).unwrap();
                sink.0
            };
            let finished = pack.finish().unwrap();
            written.push(blobs(folder.path()));
            drop(finished);
        }
        assert_eq!(written[0].len(), 1);
        assert!(written[0] == written[1], "the same file");
    }

    #[test]
    fn a_pass_that_is_ahead_waits_for_what_is_large() {
        let (pieces, to_write) = sync_channel::<Piece>(1);
        let (done, written) = channel();
        let writer = thread::spawn(move || {
            for piece in to_write {
                thread::sleep(Duration::from_millis(2));
                let _ = done.send(Written(piece.values.as_slice().len(), None));
            }
        });
        let mut piped = Piped { pieces, written, waiting: 0 };
        for (n, left) in [(10, None), (MAX_WAITING / 2, None), (MAX_WAITING + 1, Some(0)), (3, None), (2, None)] {
            piped.take(0, 0..1, Box::new(vec![0.0; n])).unwrap();
            assert!(piped.waiting <= MAX_WAITING && left.is_none_or(|left| piped.waiting == left), "behind {n}");
        }
        drop(piped);
        writer.join().unwrap();
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
