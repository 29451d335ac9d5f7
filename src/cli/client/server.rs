//! The server that a command asks: its address and key, requests with retries, and its errors.

use std::{
    cell::Cell,
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::{Agent, Body, http};

use super::{
    answers::{Page, Problem},
    call::Call,
    failure::{Failure, Outcome},
    output::Output,
    visible::visible,
};

/// Maximum bytes of a JSON answer.
const MAX_ANSWER: u64 = 256 << 20;
/// Maximum bytes of an error.
const MAX_PROBLEM: u64 = 1 << 20;
/// Maximum time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// Maximum time between a request and the head of its answer, besides what the request asks the server to wait.
const ANSWER: Duration = Duration::from_secs(150);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// After how long a person is told that it is repeated.
const NOTE_AFTER: Duration = Duration::from_secs(5);
/// Items on a page of a listing.
const PAGE: usize = 200;

/// Which server, and how to answer. All of it may stand before or after a subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server and output")]
pub(super) struct Connection {
    /// Address of the server.
    #[arg(long, env = "RESIDUUM_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: String,
    /// File with the API key, if the server requires one. The variable RESIDUUM_API_KEY may hold the key itself.
    #[arg(long, env = "RESIDUUM_API_KEY_FILE", value_name = "FILE", global = true)]
    api_key_file: Option<PathBuf>,
    /// Print JSON: a listing as one object per line, anything else as the server answered it.
    #[arg(long, global = true)]
    json: bool,
    /// Print only ids, and show no progress.
    #[arg(short, long, global = true)]
    quiet: bool,
}

/// A server and the output of the command that asks it.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    /// Whether it has answered before: then it may only be away for a moment.
    answered: Cell<bool>,
    /// Where the command writes.
    pub(super) out: Output,
}

/// An answer in JSON, as it came and parsed.
#[derive(Debug)]
pub(super) struct Answer {
    /// As it came.
    pub(super) text: String,
    /// Parsed.
    pub(super) value: Value,
}

impl Answer {
    /// The parts that a command shows.
    ///
    /// # Errors
    /// If they have other types than expected.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Outcome<T> {
        read(&self.value)
    }
}

/// The parts of a value that a command shows.
///
/// # Errors
/// If they have other types than expected.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Outcome<T> {
    T::deserialize(value).map_err(|e| Failure::unexpected(&e))
}

impl Connection {
    /// The server, and standard output. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an address or a key that cannot be one.
    pub(super) fn open(&self) -> Outcome<Client> {
        Client::new(&self.url, self.key()?.as_deref(), Output::standard(self.json, self.quiet))
    }

    /// The key: that of the file, or else that of the environment.
    fn key(&self) -> Outcome<Option<String>> {
        if let Some(path) = &self.api_key_file {
            return fs::read_to_string(path).map(Some).map_err(|e| Failure::file(path, &e));
        }
        Ok(std::env::var("RESIDUUM_API_KEY").ok())
    }
}

impl Client {
    fn new(url: &str, key: Option<&str>, out: Output) -> Outcome<Self> {
        let url = url.trim();
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: http::Uri =
            url.parse().map_err(|_| Failure::Usage(format!("--url: {} is not an address", visible(&url))))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() || uri.query().is_some() {
            return Err(Failure::Usage(format!(
                "--url: {} is not an http address such as http://127.0.0.1:8080",
                visible(&url)
            )));
        }
        let key = key.map(str::trim).filter(|key| !key.is_empty());
        if key.is_some_and(|key| key.chars().any(|c| !c.is_ascii_graphic())) {
            return Err(Failure::Usage("the API key has characters that no key has".to_owned()));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(3)
            .timeout_connect(Some(CONNECT))
            .user_agent(concat!("residuum/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&uri) {
            // a proxy cannot reach this machine's own addresses
            config = config.proxy(None);
        }
        let url = url.trim_end_matches('/').to_owned();
        let authorization = key.map(|key| format!("Bearer {key}"));
        let agent = Agent::new_with_config(config.build());
        Ok(Self { agent, url, authorization, answered: Cell::new(false), out })
    }

    /// A second connection to the same server, for another thread.
    pub(super) fn another(&self) -> Self {
        let Self { agent, url, authorization, answered, out } = self;
        Self {
            agent: agent.clone(),
            url: url.clone(),
            authorization: authorization.clone(),
            answered: answered.clone(),
            out: out.clone(),
        }
    }

    /// Whether the server has answered before.
    pub(super) const fn has_answered(&self) -> bool {
        self.answered.get()
    }

    /// Address of the server, without a slash at its end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request whose answer is JSON.
    ///
    /// # Errors
    /// As [`Self::send`]; [`Failure::Other`] if the answer is not JSON or too large.
    pub(super) fn json(&self, call: &Call) -> Outcome<Answer> {
        let mut response = self.send(call)?;
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let text = body.map_err(|e| self.unread(&e))?;
        let value = serde_json::from_str(&text);
        let value = value.map_err(|_| {
            Failure::Other(format!("{} answered something that is not JSON: is it a Residuum server?", self.url))
        })?;
        Ok(Answer { text, value })
    }

    /// Sends a request whose answer is not read.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(super) fn done(&self, call: &Call) -> Outcome {
        self.send(call).map(drop)
    }

    /// Walks through a listing, up to `limit` items.
    ///
    /// # Errors
    /// As [`Self::json`], and those of `each`.
    pub(super) fn pages(&self, call: &Call, limit: usize, mut each: impl FnMut(Value) -> Outcome) -> Outcome {
        let (mut left, mut cursor) = (limit, None);
        while left > 0 {
            let page = call.clone().query("limit", left.min(PAGE)).maybe("cursor", cursor.as_ref());
            let Page { items, next_cursor } = self.json(&page)?.read()?;
            let n = items.len().min(left);
            items.into_iter().take(n).try_for_each(&mut each)?;
            left -= n;
            // a server that gives no items and the same place again would never end
            if n == 0 || next_cursor.is_none() || next_cursor == cursor {
                break;
            }
            cursor = next_cursor;
        }
        Ok(())
    }

    /// Sends a request, again while the server is busy or, if it has answered before, away.
    ///
    /// # Errors
    /// [`Failure::Unreachable`]; otherwise what the server's error says.
    pub(super) fn send(&self, call: &Call) -> Outcome<http::Response<Body>> {
        self.send_with(call, || Ok(call.body.clone().unwrap_or_default()))
    }

    /// Sends a request with a body that `body` opens for each try.
    ///
    /// # Errors
    /// As [`Self::send`], and those of `body`.
    pub(super) fn send_with<B: ureq::AsSendBody>(
        &self,
        call: &Call,
        mut body: impl FnMut() -> Outcome<B>,
    ) -> Outcome<http::Response<Body>> {
        let (begun, mut pause, mut noted) = (Instant::now(), Duration::from_millis(250), false);
        loop {
            let sent = self.try_once(call, body()?);
            let wanted = match &sent {
                Ok(response) => retry_after(response, call.repeatable),
                Err(_) if call.repeatable && self.answered.get() => Some(pause),
                Err(_) => None,
            };
            if let Some(wanted) = wanted
                && begun.elapsed() + wanted <= call.patience
            {
                if begun.elapsed() > NOTE_AFTER && !noted && !self.out.quiet {
                    eprintln!("residuum: {} is busy or away; trying again", self.url);
                    noted = true;
                }
                std::thread::sleep(wanted.max(pause / 2));
                pause = (pause * 2).min(MAX_PAUSE);
                continue;
            }
            let response = sent.map_err(|e| self.unreachable(&e))?;
            self.answered.set(true);
            return if response.status().is_success() { Ok(response) } else { Err(self.problem(response)) };
        }
    }

    fn try_once(&self, call: &Call, body: impl ureq::AsSendBody) -> Result<http::Response<Body>, ureq::Error> {
        let mut request = http::Request::builder().method(call.method.clone()).uri(call.url(&self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if matches!(call.method, http::Method::GET | http::Method::DELETE) {
            self.run(call, request.body(()).map_err(ureq::Error::Http)?)
        } else {
            self.run(call, request.body(body).map_err(ureq::Error::Http)?)
        }
    }

    fn run(
        &self,
        call: &Call,
        request: http::Request<impl ureq::AsSendBody>,
    ) -> Result<http::Response<Body>, ureq::Error> {
        let limit = Some(ANSWER + call.wait);
        self.agent.run(self.agent.configure_request(request).timeout_recv_response(limit).build())
    }

    fn problem(&self, mut response: http::Response<Body>) -> Failure {
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        // an error that cannot be read to its end is still an error
        let _ = response.body_mut().as_reader().take(MAX_PROBLEM).read_to_end(&mut bytes);
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) if !problem.detail.is_empty() || !problem.title.is_empty() => {
                Failure::of_problem(status, &problem)
            }
            _ => Failure::of_problem(
                status,
                &Problem {
                    detail: format!(
                        "{} answered {status} without an error of Residuum: is it a Residuum server?",
                        self.url
                    ),
                    ..Problem::default()
                },
            ),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let refused = matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)
            || matches!(error, ureq::Error::ConnectionFailed);
        let url = &self.url;
        Failure::Unreachable(match error {
            _ if refused && !self.answered.get() => {
                format!("no server at {url}: start one with `residuum serve`, or name another with --url")
            }
            ureq::Error::HostNotFound => format!("no server at {url}: there is no such host"),
            ureq::Error::Timeout(_) => format!("{url} does not answer in time"),
            error => format!("{url} does not answer: {}", visible(&error.to_string())),
        })
    }

    /// The failure of an answer that broke off.
    pub(super) fn unread(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::Unreachable(format!("the answer of {} broke off: {}", self.url, visible(&error.to_string())))
    }
}

fn is_loopback(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// How long the server asks to wait before the request is sent again. An answer of 503 without that is final, unless the
/// request changes nothing.
fn retry_after(response: &http::Response<Body>, repeatable: bool) -> Option<Duration> {
    let header = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse::<u32>().ok());
    match response.status().as_u16() {
        429 | 503 if header.is_some() => header.map(|seconds| Duration::from_secs(seconds.into())),
        429 => Some(Duration::from_secs(1)),
        503 if repeatable => Some(Duration::from_secs(1)),
        _ => None,
    }
}

/// Reads a file for a request, `-` for standard input.
///
/// # Errors
/// [`Failure::Other`] if it cannot be read or is not UTF-8.
pub(super) fn read_text(path: &Path) -> Outcome<String> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    text.map_err(|e| Failure::file(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, key: Option<&str>) -> Outcome<Client> {
        Client::new(url, key, Output::plain(None))
    }

    #[test]
    fn an_address_may_be_short_and_must_be_http() {
        assert_eq!(client("127.0.0.1:8080/", None).unwrap().url(), "http://127.0.0.1:8080");
        assert_eq!(client("https://a.example/residuum/", None).unwrap().url(), "https://a.example/residuum");
        for bad in ["", "ftp://a", "http://", "http://a b", "http://a?x=1"] {
            assert_eq!(client(bad, None).map(|_| ()).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_key_is_trimmed_and_must_be_one_word() {
        let of = |key| client("http://a", Some(key)).map(|c| c.authorization);
        assert_eq!(of("rsd_1_2\n").unwrap().as_deref(), Some("Bearer rsd_1_2"));
        assert_eq!(of(" ").unwrap(), None);
        assert_eq!(of("a\r\nx: y").unwrap_err().code(), 2);
    }
}
