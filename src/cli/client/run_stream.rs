//! A continuation, shown as it is generated.

use std::{
    io::BufReader,
    sync::{Arc, Mutex},
    time::Duration,
};

use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    answers::{Cache, Completion, Problem, Run},
    call::{Call, segment},
    event_stream::Events,
    failure::{Failure, Outcome},
    input_lines::Line,
    output::Style,
    run_batches::{cancel_on_interrupt, new_key, post_run},
    run_report::captured,
    server::Client,
    units::plural,
    visible::{visible, visible_lines},
};

/// How long the run is posted again while the queue is full.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds that a request waits for the run to end.
const WAIT: u32 = 20;

/// The data of an event `token` or `completion`.
#[derive(Debug, Deserialize)]
struct Written {
    #[serde(default)]
    text: String,
    #[serde(default)]
    error: Option<Problem>,
}

/// Posts a run of one input that generates, and writes the text as it comes.
///
/// # Errors
/// Those of the requests, and [`Failure::Other`] if the run failed.
pub(super) fn stream_generation(client: &Client, base: &Map<String, Value>, lines: &[Line]) -> Outcome {
    let mut body = base.clone();
    body.insert("items".to_owned(), lines.iter().map(|line| Value::from(line.item.clone())).collect());
    let run = post_run(client, &body.into(), &new_key(), PATIENCE)?;
    let posted = Arc::new(Mutex::new(vec![run.id.clone()]));
    cancel_on_interrupt(client.another(), posted.clone(), ProgressBar::hidden());
    let out = &client.out;
    if let Some(text) = lines.first().and_then(|line| line.item.get("text")).and_then(Value::as_str) {
        out.print(&out.paint(Style::Faint, &visible_lines(text)))?;
    }
    let streamed = follow(client, &run)?;
    let ended = wait(client, &run.id)?;
    if let Ok(mut posted) = posted.lock() {
        posted.clear();
    }
    finish(client, &ended, &streamed)
}

/// Writes the text of the run's events until it ends. Returns what was written.
fn follow(client: &Client, run: &Run) -> Outcome<String> {
    let call = Call::get(format!("/v1/runs/{}/events", segment(&run.id))).header("accept", "text/event-stream");
    let response = client.send(&call)?;
    let mut written = String::new();
    for event in Events::new(BufReader::new(response.into_body().into_reader())) {
        // the run goes on without its events, and is waited for below
        let Ok(event) = event else { break };
        match event.name.as_str() {
            "token" | "completion" => {
                let Written { text, error } = serde_json::from_str(&event.data).map_err(|e| Failure::unexpected(&e))?;
                client.out.print(&visible_lines(&text))?;
                written += &text;
                if let Some(problem) = error {
                    eprintln!("\nresiduum: {problem}");
                }
            }
            _ => {}
        }
    }
    Ok(written)
}

fn wait(client: &Client, id: &str) -> Outcome<Run> {
    loop {
        let run: Run = client.json(&Call::get(format!("/v1/runs/{}", segment(id))).wait(WAIT))?.read()?;
        if run.is_final() {
            return Ok(run);
        }
    }
}

/// Writes what the events did not have, and a line about the cache.
fn finish(client: &Client, run: &Run, streamed: &str) -> Outcome {
    let out = &client.out;
    let Some(id) = run.caches.first() else {
        out.line("")?;
        let why = run.error.as_ref().map_or_else(|| format!("it was {}", visible(&run.status)), ToString::to_string);
        return Err(Failure::Other(format!("run {} has no cache: {why}", visible(&run.id))));
    };
    let cache: Cache = client.json(&Call::get(format!("/v1/caches/{}", segment(id))))?.read()?;
    let Some(Completion { text, token_ids, finish_reason, .. }) = &cache.completion else {
        return out.line("");
    };
    // all of it if the run had ended before its events could be followed
    let rest = text.strip_prefix(streamed).unwrap_or(if streamed.is_empty() { text } else { "" });
    out.line(&visible_lines(rest))?;
    let tokens = plural(token_ids.len() as u64, "token");
    let reason = visible(finish_reason).replace('_', " ");
    let facts = format!("cache {}  {tokens}, ended by {reason}; {}", visible(&cache.id), captured(&cache));
    out.legend(&facts)
}
