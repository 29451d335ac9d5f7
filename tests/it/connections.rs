//! Real connections: who dawdles is cut off, who is too many waits, and a stop lets requests finish.

use std::{net::SocketAddr, time::Duration};

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

/// Everything until the server closes, which it must.
async fn to_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.expect("the server closes");
    // a reset is an end too
    drop(read);
    text
}

/// The head of an answer, on a connection that stays.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(timeout(Duration::from_secs(20), stream.read_u8()).await.expect("the server answers").unwrap());
    }
    String::from_utf8(text).unwrap()
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: a\r\n";

#[tokio::test]
async fn who_never_ends_the_headers_is_cut_off() {
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
    timeout(Duration::from_secs(20), trickling).await.expect("bytes alone buy no time").unwrap();
}

#[tokio::test]
async fn too_many_connections_wait_for_their_turn() {
    let listening = Listening::with(ConnectionLimits { max_connections: 1, ..ConnectionLimits::default() }).await;
    let mut first = listening.connect(&format!("{HEALTH}\r\n")).await;
    head(&mut first).await;
    let mut second = listening.connect(&format!("{HEALTH}\r\n")).await;
    assert!(timeout(Duration::from_millis(200), second.read_u8()).await.is_err(), "the first still has the slot");
    drop(first);
    assert!(head(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn heads_that_are_far_too_large_are_cut_off() {
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
    let post = "POST /v1/runs?wait=60 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let waiting = listening.connect(&format!("{post}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    while listening.app.get("/v1/runs").await.json()["items"].as_array().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    listening.stop.cancel();
    assert!(!to_end(idle).await.contains("HTTP/1.1 5"), "an idle connection is closed without a word");
    let answer = to_end(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    timeout(Duration::from_secs(20), listening.server).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(listening.address).await.is_err(), "nobody listens any more");
}

/// A cache of `[n_rows, 1024]` that nothing computed.
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
async fn large_tensors_come_over_a_connection_as_they_are() {
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
    // all at once: each answer is behind the one before, on one connection
    let mut requests = String::new();
    for (uri, range) in &asked {
        let range = range.map(|r| format!("Range: {r}\r\n")).unwrap_or_default();
        requests.push_str(&format!("GET {uri} HTTP/1.1\r\nHost: a\r\n{range}\r\n"));
    }
    let mut stream = listening.connect(&requests).await;
    for (uri, range) in &asked {
        let expected = app.get_with(uri, &range.map(|r| ("range", r)).into_iter().collect::<Vec<_>>()).await;
        let head = head(&mut stream).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {}", expected.status.as_u16())), "{head}");
        let mut body = vec![0; content_length(&head)];
        timeout(Duration::from_secs(20), stream.read_exact(&mut body)).await.expect("all of it").unwrap();
        assert!(body == expected.body, "{uri} {range:?}");
    }
}

#[tokio::test]
async fn a_blob_cut_short_under_a_download_breaks_it_off() {
    let listening = Listening::with(ConnectionLimits::default()).await;
    // more than a connection holds on its way
    let cache = imported(&listening.app, 12_000).await;
    let get = format!("GET /v1/caches/{cache}/tensors/blocks.3.hook_resid_post?format=raw HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut stream = listening.connect(&get).await;
    let promised = content_length(&head(&mut stream).await);
    let blobs = std::fs::read_dir(listening.app.data_dir().join("blobs")).unwrap();
    let blobs = blobs.flat_map(|f| std::fs::read_dir(f.unwrap().path()).unwrap()).map(|f| f.unwrap().path());
    for blob in blobs {
        std::fs::File::options().write(true).open(blob).unwrap().set_len(promised as u64 - 5_000_000).unwrap();
    }
    let mut body = Vec::new();
    // a reset is an end too
    drop(timeout(Duration::from_secs(20), stream.read_to_end(&mut body)).await.expect("the server closes"));
    assert!(body.len() < promised, "{} of {promised}", body.len());
    let numbers: Vec<u8> = f32s((0..body.len() / 4).map(|i| i as f32 * 0.125 - 9.0));
    assert!(body[..numbers.len()] == numbers, "what came is right");
    // and others are served
    let mut other = listening.connect(&format!("{HEALTH}\r\n")).await;
    assert!(head(&mut other).await.starts_with("HTTP/1.1 200"));
}
