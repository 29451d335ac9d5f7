//! Real connections: slow clients are disconnected, surplus connections wait, and a server that stops lets requests
//! finish.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use futures::stream;
use residuum::connections::{ConnectionLimits, serve};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api_import::{f32s, file, import},
    support::{TestApp, with_model},
};

struct Listening {
    app: TestApp,
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Listening {
    async fn with(limits: ConnectionLimits) -> Self {
        let app = TestApp::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, app.router(), limits, stop.clone()));
        Self { app, address, stop, server }
    }

    async fn connect(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// Reads until the server closes the connection, which it must.
async fn to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.expect("the server closes");
    // a reset also counts as closing
    drop(read);
    text
}

/// Reads the head of an answer; the connection stays open.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(timeout(Duration::from_secs(20), stream.read_u8()).await.expect("the server answers").unwrap());
    }
    String::from_utf8(text).unwrap()
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";

#[tokio::test]
async fn a_client_that_never_ends_its_headers_is_disconnected() {
    let header_timeout = Duration::from_millis(200);
    let listening = Listening::with(ConnectionLimits { header_timeout, ..ConnectionLimits::default() }).await;
    let silent = listening.connect("").await;
    let slow = listening.connect(&format!("{HEALTH}X-Slow: ")).await;
    let mut trickle = listening.connect(HEALTH).await;
    let mut good = listening.connect(&format!("{HEALTH}\r\n")).await;
    assert!(head(&mut good).await.starts_with("HTTP/1.1 200"));
    let trickling = tokio::spawn(async move {
        while trickle.write_all(b"X-More: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for stream in [silent, slow] {
        assert!(!to_end(stream).await.starts_with("HTTP/1.1 200"));
    }
    timeout(Duration::from_secs(20), trickling).await.expect("single bytes do not extend the time limit").unwrap();
}

/// A server with the routes for health, and routes that take as long as a test wants.
struct Slow {
    address: SocketAddr,
    /// Number of running handlers.
    at_work: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// Counts a running handler until it is dropped.
struct AtWork(Arc<AtomicUsize>);

impl AtWork {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Slow {
    async fn with(limits: ConnectionLimits) -> Self {
        let at_work = Arc::<AtomicUsize>::default();
        let (never, soon, stream) = (Arc::clone(&at_work), Arc::clone(&at_work), Arc::clone(&at_work));
        let router = Router::new()
            .route("/healthz", get(async || "ok"))
            .route("/readyz", get(async || "ok"))
            .route(
                "/never",
                post(async move |_: String| {
                    let _here = AtWork::begin(&never);
                    std::future::pending::<()>().await;
                }),
            )
            .route(
                "/soon",
                post(async move |body: String| {
                    let _here = AtWork::begin(&soon);
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    body
                }),
            )
            .route(
                "/stream",
                get(async move || {
                    let here = AtWork::begin(&stream);
                    let ticks = stream::unfold(here, async |here| {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Some((Ok::<_, std::io::Error>("tick "), here))
                    });
                    Body::from_stream(ticks)
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(listener, router, limits, stop.clone()));
        Self { address, at_work, stop }
    }

    async fn connect(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Waits until `n` handlers are running.
    async fn until_at_work(&self, n: usize) {
        timeout(Duration::from_secs(20), async {
            while self.at_work.load(Ordering::Acquire) != n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the handlers start in time");
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn post_of(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_client_that_half_closes_after_its_request_is_answered() {
    let slow = Slow::with(ConnectionLimits::default()).await;
    let mut stream = slow.connect(&post_of("/soon", "hello")).await;
    stream.shutdown().await.unwrap();
    let answer = to_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
    // two requests at once
    let mut stream = slow.connect(&(post_of("/soon", "first") + &post_of("/soon", "second"))).await;
    stream.shutdown().await.unwrap();
    let answer = to_end(stream).await;
    assert!(answer.contains("first") && answer.ends_with("second"), "{answer}");
    // a body shorter than announced is not a request
    let mut stream = slow.connect("POST /soon HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhello").await;
    stream.shutdown().await.unwrap();
    assert!(!to_end(stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_handler_of_a_disconnected_client_is_soon_dropped() {
    let half_closed_wait = Duration::from_millis(700);
    let slow = Slow::with(ConnectionLimits { half_closed_wait, ..ConnectionLimits::default() }).await;
    // the client closes half of the connection or all of it: to the server the two look the same
    let whole = slow.connect(&post_of("/never", "")).await;
    let mut half = slow.connect(&post_of("/never", "")).await;
    let patient = slow.connect(&post_of("/never", "")).await;
    slow.until_at_work(3).await;
    half.shutdown().await.unwrap();
    drop(whole);
    slow.until_at_work(1).await;
    assert_eq!(to_end(half).await, "", "the half-closed connection is not answered");
    // a reset is noticed at once
    let reset = slow.connect(&post_of("/never", "")).await;
    slow.until_at_work(2).await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    slow.until_at_work(1).await;
    // a stream ends when the client refuses its bytes
    let mut streaming = slow.connect("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head(&mut streaming).await.starts_with("HTTP/1.1 200"));
    slow.until_at_work(2).await;
    drop(streaming);
    slow.until_at_work(1).await;
    drop(patient);
    slow.until_at_work(0).await;
}

#[tokio::test]
async fn the_connection_that_is_idle_longest_is_closed_for_a_new_one() {
    let slow = Slow::with(ConnectionLimits { max_connections: 4, ..ConnectionLimits::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut stream = slow.connect(&format!("{HEALTH}\r\n")).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 200"));
        idle.push(stream);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let busy = slow.connect(&post_of("/never", "")).await;
    slow.until_at_work(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = std::time::Instant::now();
    let answer =
        to_end(slow.connect(&(post_of("/soon", "new").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))).await)
            .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("new"), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5), "long before the time limit of idle connections");
    // the first is closed, and the others stay open
    assert!(!to_end(idle.remove(0)).await.contains("HTTP/1.1 5"));
    for stream in &mut idle {
        stream.write_all(format!("{HEALTH}\r\n").as_bytes()).await.unwrap();
        let mut rest = [0; 2];
        stream.read_exact(&mut rest).await.unwrap();
        assert!(head(stream).await.starts_with("HTTP/1.1 200"));
    }
    drop(busy);
}

#[tokio::test]
async fn a_busy_server_still_answers_health_checks() {
    let limits = ConnectionLimits { max_connections: 2, spare_connections: 2, ..ConnectionLimits::default() };
    let slow = Slow::with(limits).await;
    let busy = [slow.connect(&post_of("/never", "")).await, slow.connect(&post_of("/never", "")).await];
    slow.until_at_work(2).await;
    for path in ["/healthz", "/readyz"] {
        let answer = to_end(slow.connect(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    }
    let answer = to_end(slow.connect(&post_of("/soon", "new")).await).await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("\"code\":\"unavailable\""), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("connection: close"), "{answer}");
    drop(busy);
    // a free place goes to the next request
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut next = slow.connect(&post_of("/soon", "new")).await;
    next.set_nodelay(true).unwrap();
    let _ = head(&mut next).await;
}

#[tokio::test]
async fn without_spare_connections_surplus_connections_wait() {
    let half_closed_wait = Duration::ZERO;
    let limits =
        ConnectionLimits { max_connections: 1, spare_connections: 0, half_closed_wait, ..ConnectionLimits::default() };
    let slow = Slow::with(limits).await;
    let first = slow.connect(&post_of("/never", "")).await;
    slow.until_at_work(1).await;
    let mut second = slow.connect(&format!("{HEALTH}\r\n")).await;
    assert!(
        timeout(Duration::from_millis(200), second.read_u8()).await.is_err(),
        "the first connection still has the place"
    );
    drop(first);
    assert!(head(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_with_far_too_large_headers_are_closed() {
    let listening = Listening::with(ConnectionLimits::default()).await;
    let polite = format!("{HEALTH}X-Large: {}\r\nConnection: close\r\n\r\n", "x".repeat(40_000));
    let answer = to_end(listening.connect(&polite).await).await;
    assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("headers_too_large"), "{answer}");
    let huge = format!("{HEALTH}X-Large: {}\r\n\r\n", "x".repeat(120_000));
    let answer = to_end(listening.connect(&huge).await).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many: String = (0..400).map(|i| format!("X-{i}: 1\r\n")).collect();
    let answer = to_end(listening.connect(&format!("{HEALTH}{many}\r\n")).await).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_closes_the_rest() {
    let listening = Listening::with(ConnectionLimits::default()).await;
    let mut idle = listening.connect(&format!("{HEALTH}\r\n")).await;
    head(&mut idle).await;
    let inputs: Vec<Vec<u32>> = (0..600).map(|i| vec![i % 250; 60]).collect();
    let body = with_model(json!({"input": inputs, "reuse": false})).to_string();
    let post = "POST /v1/runs?wait=60 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let waiting = listening.connect(&format!("{post}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    while listening.app.get("/v1/runs").await.json()["items"].as_array().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    listening.stop.cancel();
    assert!(!to_end(idle).await.contains("HTTP/1.1 5"), "an idle connection is closed without an answer");
    let answer = to_end(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    timeout(Duration::from_secs(20), listening.server).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(listening.address).await.is_err(), "nobody listens any more");
}

/// An imported cache of shape `[n_rows, 1024]`.
async fn imported(app: &TestApp, n_rows: usize) -> String {
    let values = f32s((0..n_rows * 1024).map(|i| i as f32 * 0.125 - 9.0));
    let body = file(&[("blocks.3.hook_resid_post", "F32", &[n_rows, 1024], values)], &json!({"model": "m"}));
    let answer = import(app, "?n_layers=6", body).await;
    let cache = answer.json();
    assert_eq!(answer.status.as_u16(), 201, "{cache:#}");
    cache["id"].as_str().unwrap().to_owned()
}

fn content_length(head: &str) -> usize {
    let line = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    line.expect("a length").parse().unwrap()
}

#[tokio::test]
async fn large_tensors_arrive_unchanged_over_a_connection() {
    let listening = Listening::with(ConnectionLimits::default()).await;
    let app = &listening.app;
    let cache = imported(app, 700).await;
    let tensor = format!("/v1/caches/{cache}/tensors/blocks.3.hook_resid_post");
    let asked = [
        (format!("{tensor}?format=raw"), None),
        (format!("{tensor}?format=npy"), None),
        (format!("{tensor}?format=safetensors"), Some("bytes=13-2800001")),
        (format!("{tensor}?format=raw"), Some("bytes=1000001-")),
        (format!("{tensor}?format=raw&dtype=float16"), None),
        (format!("{tensor}?format=raw&positions=3:690:2"), None),
        ("/healthz".to_owned(), None),
    ];
    // pipelined: all requests are sent at once on one connection, and answered one after another
    let mut requests = String::new();
    for (uri, range) in &asked {
        let range = range.map(|r| format!("Range: {r}\r\n")).unwrap_or_default();
        requests.push_str(&format!("GET {uri} HTTP/1.1\r\nHost: localhost\r\n{range}\r\n"));
    }
    let mut stream = listening.connect(&requests).await;
    for (uri, range) in &asked {
        let expected = app.get_with(uri, &range.map(|r| ("range", r)).into_iter().collect::<Vec<_>>()).await;
        let head = head(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {}", expected.status.as_u16())), "{head}");
        let mut body = vec![0; content_length(&head)];
        timeout(Duration::from_secs(20), stream.read_exact(&mut body)).await.expect("the whole body arrives").unwrap();
        assert!(body == expected.body, "{uri} {range:?}");
    }
}

#[tokio::test]
async fn truncating_a_blob_during_a_download_breaks_it_off() {
    let listening = Listening::with(ConnectionLimits::default()).await;
    // more than a connection buffers
    let cache = imported(&listening.app, 12_000).await;
    let get = format!(
        "GET /v1/caches/{cache}/tensors/blocks.3.hook_resid_post?format=raw HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    let mut stream = listening.connect(&get).await;
    let promised = content_length(&head(&mut stream).await);
    let blobs = std::fs::read_dir(listening.app.data_dir().join("blobs")).unwrap();
    let blobs = blobs.flat_map(|f| std::fs::read_dir(f.unwrap().path()).unwrap()).map(|f| f.unwrap().path());
    for blob in blobs {
        std::fs::File::options().write(true).open(blob).unwrap().set_len(promised as u64 - 5_000_000).unwrap();
    }
    let mut body = Vec::new();
    // a reset also counts as closing
    drop(timeout(Duration::from_secs(20), stream.read_to_end(&mut body)).await.expect("the server closes"));
    assert!(body.len() < promised, "{} of {promised}", body.len());
    let numbers: Vec<u8> = f32s((0..body.len() / 4).map(|i| i as f32 * 0.125 - 9.0));
    assert!(body[..numbers.len()] == numbers, "the bytes that arrived are right");
    // other requests are still served
    let mut other = listening.connect(&format!("{HEALTH}\r\n")).await;
    assert!(head(&mut other).await.starts_with("HTTP/1.1 200"));
}
