//! Accepts connections and serves HTTP on them, with limits on their number and on the time for headers. Does not
//! know what requests ask for: that is in [`crate::api`].

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

mod stream;
mod watch;

use stream::SharedStream;
use watch::{Connections, Request};

use crate::api;

/// Limits on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of connections at one time.
    pub max_connections: usize,
    /// Further connections, which may only ask for `/healthz` and `/readyz`; other requests on them are refused.
    /// Clients beyond these wait in the backlog of the system.
    pub spare_connections: usize,
    /// Time for the headers of a request, and for the next request on a kept-alive connection.
    pub header_timeout: Duration,
    /// If a client has closed its sending side, time for the start of its response; then the connection is cut, since
    /// the client has probably disconnected.
    pub half_closed_wait: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            spare_connections: 16,
            header_timeout: Duration::from_secs(30),
            half_closed_wait: Duration::from_secs(10),
        }
    }
}

/// Number of headers at which hyper cuts the connection. Requests between this and the lower limit of `api/limits.rs`
/// get a problem as their answer.
const MAX_HEADERS: usize = 256;
/// Bytes of the request line and all headers at which hyper cuts the connection, likewise.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Maximum bytes in the buffer of a connection.
const MAX_BUFFER_BYTES: usize = 256 << 10;
/// Time for the headers on a spare connection.
const SPARE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a spare connection waits to become a normal one.
const PLACE_WAIT: Duration = Duration::from_millis(500);
/// Time between two attempts to close an idle connection for one that waits.
const PLACE_RETRY: Duration = Duration::from_millis(50);
/// Time between two checks for clients that have disconnected.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The paths that spare connections may ask for.
const SPARE_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// What all connections share.
struct Server {
    router: Router,
    /// For normal connections.
    http: http1::Builder,
    /// For spare connections: one request each.
    spare_http: http1::Builder,
    connections: Arc<Connections>,
    places: Arc<Semaphore>,
    spares: Arc<Semaphore>,
}

/// The place of a connection, free again once it is dropped.
enum Place {
    /// One of `max_connections`.
    Normal(OwnedSemaphorePermit),
    /// One of `spare_connections`.
    Spare(OwnedSemaphorePermit),
}

/// Serves until `stop` is cancelled; then finishes the requests in progress and closes connections without one at once.
///
/// If all normal places are taken, a new connection makes the server close the one that has been idle longest. If none
/// is idle, the new one is a spare connection: its requests get 503, except those for `/healthz` and `/readyz`.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let server = Arc::new(Server::new(router, limits));
    let watch = tokio::spawn(watch(Arc::clone(&server.connections), limits.half_closed_wait));
    // closes once all senders are dropped: when all connections have ended
    let (alive, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        // First a place: while there is none, clients wait in the backlog of the system.
        let next = async {
            let place = server.place().await?;
            Some((place, accept(&listener).await))
        };
        let (place, stream) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        let (server, close, alive) = (Arc::clone(&server), stop.child_token(), alive.clone());
        tokio::spawn(async move {
            server.connection(place, stream, close).await;
            drop(alive);
        });
    }
    drop((listener, alive));
    ended.recv().await;
    watch.abort();
}

/// Cuts the connections of clients that have disconnected, in a loop without end.
async fn watch(connections: Arc<Connections>, half_closed_wait: Duration) {
    loop {
        sleep(CHECK_INTERVAL).await;
        connections.cut_disconnected(half_closed_wait);
    }
}

impl Server {
    fn new(router: Router, limits: ConnectionLimits) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_BUFFER_BYTES)
            // only on Linux `watch` can tell that a client has disconnected
            .half_close(cfg!(target_os = "linux"));
        let mut spare_http = http.clone();
        spare_http.keep_alive(false).header_read_timeout(limits.header_timeout.min(SPARE_HEADER_TIMEOUT));
        let semaphore = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Self {
            router,
            http,
            spare_http,
            connections: Arc::default(),
            places: semaphore(limits.max_connections.max(1)),
            spares: semaphore(limits.spare_connections),
        }
    }

    /// Waits for a free place, if possible a normal one.
    async fn place(&self) -> Option<Place> {
        tokio::select! {
            biased;
            normal = Arc::clone(&self.places).acquire_owned() => normal.ok().map(Place::Normal),
            spare = Arc::clone(&self.spares).acquire_owned() => spare.ok().map(Place::Spare),
        }
    }

    /// A normal place for a spare connection: closes idle connections until one is free; `None` after [`PLACE_WAIT`].
    async fn normal_place(&self) -> Option<OwnedSemaphorePermit> {
        let end = Instant::now() + PLACE_WAIT;
        if let Ok(normal) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(normal);
        }
        while Instant::now() < end {
            self.connections.close_longest_idle();
            if let Ok(normal) = timeout(PLACE_RETRY, Arc::clone(&self.places).acquire_owned()).await {
                return normal.ok();
            }
        }
        None
    }

    async fn connection(&self, place: Place, stream: TcpStream, close: CancellationToken) {
        let place = match place {
            Place::Normal(normal) => Place::Normal(normal),
            Place::Spare(spare) => self.normal_place().await.map_or(Place::Spare(spare), Place::Normal),
        };
        let is_spare = matches!(place, Place::Spare(_));
        let stream = Arc::new(stream);
        let entry = self.connections.add(&stream, close);
        let watched = Arc::clone(&entry.watched);
        let routes = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |request: http::Request<Incoming>| {
            let in_progress = Request::begin(&watched);
            let refused = is_spare && !SPARE_PATHS.contains(&request.uri().path());
            let answer = if refused { Err(request.uri().path().to_owned()) } else { Ok(routes.call(request)) };
            async move {
                let response = match answer {
                    Ok(answer) => answer.await?,
                    Err(path) => api::too_many_connections(&path),
                };
                Ok::<_, Infallible>(response.map(|body| in_progress.answer(body)))
            }
        });
        let http = if is_spare { &self.spare_http } else { &self.http };
        let connection = http.serve_connection(TokioIo::new(SharedStream(stream)), service);
        tokio::pin!(connection);
        let mut closing = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = entry.watched.cut.cancelled() => break Ok(()),
                () = entry.watched.close.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    }
}

/// Waits for the next connection. Errors do not end the server: either the client has disconnected again, or the
/// machine is out of file descriptors.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // responses are written whole, so Nagle's algorithm would only delay them
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                return stream;
            }
            Err(error) if has_disconnected(&error) => {}
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted; trying again in a second");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn has_disconnected(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
