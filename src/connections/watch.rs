//! Who is connected and what each connection is at, so that the one that has been idle longest can make room, and so that
//! nothing is computed for a client that has gone.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;

/// A connection that has been idle for less than this is left alone: its request may be on the way.
const YOUNG: Duration = Duration::from_millis(250);

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests, or before the first.
    Idle,
    /// A request came and has no answer yet.
    Waiting,
    /// An answer is being sent.
    Answering,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When the client was first seen to send no more, in this phase.
    half_closed: Option<Instant>,
}

/// A connection under watch.
#[derive(Debug)]
pub(super) struct Watched {
    tcp: Arc<TcpStream>,
    state: Mutex<State>,
    /// Cancelled: it ends after the request under way, if there is one.
    pub(super) close: CancellationToken,
    /// Cancelled: it ends at once.
    pub(super) cut: CancellationToken,
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        *self.state() = State { phase, since: Instant::now(), half_closed: None };
    }

    /// Cuts the connection whose client has gone, or has sent no more for `patience` while it waits for an answer.
    fn look(&self, patience: Duration) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            return;
        }
        match peer(&self.tcp) {
            Peer::There => {}
            Peer::Gone => self.cut.cancel(),
            Peer::SendsNoMore => {
                let since = *state.half_closed.get_or_insert_with(Instant::now);
                if state.phase == Phase::Waiting && since.elapsed() >= patience {
                    self.cut.cancel();
                }
            }
        }
    }
}

/// What the system knows of the other end.
enum Peer {
    There,
    /// It has closed its side of the connection, or all of it: the two look the same until something is sent.
    SendsNoMore,
    /// It has refused what was sent, or closed without reading what it was sent.
    Gone,
}

#[cfg(target_os = "linux")]
fn peer(tcp: &TcpStream) -> Peer {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(tcp, PollFlags::RDHUP)];
    if poll(&mut asked, Some(&Timespec::default())).is_err() {
        return Peer::There;
    }
    match asked[0].revents() {
        found if found.intersects(PollFlags::ERR | PollFlags::HUP) => Peer::Gone,
        found if found.contains(PollFlags::RDHUP) => Peer::SendsNoMore,
        _ => Peer::There,
    }
}

/// Elsewhere a connection ends when its client sends no more.
#[cfg(not(target_os = "linux"))]
fn peer(_: &TcpStream) -> Peer {
    Peer::There
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<u64, Arc<Watched>>,
    next: u64,
}

/// A place among the connections, given up when it is dropped.
pub(super) struct Entry {
    id: u64,
    connections: Arc<Connections>,
    pub(super) watched: Arc<Watched>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.table().watched.remove(&self.id);
    }
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; `close` ends it after the request under way.
    pub(super) fn add(self: &Arc<Self>, tcp: &Arc<TcpStream>, close: CancellationToken) -> Entry {
        let state = State { phase: Phase::Idle, since: Instant::now(), half_closed: None };
        let (tcp, cut) = (Arc::clone(tcp), CancellationToken::new());
        let watched = Arc::new(Watched { tcp, state: Mutex::new(state), close, cut });
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.watched.insert(id, Arc::clone(&watched));
        Entry { id, connections: Arc::clone(self), watched }
    }

    /// Closes the connection that has been idle longest, unless all are busy or have hardly come.
    pub(super) fn close_longest_idle(&self) {
        let table = self.table();
        let open = table.watched.values().filter(|watched| !watched.close.is_cancelled());
        let idle = open.filter_map(|watched| {
            let state = watched.state();
            (state.phase == Phase::Idle && state.since.elapsed() >= YOUNG).then_some((state.since, watched))
        });
        if let Some((_, watched)) = idle.min_by_key(|(since, _)| *since) {
            watched.close.cancel();
        }
    }

    /// Cuts the connections of clients that have gone, see [`Watched::look`].
    pub(super) fn look(&self, patience: Duration) {
        let all: Vec<Arc<Watched>> = self.table().watched.values().cloned().collect();
        all.iter().for_each(|watched| watched.look(patience));
    }
}

/// A request under way. Dropping it says that the connection is idle again.
pub(super) struct Request(Arc<Watched>);

impl Request {
    pub(super) fn begin(watched: &Arc<Watched>) -> Self {
        watched.enter(Phase::Waiting);
        Self(Arc::clone(watched))
    }

    /// The body of its answer.
    pub(super) fn answer(self, body: Body) -> Answer {
        self.0.enter(Phase::Answering);
        Answer { body, _request: self }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

/// The body of an answer, as it is.
pub(super) struct Answer {
    body: Body,
    _request: Request,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
