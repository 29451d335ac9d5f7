//! Posting inputs as one or several runs, and waiting for them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::{
    answers::{Problem, Run},
    call::{Call, segment},
    failure::{Failure, Outcome},
    input_lines::Line,
    interrupt,
    progress::{Counts, progress, set_total},
    run_report::{BulkOptions, Report},
    server::Client,
    units::plural,
};

/// Runs that are posted before the oldest has ended: the server computes one while the next is on its way.
const WINDOW: usize = 3;
/// Seconds between two looks at a run.
const LOOK: u32 = 1;
/// How long a run is posted again while the queue is full, or the server away.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long one try to post may take besides its answer: meanwhile Ctrl-C waits.
const ONE_TRY: Duration = Duration::from_secs(3);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A run that was posted.
struct Going {
    run: Run,
    /// The number of each input's line.
    lines: Vec<u64>,
}

/// Inputs on their way.
pub(super) struct Bulk<'a> {
    client: &'a Client,
    /// The body of every run but its inputs.
    base: Map<String, Value>,
    options: BulkOptions,
    bar: ProgressBar,
    going: VecDeque<Going>,
    report: Report<'a>,
    posted: Posted,
    n_posted: u64,
    n_ended: u64,
    has_total: bool,
    refused: Option<Failure>,
}

/// Ids of the runs that were posted and have not ended, shared with the handler of Ctrl-C. It is locked while a run is
/// being posted, so that the handler knows its id.
type Posted = Arc<Mutex<Vec<String>>>;

impl<'a> Bulk<'a> {
    pub(super) fn new(client: &'a Client, base: Map<String, Value>, options: BulkOptions, total: Option<u64>) -> Self {
        let bar = progress(&client.out, total, Counts::Things);
        bar.set_message(if options.wait { "capturing" } else { "posting" });
        Self {
            client,
            base,
            options,
            bar,
            going: VecDeque::new(),
            report: Report::new(client, options),
            posted: Posted::default(),
            n_posted: 0,
            n_ended: 0,
            has_total: total.is_some(),
            refused: None,
        }
    }

    /// Posts the batches and, unless they are left to the server, waits for their runs.
    ///
    /// # Errors
    /// [`Failure::Usage`] for a bad line and for no input at all, what the server refuses, and [`Failure::Other`] if an
    /// input failed. Batches before a bad line are computed and shown nevertheless.
    pub(super) fn run(mut self, batches: impl Iterator<Item = Outcome<Vec<Line>>>) -> Outcome {
        if self.options.wait {
            cancel_on_interrupt(self.client.another(), self.posted.clone(), self.bar.clone());
        }
        let sent = self.post_all(batches);
        if !self.has_total {
            set_total(&self.bar, self.n_posted, Counts::Things);
        }
        while !self.going.is_empty() {
            self.finish_oldest()?;
        }
        self.bar.finish_and_clear();
        // a part of the inputs was posted: they are shown before the failure
        let ended = self.report.end();
        sent.and(self.refused.map_or(Ok(()), Err)).and(ended)
    }

    fn post_all(&mut self, mut batches: impl Iterator<Item = Outcome<Vec<Line>>>) -> Outcome {
        let Some(first) = batches.next() else { return Err(Failure::Usage("there is no input".to_owned())) };
        let mut next = batches.next();
        if next.is_some() {
            // a person's own small runs go first
            self.base.entry("priority").or_insert_with(|| json!("bulk"));
        }
        self.post(first?)?;
        while let Some(batch) = next {
            self.post(batch?)?;
            next = batches.next();
        }
        Ok(())
    }

    /// Posts a batch, in halves if the server takes no run of that size.
    fn post(&mut self, batch: Vec<Line>) -> Outcome {
        let mut waiting = VecDeque::from([batch]);
        while let Some(mut batch) = waiting.pop_front() {
            while self.going.len() >= WINDOW {
                self.finish_oldest()?;
            }
            match self.post_one(&batch) {
                Ok(run) => self.posted_one(run, &batch)?,
                Err(Failure::Refused { problem, .. }) if batch.len() > 1 && is_too_large(&problem) => {
                    let rest = batch.split_off(batch.len() / 2);
                    waiting.push_front(rest);
                    waiting.push_front(batch);
                }
                Err(failure) => return Err(with_lines(failure, &batch)),
            }
        }
        Ok(())
    }

    fn post_one(&self, batch: &[Line]) -> Outcome<Run> {
        let mut body = self.base.clone();
        let items: Vec<Value> = batch.iter().map(|line| line.item.clone().into()).collect();
        body.insert("items".to_owned(), items.into());
        let (body, key) = (body.into(), new_key());
        let (begun, mut pause) = (Instant::now(), Duration::from_secs(1));
        loop {
            let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
            match post_run(self.client, &body, &key, ONE_TRY) {
                Ok(run) => {
                    posted.extend((!run.is_final()).then(|| run.id.clone()));
                    return Ok(run);
                }
                Err(failure) if self.is_passing(&failure) && begun.elapsed() < PATIENCE => {
                    drop(posted);
                    self.bar.set_message("waiting for the server");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(MAX_PAUSE);
                    self.bar.set_message("capturing");
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether the same request may succeed later.
    fn is_passing(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Refused { problem, .. } => {
                ["queue_full", "client_queue_full", "unavailable", "server_busy"].contains(&problem.code.as_str())
            }
            Failure::Unreachable(_) => self.client.has_answered(),
            _ => false,
        }
    }

    fn posted_one(&mut self, run: Run, batch: &[Line]) -> Outcome {
        self.n_posted += run.n_items;
        let lines = batch.iter().map(|line| line.number).collect();
        if self.options.wait {
            self.going.push_back(Going { run, lines });
            return Ok(());
        }
        self.bar.set_position(self.n_posted);
        self.bar.suspend(|| self.report.posted(&run))
    }

    /// Waits for the oldest run, and shows it.
    fn finish_oldest(&mut self) -> Outcome {
        while self.going.front().is_some_and(|going| !going.run.is_final()) {
            for (i, going) in self.going.iter_mut().enumerate() {
                // the server holds the answer about the first one back for a while
                let wait = if i == 0 { LOOK } else { 0 };
                let call = Call::get(format!("/v1/runs/{}", segment(&going.run.id))).wait(wait).patient(PATIENCE);
                going.run = self.client.json(&call)?.read()?;
            }
            let done: u64 = self.going.iter().map(|going| going.run.n_done + going.run.n_failed).sum();
            self.bar.set_position(self.n_ended + done);
        }
        let Some(Going { run, lines }) = self.going.pop_front() else { return Ok(()) };
        self.n_ended += run.n_items;
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != run.id);
        let (bar, report) = (self.bar.clone(), &mut self.report);
        bar.suspend(|| report.ended(run, &lines))
    }
}

/// Posts a run under an idempotency key, so that it is not queued twice if the answer is lost.
///
/// # Errors
/// Those of the request.
pub(super) fn post_run(client: &Client, body: &Value, key: &str, patience: Duration) -> Outcome<Run> {
    client.json(&Call::post("/v1/runs", body).once(key).patient(patience))?.read()
}

/// A new idempotency key.
pub(super) fn new_key() -> String {
    format!("cli-{}", uuid::Uuid::now_v7())
}

fn is_too_large(problem: &Problem) -> bool {
    matches!(problem.code.as_str(), "too_many_items" | "too_many_run_tokens" | "body_too_large")
}

/// Names the line of the input at fault.
fn with_lines(failure: Failure, batch: &[Line]) -> Failure {
    let Failure::Refused { message, problem } = &failure else { return failure };
    let index = problem.errors.iter().find_map(|e| e.pointer.strip_prefix("/items/")?.split('/').next()?.parse().ok());
    let line = index.and_then(|index: usize| batch.get(index)).filter(|_| batch.len() > 1);
    match line {
        Some(line) => Failure::Refused {
            message: format!("input {} was refused: {message}", line.number),
            problem: problem.clone(),
        },
        None => failure,
    }
}

/// At Ctrl-C: cancels what was posted, and says what is left of it.
pub(super) fn cancel_on_interrupt(client: Client, posted: Posted, bar: ProgressBar) {
    interrupt::before_ending(move || {
        let posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
        bar.finish_and_clear();
        for id in posted.iter() {
            let call = Call::post(format!("/v1/runs/{}/cancel", segment(id)), &json!({})).patient(Duration::ZERO);
            match client.json(&call).and_then(|answer| answer.read::<Run>()) {
                Ok(run) => {
                    let inputs = plural(run.n_items, "input");
                    // it may have ended a moment before
                    let what =
                        if matches!(run.status.as_str(), "completed" | "failed") { "finished" } else { "cancelled" };
                    eprintln!("residuum: {what} run {id}: {} of {inputs} have caches", run.n_done);
                }
                Err(failure) => {
                    eprintln!("residuum: run {id} goes on, cancel it with `residuum runs cancel {id}`: {failure}");
                }
            }
        }
        if !posted.is_empty() {
            eprintln!("residuum: the caches are kept, and the same command computes only the rest");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::answers::FieldError;

    #[test]
    fn a_refused_input_is_named_by_its_line() {
        let batch: Vec<Line> = [3, 7].map(|number| Line { number, item: Map::new() }).to_vec();
        let problem = |pointer: &str| Problem {
            detail: "no".to_owned(),
            code: "empty_input".to_owned(),
            errors: vec![FieldError { pointer: pointer.to_owned(), detail: "no".to_owned() }],
            ..Problem::default()
        };
        let text = |pointer| with_lines(Failure::of_problem(422, &problem(pointer)), &batch).to_string();
        assert!(text("/items/1/text").starts_with("input 7 was refused: no"), "{}", text("/items/1/text"));
        assert!(text("/items/9").starts_with("no"));
        assert!(text("/capture/layers").starts_with("no"));
    }
}
