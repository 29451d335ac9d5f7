//! The real program against a real server: a listening one on a temporary folder, or one that misbehaves.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener as StdListener},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use residuum::connections::{ConnectionLimits, serve};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::TestApp;

/// A server that listens.
pub struct Served {
    pub app: TestApp,
    pub url: String,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

/// What the program did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub bytes: Vec<u8>,
    pub err: String,
}

impl Ran {
    /// Standard output as text.
    pub fn out(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    /// Standard output as lines of JSON.
    pub fn json_lines(&self) -> Vec<Value> {
        self.out().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The words of each line.
    pub fn words(&self) -> Vec<Vec<&str>> {
        self.out().lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Checks the exit code. Returns standard error.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.is_empty());
        &self.err
    }
}

/// Runs the program with these variables and nothing else in its environment.
pub fn residuum(arguments: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_residuum"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // the program may end before it has read all
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran { code: output.status.code(), bytes: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}

impl Served {
    pub async fn new() -> Self {
        Self::of(TestApp::new().await).await
    }

    pub async fn of(app: TestApp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, app.router(), ConnectionLimits::default(), stop.clone()));
        Self { app, url, stop, server }
    }

    /// Runs the program against this server.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"")
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        residuum(arguments, &[("RESIDUUM_URL", &self.url)], input)
    }

    /// The program as a child with pipes.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_residuum"));
        command.args(arguments).env_clear().env("RESIDUUM_URL", &self.url);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Captures texts with the program. Returns the ids of their caches.
    pub fn capture(&self, arguments: &[&str]) -> Vec<String> {
        let ran = self.run(&[&["run", "-q"], arguments].concat()).ok();
        ran.out().lines().map(str::to_owned).collect()
    }

    /// Captures one text with the program. Returns the id of its cache.
    pub fn one(&self, arguments: &[&str]) -> String {
        let ids = self.capture(arguments);
        assert_eq!(ids.len(), 1);
        ids[0].clone()
    }

    /// The answer of the server to the same question.
    pub async fn answer(&self, path: &str) -> Value {
        let answer = self.app.get(path).await;
        assert!(answer.status.is_success(), "{path}: {:?}", answer.body);
        answer.json()
    }

    pub async fn stop(self) {
        self.stop.cancel();
        drop(self.server.await);
    }
}

/// A server that gives fixed answers, one for each connection, and then the last one again.
pub struct Scripted {
    pub url: String,
    /// What clients sent, request by request.
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub fn new(answers: Vec<Vec<u8>>) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let Ok(mut stream) = stream else { return };
                seen.lock().unwrap().push(request(&mut stream));
                drop(stream.write_all(answers.get(i).or(answers.last()).unwrap()));
            }
        });
        Self { url: format!("http://{address}"), requests }
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        residuum(arguments, &[("RESIDUUM_URL", &self.url)], b"")
    }
}

/// Reads a request with its body.
fn request(stream: &mut impl Read) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    drop(stream.read_exact(&mut body));
    bytes.extend(body);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer with a body.
pub fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").into_bytes();
    bytes.extend(body);
    bytes
}
