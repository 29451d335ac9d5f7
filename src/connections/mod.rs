//! Accepts connections and serves them: bounded in number, and none may dawdle over its headers.

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

/// How connections are held to their pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at one time.
    pub max_connections: usize,
    /// Connections beyond those, which are told whether the server is alive and ready, and are refused anything else; who
    /// comes after them waits.
    pub spare_connections: usize,
    /// Time for the headers of a request, and for the next request on a connection that is kept.
    pub header_timeout: Duration,
    /// Time that a client which sends no more waits for the beginning of its answer: it may have gone.
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

/// Headers of one request at which the connection is cut; far fewer are answered with what is wrong.
const MAX_HEADERS: usize = 256;
/// Bytes of the request line and all headers at which the connection is cut, likewise.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Bytes that a connection keeps in its buffer.
const MAX_BUFFER_BYTES: usize = 256 << 10;
/// Time for the headers on a spare connection.
const SPARE_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a spare connection waits for a place among the others.
const PLACE_WAIT: Duration = Duration::from_millis(500);
/// Time between two attempts to close an idle connection for one that waits.
const PLACE_RETRY: Duration = Duration::from_millis(50);
/// Time between two looks for clients that have gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The paths that spare connections are for.
const SPARE_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// What connections have in common.
struct Server {
    router: Router,
    /// For connections with a place.
    http: http1::Builder,
    /// For spare ones: one request each.
    spare_http: http1::Builder,
    connections: Arc<Connections>,
    places: Arc<Semaphore>,
    spares: Arc<Semaphore>,
}

/// What a connection takes.
enum Place {
    /// One of the connections that are served.
    Own(OwnedSemaphorePermit),
    /// One of those beyond them.
    Spare(OwnedSemaphorePermit),
}

/// Serves until `stop` is cancelled, and then finishes the requests under way; connections without one are closed at once.
///
/// Where all connections are taken, the one that has been idle longest makes room for the next; where none is idle, further
/// ones are told whether the server is alive and ready, and are refused anything else with 503.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let server = Arc::new(Server::new(router, limits));
    let watch = tokio::spawn(watch(Arc::clone(&server.connections), limits.half_closed_wait));
    // closes once nobody has a sender any more
    let (alive, mut ended) = mpsc::channel::<Infallible>(1);
    loop {
        // A place first: who finds none is left in the system's queue.
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

/// Cuts the connections of clients that have gone, for ever.
async fn watch(connections: Arc<Connections>, patience: Duration) {
    loop {
        sleep(LOOK_INTERVAL).await;
        connections.look(patience);
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
            // elsewhere nobody would see that a client has gone
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

    /// The next free place.
    async fn place(&self) -> Option<Place> {
        tokio::select! {
            biased;
            own = Arc::clone(&self.places).acquire_owned() => own.ok().map(Place::Own),
            spare = Arc::clone(&self.spares).acquire_owned() => spare.ok().map(Place::Spare),
        }
    }

    /// A place among the connections that are served, for one that has none: an idle one makes room.
    async fn own_place(&self) -> Option<OwnedSemaphorePermit> {
        let end = Instant::now() + PLACE_WAIT;
        if let Ok(own) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(own);
        }
        while Instant::now() < end {
            self.connections.close_longest_idle();
            if let Ok(own) = timeout(PLACE_RETRY, Arc::clone(&self.places).acquire_owned()).await {
                return own.ok();
            }
        }
        None
    }

    async fn connection(&self, place: Place, stream: TcpStream, close: CancellationToken) {
        let place = match place {
            Place::Own(own) => Place::Own(own),
            Place::Spare(spare) => self.own_place().await.map_or(Place::Spare(spare), Place::Own),
        };
        let is_spare = matches!(place, Place::Spare(_));
        let stream = Arc::new(stream);
        let entry = self.connections.add(&stream, close);
        let watched = Arc::clone(&entry.watched);
        let routes = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |request: http::Request<Incoming>| {
            let under_way = Request::begin(&watched);
            let refused = is_spare && !SPARE_PATHS.contains(&request.uri().path());
            let answer = (!refused).then(|| routes.call(request));
            async move {
                let response = match answer {
                    Some(answer) => answer.await?,
                    None => api::too_many_connections(),
                };
                Ok::<_, Infallible>(response.map(|body| under_way.answer(body)))
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

/// The next connection. Errors are those of a connection that is gone, or of a machine out of file descriptors: neither
/// ends the server.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // answers are written whole: waiting for more to fill a packet only costs time
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection keeps its delay");
                }
                return stream;
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "connections cannot be accepted; trying again in a second");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
