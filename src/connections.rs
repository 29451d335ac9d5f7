//! Accepts connections and serves them: bounded in number, and none may dawdle over its headers.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

mod sendfile;

use sendfile::{Connection, accept_offer};
pub use sendfile::{Files, MAX_STRETCH, Offer, Stretch};

/// How connections are held to their pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at one time; further ones wait until one ends.
    pub max_connections: usize,
    /// Time for the headers of a request, and for the next request on a connection that is kept.
    pub header_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { max_connections: 512, header_timeout: Duration::from_secs(30) }
    }
}

/// Headers of one request at which the connection is cut; far fewer are answered with what is wrong.
const MAX_HEADERS: usize = 256;
/// Bytes of the request line and all headers at which the connection is cut, likewise.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Bytes that a connection keeps in its buffer.
const MAX_BUFFER_BYTES: usize = 256 << 10;

/// Serves until `stop` is cancelled, and then finishes the requests under way; connections without one are closed at once.
pub async fn serve(listener: TcpListener, router: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // Slices as they come: a copy of a stand-in would be sent as it is.
    http.writev(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES);
    loop {
        // A slot first: who finds none is left in the system's queue.
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((slot, accept(&listener).await))
        };
        let (slot, stream) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => match next {
                Some(next) => next,
                None => break,
            },
        };
        let routes = TowerToHyperService::new(router.clone());
        let stream = Connection::new(stream);
        let files = Arc::clone(stream.files());
        let service = service_fn(move |request| {
            let (answer, files) = (routes.call(request), Arc::clone(&files));
            async move {
                let response = answer.await?;
                accept_offer(&response, &files);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.shutdown().await;
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
