//! A table of open connections and their phases. With it the server can close the connection that has been idle
//! longest, and cancel requests of clients that have disconnected.

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

/// A connection that has been idle for less than this is not closed: its request may be on the way.
const MIN_IDLE: Duration = Duration::from_millis(250);

/// Phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests, or before the first.
    Idle,
    /// A request has arrived, and its response has not begun.
    Waiting,
    /// A response is being sent.
    Answering,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When the phase began.
    since: Instant,
    /// When the client was first seen to have closed its sending side, in this phase.
    half_closed: Option<Instant>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Watched {
    tcp: Arc<TcpStream>,
    state: Mutex<State>,
    /// If cancelled, the connection ends after the request in progress, or at once if there is none.
    pub(super) close: CancellationToken,
    /// If cancelled, the connection ends at once.
    pub(super) cut: CancellationToken,
}

impl Watched {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        *self.state() = State { phase, since: Instant::now(), half_closed: None };
    }

    /// Cuts the connection if its client has disconnected, or has closed its sending side and then waited
    /// `half_closed_wait` for a response.
    fn cut_if_disconnected(&self, half_closed_wait: Duration) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            return;
        }
        match peer(&self.tcp) {
            Peer::Open => {}
            Peer::Reset => self.cut.cancel(),
            Peer::HalfClosed => {
                let since = *state.half_closed.get_or_insert_with(Instant::now);
                if state.phase == Phase::Waiting && since.elapsed() >= half_closed_wait {
                    self.cut.cancel();
                }
            }
        }
    }
}

/// What the system knows of the client's side of a connection.
enum Peer {
    Open,
    /// The client has closed its sending side, or the whole connection: the two look the same until something is sent.
    HalfClosed,
    /// The client has reset the connection.
    Reset,
}

#[cfg(target_os = "linux")]
fn peer(tcp: &TcpStream) -> Peer {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut asked = [PollFd::new(tcp, PollFlags::RDHUP)];
    if poll(&mut asked, Some(&Timespec::default())).is_err() {
        return Peer::Open;
    }
    match asked[0].revents() {
        found if found.intersects(PollFlags::ERR | PollFlags::HUP) => Peer::Reset,
        found if found.contains(PollFlags::RDHUP) => Peer::HalfClosed,
        _ => Peer::Open,
    }
}

/// On other systems hyper ends a connection when its client closes its sending side.
#[cfg(not(target_os = "linux"))]
fn peer(_: &TcpStream) -> Peer {
    Peer::Open
}

/// All open connections.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<u64, Arc<Watched>>,
    next: u64,
}

/// A connection's entry in the table, removed when this is dropped.
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

    /// Adds a connection; cancelling `close` ends it after the request in progress.
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

    /// Closes the connection that has been idle longest, if one has been idle for [`MIN_IDLE`].
    pub(super) fn close_longest_idle(&self) {
        let table = self.table();
        let open = table.watched.values().filter(|watched| !watched.close.is_cancelled());
        let idle = open.filter_map(|watched| {
            let state = watched.state();
            (state.phase == Phase::Idle && state.since.elapsed() >= MIN_IDLE).then_some((state.since, watched))
        });
        if let Some((_, watched)) = idle.min_by_key(|(since, _)| *since) {
            watched.close.cancel();
        }
    }

    /// Cuts the connections of clients that have disconnected, see [`Watched::cut_if_disconnected`].
    pub(super) fn cut_disconnected(&self, half_closed_wait: Duration) {
        let all: Vec<Arc<Watched>> = self.table().watched.values().cloned().collect();
        all.iter().for_each(|watched| watched.cut_if_disconnected(half_closed_wait));
    }
}

/// A request in progress. When it is dropped, its connection is idle again.
pub(super) struct Request(Arc<Watched>);

impl Request {
    pub(super) fn begin(watched: &Arc<Watched>) -> Self {
        watched.enter(Phase::Waiting);
        Self(Arc::clone(watched))
    }

    /// Marks the response as begun and wraps its body, which then holds the request until it is sent.
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

/// The body of a response, unchanged, with the request that it answers.
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
