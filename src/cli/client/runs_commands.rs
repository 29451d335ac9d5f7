//! `residuum ps` and `residuum runs`: runs of the server.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    answers::Run,
    call::{Call, segment},
    failure::{Failure, Outcome},
    output::{Output, Style},
    progress::{Counts, progress},
    references::{RUN_HELP, run_id},
    server::{Answer, Client, Connection, read},
    table::{Cell, Column, Table},
    units::{age, bar, between, span},
    visible::visible,
};

/// Seconds between two looks at a run.
const LOOK: u32 = 1;
/// Columns of a bar.
const BAR: usize = 10;

/// List the runs that have not ended, those being computed first.
#[derive(Debug, Args)]
pub(in crate::cli) struct Ps {
    /// Also list the newest runs that have ended.
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Ps {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let mut runs = Vec::new();
        for status in ["running", "queued"] {
            client.pages(&Call::get("/v1/runs").query("status", status), usize::MAX, |run| {
                runs.push(run);
                Ok(())
            })?;
        }
        if self.all {
            client.pages(&Call::get("/v1/runs"), 20, |run| {
                if !runs.iter().any(|known: &Value| known.get("id") == run.get("id")) {
                    runs.push(run);
                }
                Ok(())
            })?;
        }
        show_runs(&client, &runs, "no run is under way")
    }
}

/// List, show, wait for, cancel and delete runs.
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(in crate::cli) struct Runs {
    #[command(subcommand)]
    action: RunsAction,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum RunsAction {
    /// List runs, newest first.
    Ls(RunsLs),
    /// Show a run.
    #[command(after_help = RUN_HELP)]
    Show {
        /// The run.
        run: String,
    },
    /// Wait for runs to end; exits with 1 if one did not complete.
    #[command(after_help = RUN_HELP)]
    Wait {
        /// The runs.
        #[arg(required = true)]
        runs: Vec<String>,
    },
    /// Cancel runs. Caches that exist are kept.
    #[command(after_help = RUN_HELP)]
    Cancel {
        /// The runs.
        #[arg(required = true)]
        runs: Vec<String>,
    },
    /// Delete runs with their caches.
    #[command(after_help = RUN_HELP)]
    Rm {
        /// The runs.
        #[arg(required = true)]
        runs: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct RunsLs {
    /// Has this status.
    #[arg(long, value_parser = ["queued", "running", "completed", "failed", "cancelled"])]
    status: Option<String>,
    /// Name of the model.
    #[arg(short, long)]
    model: Option<String>,
    /// Has this tag; may be repeated: has all of them.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Accepted at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Accepted before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Maximum number of runs.
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
}

impl Runs {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        match &self.action {
            RunsAction::Ls(ls) => ls.run(&client),
            RunsAction::Show { run } => show(&client, &client.json(&Call::get(path(&client, run)?))?),
            RunsAction::Wait { runs } => wait_for(&client, runs),
            RunsAction::Cancel { runs } => cancel(&client, runs),
            RunsAction::Rm { runs } => {
                // names count from the newest, so all are looked up before any is deleted
                let paths = runs.iter().map(|run| path(&client, run)).collect::<Outcome<Vec<_>>>()?;
                paths.iter().try_for_each(|path| {
                    client.done(&Call::delete(path.as_str()))?;
                    deleted(&client.out, path)
                })
            }
        }
    }
}

impl RunsLs {
    fn run(&self, client: &Client) -> Outcome {
        let call = Call::get("/v1/runs")
            .maybe("status", self.status.as_ref())
            .maybe("model", self.model.as_ref())
            .each("tag", &self.tags)
            .maybe("created_from", self.from.as_ref())
            .maybe("created_to", self.to.as_ref());
        let mut runs = Vec::new();
        client.pages(&call, self.limit, |run| {
            runs.push(run);
            Ok(())
        })?;
        show_runs(client, &runs, "no run matches")
    }
}

fn path(client: &Client, name: &str) -> Outcome<String> {
    Ok(format!("/v1/runs/{}", segment(&run_id(client, name)?)))
}

/// Says that something was deleted.
pub(super) fn deleted(out: &Output, path: &str) -> Outcome {
    let id = path.rsplit('/').next().unwrap_or_default();
    match (out.json, out.quiet) {
        (true, _) => out.json_line(&json!({"id": id, "deleted": true})),
        (_, true) => out.line(&visible(id)),
        _ => out.line(&format!("deleted {}", visible(id))),
    }
}

/// Shows runs as a table; `none` if there is none.
fn show_runs(client: &Client, runs: &[Value], none: &str) -> Outcome {
    let out = &client.out;
    if out.json {
        return runs.iter().try_for_each(|run| out.json_line(run));
    }
    let runs: Vec<Run> = runs.iter().map(read).collect::<Outcome<_>>()?;
    if out.quiet {
        return runs.iter().try_for_each(|run| out.line(&visible(&run.id)));
    }
    let mut table = Table::new(vec![
        Column::word("run"),
        Column::word("status"),
        Column::word("progress"),
        Column::number("done"),
        Column::number("age").optional(),
        Column::text("model"),
        Column::number("took").optional(),
        Column::text("tags").optional(),
    ]);
    let now = Timestamp::now();
    for run in &runs {
        table.push(row(run, now));
    }
    if table.is_empty() { out.line(none) } else { out.print(&table.render(out)) }
}

fn row(run: &Run, now: Timestamp) -> Vec<Cell> {
    let status = match run.queue_position {
        Some(ahead) if run.status == "queued" && ahead > 0 => format!("queued, {ahead} ahead"),
        _ => visible(&run.status),
    };
    let done = run.n_done + run.n_failed;
    #[expect(clippy::cast_precision_loss, reason = "the length of a bar")]
    let share = done as f64 / run.n_items.max(1) as f64;
    let took = between(run.started_at.or(run.created_at), run.finished_at);
    vec![
        visible(&run.id).into(),
        Cell::styled(status, Style::of_status(&run.status)),
        if run.is_final() { "".into() } else { bar(share, BAR).into() },
        format!("{}/{}", run.n_done, run.n_items).into(),
        age(run.created_at, now).into(),
        visible(&run.model).into(),
        took.map(span).unwrap_or_default().into(),
        visible(&run.tags.join(",")).into(),
    ]
}

/// Shows a run.
fn show(client: &Client, answer: &Answer) -> Outcome {
    let out = &client.out;
    if out.json {
        return out.raw(&answer.text);
    }
    let run: Run = answer.read()?;
    if out.quiet {
        return out.line(&visible(&run.id));
    }
    let mut facts: Vec<(&str, String)> = vec![
        ("run", run.id.clone()),
        ("status", run.status.clone()),
        ("model", run.model.clone()),
        ("inputs", format!("{}: {} done, {} reused, {} failed", run.n_items, run.n_done, run.n_reused, run.n_failed)),
    ];
    facts.extend(run.queue_position.map(|n| ("queue", format!("{n} runs ahead"))));
    facts.extend(run.created_at.map(|t| ("created", t.to_string())));
    facts.extend(between(run.created_at, run.started_at).map(|s| ("waited", span(s))));
    facts.extend(between(run.started_at, run.finished_at).map(|s| ("took", span(s))));
    if !run.tags.is_empty() {
        facts.push(("tags", run.tags.join(", ")));
    }
    if !run.metadata.is_empty() {
        facts.push(("metadata", Value::Object(run.metadata.clone()).to_string()));
    }
    facts.extend(run.error.as_ref().map(|problem| ("error", problem.to_string())));
    for (i, cache) in run.caches.iter().enumerate() {
        facts.push((if i == 0 { "caches" } else { "" }, cache.clone()));
    }
    show_facts(out, &facts)?;
    if run.n_done > run.caches.len() as u64 {
        out.legend(&format!("residuum caches ls --all --run {}  lists all caches", visible(&run.id)))?;
    }
    Ok(())
}

/// Names and values, a line each.
pub(super) fn show_facts(out: &Output, facts: &[(&str, String)]) -> Outcome {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    facts.iter().try_for_each(|(name, value)| {
        let name = format!("{name:<width$}");
        // an error has several lines
        let value = value.split('\n').map(visible).collect::<Vec<_>>().join(&format!("\n{}", " ".repeat(width)));
        out.line(&format!("{}{value}", out.paint(Style::Faint, &name)))
    })
}

fn wait_for(client: &Client, names: &[String]) -> Outcome {
    let paths = names.iter().map(|name| path(client, name)).collect::<Outcome<Vec<_>>>()?;
    let mut unfinished = 0;
    for path in &paths {
        let progress_bar = progress(&client.out, None, Counts::Things);
        progress_bar.set_message("waiting");
        let answer = loop {
            let answer = client.json(&Call::get(path.as_str()).wait(LOOK))?;
            let run: Run = answer.read()?;
            super::progress::set_total(&progress_bar, run.n_items, Counts::Things);
            progress_bar.set_position(run.n_done + run.n_failed);
            if run.is_final() {
                unfinished += u64::from(run.status != "completed");
                break answer;
            }
        };
        progress_bar.finish_and_clear();
        one(client, &answer)?;
    }
    match unfinished {
        0 => Ok(()),
        n => Err(Failure::Other(format!("{n} of {} runs did not complete", paths.len()))),
    }
}

fn cancel(client: &Client, names: &[String]) -> Outcome {
    let paths = names.iter().map(|name| path(client, name)).collect::<Outcome<Vec<_>>>()?;
    paths.iter().try_for_each(|path| one(client, &client.json(&Call::post(format!("{path}/cancel"), &json!({})))?))
}

/// A run in a line, after something was done to it.
fn one(client: &Client, answer: &Answer) -> Outcome {
    let out = &client.out;
    if out.json {
        return out.raw(&answer.text);
    }
    let run: Run = answer.read()?;
    if out.quiet {
        return out.line(&visible(&run.id));
    }
    let status = out.paint(Style::of_status(&run.status), &visible(&run.status));
    out.line(&format!("run {}  {status}  {} of {} done", visible(&run.id), run.n_done, run.n_items))?;
    match &run.error {
        Some(problem) => out.line(&format!("  {problem}")),
        None => Ok(()),
    }
}
