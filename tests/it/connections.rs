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

use crate::support::{TestApp, with_model};

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
