//! What the program does when the server is away, busy, locked or hostile.

use std::{net::TcpListener, time::Duration};

use residuum::domain::Scope;

use crate::{
    cli_support::{Scripted, Served, answer, residuum},
    support::TestApp,
};

#[test]
fn without_a_server_the_program_says_how_to_start_one() {
    // a port that was free a moment ago
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("127.0.0.1:{port}");
    for arguments in [&["ps"][..], &["run", "x"], &["caches", "ls", "--json"], &["get", "@last"], &["models"]] {
        let ran = residuum(&[arguments, &["--url", &url]].concat(), &[], b"");
        let err = ran.failed(5);
        let expected = format!("residuum: no server at http://{url}: start one with `residuum serve`");
        assert!(err.starts_with(&expected), "{err}");
        assert!(ran.bytes.is_empty());
    }
    assert!(residuum(&["ps", "--url", "nonsense://x"], &[], b"").failed(2).contains("--url"));
}

#[test]
fn help_and_completions_need_no_server() {
    let help = residuum(&["--help"], &[], b"").ok();
    for command in [
        "run",
        "ps",
        "runs",
        "caches",
        "get",
        "tokens",
        "lens",
        "compare",
        "search",
        "patch",
        "import",
        "export",
        "models",
        "open",
        "completions",
        "serve",
        "verify",
        "gc",
        "backup",
        "keys",
        "openapi",
        "healthcheck",
    ] {
        assert!(
            help.words().iter().any(|words| words.first() == Some(&command)),
            "{command} is missing:\n{}",
            help.out()
        );
        residuum(&[command, "--help"], &[], b"").ok();
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(residuum(&["completions", shell], &[], b"").ok().out().contains("--no-wait"), "{shell}");
    }
    residuum(&["completions", "csh"], &[], b"").failed(2);
    residuum(&["walk"], &[], b"").failed(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_from_a_file_or_the_environment() {
    let app = TestApp::attentive().await;
    let (_, header) = app.key("default", &[Scope::Write]).await;
    let key = header.trim_start_matches("Bearer ").to_owned();
    let served = Served::of(app).await;
    assert!(served.run(&["ps"]).failed(4).contains("code api_key_required"));
    let url = ("RESIDUUM_URL", served.url.as_str());
    residuum(&["ps"], &[url, ("RESIDUUM_API_KEY", &key)], b"").ok();
    assert!(residuum(&["ps"], &[url, ("RESIDUUM_API_KEY", "rsd_x")], b"").failed(4).contains("api_key"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{key}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    residuum(&["ps", "--api-key-file", path], &[url], b"").ok();
    residuum(&["ps"], &[url, ("RESIDUUM_API_KEY_FILE", path)], b"").ok();
    residuum(&["ps", "--api-key-file", "/nowhere"], &[url], b"").failed(1);
    // a key of another scope
    let denied = residuum(&["models", "unload", "tiny"], &[url, ("RESIDUUM_API_KEY", &key)], b"");
    assert!(denied.failed(4).contains("code scope_missing"));
    served.stop().await;
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let run = br#"{"id": "x", "status": "completed", "n_items": "many", "caches": 3}"#;
    let commands: [&[&str]; 6] = [
        &["ps"],
        &["caches", "ls"],
        &["runs", "show", "x"],
        &["lens", "x"],
        &["compare", "a", "b"],
        &["patch", "a", "-a", "b", "-m", "m"],
    ];
    for body in [&b""[..], b"<html>hello</html>", b"null", b"[]", b"{}", b"{\"items\": 3}", b"\xff\xfe", run, &deep] {
        for command in commands {
            let server = Scripted::new(vec![answer("200 OK\r\ncontent-type: application/json", body)]);
            let ran = server.run(command);
            assert!(matches!(ran.code, Some(1 | 5)), "{command:?}: {ran:?}");
            assert!(ran.err.starts_with("residuum: ") && !ran.err.contains("panicked"), "{ran:?}");
        }
    }
    // not HTTP, and an answer that breaks off
    for bytes in
        [b"SSH-2.0-OpenSSH\r\n".to_vec(), b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(), Vec::new()]
    {
        let ran = Scripted::new(vec![bytes]).run(&["ps"]);
        assert_eq!(ran.code, Some(5), "{ran:?}");
    }
    // an error that is no problem object, and one that gives orders to the terminal
    let ran = Scripted::new(vec![answer("502 Bad Gateway", b"<html>nginx</html>")]).run(&["ps"]);
    assert!(ran.failed(1).contains("answered 502"), "{ran:?}");
    let evil = br#"{"title": "t", "detail": "\u001b[2Jgone\u009b31m", "code": "\u001b]0;x\u0007", "errors": [{"pointer": "\u202e", "detail": "\r"}]}"#;
    let ran =
        Scripted::new(vec![answer("422 Unprocessable\r\ncontent-type: application/problem+json", evil)]).run(&["ps"]);
    assert!(!ran.failed(4).chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'), "{:?}", ran.err);
}

#[test]
fn texts_of_a_server_cannot_give_orders_to_a_terminal() {
    let body = r#"{"items": [{"id": "a\u001b[2J", "status": "running\u0007", "model": "m\u009b1m", "tags": ["\u202ex"]}], "next_cursor": null}"#;
    for arguments in [&["runs", "ls"][..], &["runs", "ls", "--json"], &["runs", "ls", "-q"]] {
        let ran = Scripted::new(vec![answer("200 OK", body.as_bytes())]).run(arguments).ok();
        assert!(!ran.out().chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'), "{:?}", ran.out());
    }
}

#[test]
fn a_listing_that_never_ends_is_left() {
    let page = br#"{"items": [], "next_cursor": "again"}"#;
    let ran = Scripted::new(vec![answer("200 OK", page)]).run(&["caches", "ls", "--all"]).ok();
    assert_eq!(ran.out(), "no cache matches\n");
}

#[test]
fn a_busy_server_is_asked_again_under_the_same_key() {
    let busy = |status: &str| {
        answer(&format!("{status}\r\nretry-after: 0"), br#"{"title": "t", "detail": "d", "code": "queue_full"}"#)
    };
    let run = br#"{"id": "r1", "status": "completed", "n_items": 1, "n_done": 1, "caches": ["c1"]}"#;
    let server = Scripted::new(vec![busy("429 Too Many"), busy("503 Unavailable"), answer("202 Accepted", run)]);
    let ran = server.run(&["run", "x", "-m", "m", "-q"]).ok();
    assert_eq!(ran.out(), "c1\n");
    let requests = server.requests.lock().unwrap().clone();
    let key = |request: &String| {
        let lines =
            request.lines().find_map(|line| line.to_lowercase().strip_prefix("idempotency-key: ").map(str::to_owned));
        lines.unwrap_or_else(|| panic!("no key in {request}"))
    };
    assert_eq!(requests.len(), 3);
    assert!(
        requests
            .iter()
            .all(|request| key(request) == key(&requests[0])
                && request.ends_with(r#"{"model":"m","items":[{"text":"x"}]}"#)),
        "{requests:?}"
    );
    // a refusal is not repeated
    let server = Scripted::new(vec![answer("422 No", br#"{"title": "t", "detail": "d", "code": "unknown_hook"}"#)]);
    server.run(&["run", "x", "-m", "m"]).failed(4);
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[test]
fn ctrl_c_cancels_the_run() {
    let running = br#"{"id": "r1", "status": "running", "n_items": 5, "n_done": 2, "caches": []}"#;
    let server = Scripted::new(vec![answer("200 OK", running)]);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_residuum"))
        .args(["run", "x", "-m", "m", "--url", &server.url])
        .env_clear()
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while server.requests.lock().unwrap().len() < 2 {
        assert!(std::time::Instant::now() < deadline, "the run is not looked at");
        std::thread::yield_now();
    }
    // a shell has its own `kill`
    let kill = format!("kill -INT {}", child.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = child.wait().unwrap();
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(status.code(), Some(130), "{err}");
    assert!(err.contains("cancelled run r1: 2 of 5 inputs have caches"), "{err}");
    assert!(server.requests.lock().unwrap().iter().any(|request| request.starts_with("POST /v1/runs/r1/cancel ")));
}
