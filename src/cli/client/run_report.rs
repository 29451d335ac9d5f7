//! What `residuum run` shows of its runs.

use serde_json::{Value, json};

use super::{
    answers::{Cache, Run},
    call::{Call, segment},
    failure::{Failure, Outcome},
    hook_summary::summary,
    output::Style,
    server::{Client, read},
    table::{Column, Table},
    units::{between, bytes, plural, span},
    values::positions_text,
    visible::visible,
};

/// Most caches that are shown one by one.
const SHOWN: usize = 20;
/// Most failed inputs that are named.
const NAMED: usize = 10;

/// What to do with the runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct BulkOptions {
    /// Wait for them.
    pub(super) wait: bool,
    /// They continue their inputs.
    pub(super) generates: bool,
}

/// Shows runs as they end, and remembers whether something failed.
pub(super) struct Report<'a> {
    client: &'a Client,
    options: BulkOptions,
    n_runs: u64,
    n_items: u64,
    n_done: u64,
    n_reused: u64,
    failure: Option<String>,
    /// The only run so far.
    first: Option<Run>,
}

impl<'a> Report<'a> {
    pub(super) const fn new(client: &'a Client, options: BulkOptions) -> Self {
        Self { client, options, n_runs: 0, n_items: 0, n_done: 0, n_reused: 0, failure: None, first: None }
    }

    /// Shows a run that is left to the server.
    pub(super) fn posted(&mut self, run: &Run) -> Outcome {
        self.n_runs += 1;
        let out = &self.client.out;
        if out.json {
            return out.raw(&self.client.json(&Call::get(format!("/v1/runs/{}", segment(&run.id))))?.text);
        }
        if out.quiet {
            return out.line(&visible(&run.id));
        }
        out.line(&format!("run {}  {}  {}", visible(&run.id), visible(&run.status), plural(run.n_items, "input")))
    }

    /// Shows a run that has ended; `lines` are the numbers of its inputs.
    pub(super) fn ended(&mut self, run: Run, lines: &[u64]) -> Outcome {
        self.n_runs += 1;
        self.n_items += run.n_items;
        self.n_done += run.n_done;
        self.n_reused += run.n_reused;
        let out = &self.client.out;
        if out.json {
            self.whole(&run).and_then(|value| out.json_line(&value))?;
        } else if out.quiet {
            let ids = self.ids(&run)?;
            out.print(&ids.iter().map(|id| format!("{}\n", visible(id))).collect::<String>())?;
        } else {
            out.line(&line_of(self.client, &run))?;
        }
        if run.status != "completed" && self.failure.is_none() {
            self.failure = Some(self.why(&run, lines));
        }
        self.first = (self.n_runs == 1).then_some(run);
        Ok(())
    }

    /// Shows what can only be said at the end.
    ///
    /// # Errors
    /// [`Failure::Other`] if an input failed or a run was cancelled.
    pub(super) fn end(self) -> Outcome {
        let out = &self.client.out;
        if !out.json && !out.quiet && self.options.wait {
            match &self.first {
                Some(run) if run.n_items as usize <= SHOWN => self.show_caches(run)?,
                Some(_) => {}
                None if self.n_runs > 1 => {
                    let (inputs, runs) = (plural(self.n_items, "input"), plural(self.n_runs, "run"));
                    out.line(&format!("{} of {inputs} in {runs} have caches, {} reused", self.n_done, self.n_reused))?;
                }
                None => {}
            }
        }
        self.failure.map_or(Ok(()), |why| Err(Failure::Other(why)))
    }

    /// The run as the server answers it, with all its caches and not only the first hundred.
    fn whole(&self, run: &Run) -> Outcome<Value> {
        let mut value = self.client.json(&Call::get(format!("/v1/runs/{}", segment(&run.id))))?.value;
        let ids = self.ids(run)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("caches".to_owned(), json!(ids));
        }
        Ok(value)
    }

    /// Ids of all caches of a run, in the order of its inputs.
    fn ids(&self, run: &Run) -> Outcome<Vec<String>> {
        if run.caches.len() < 100 {
            return Ok(run.caches.clone());
        }
        let mut ids = Vec::new();
        self.each_cache(run, usize::MAX, |cache| {
            ids.extend(cache.get("id").and_then(Value::as_str).map(str::to_owned));
            Ok(())
        })?;
        Ok(ids)
    }

    fn each_cache(&self, run: &Run, limit: usize, each: impl FnMut(Value) -> Outcome) -> Outcome {
        self.client.pages(&Call::get(format!("/v1/runs/{}/caches", segment(&run.id))), limit, each)
    }

    /// Why a run is not completed, and which inputs have no cache.
    fn why(&self, run: &Run, lines: &[u64]) -> String {
        let mut why = match &run.error {
            Some(problem) => format!("run {} {}: {problem}", visible(&run.id), visible(&run.status)),
            None => format!("run {} was {}", visible(&run.id), visible(&run.status)),
        };
        let mut missing: Vec<bool> = vec![true; lines.len()];
        let seen = self.each_cache(run, usize::MAX, |cache| {
            let index = cache.get("item_index").and_then(Value::as_u64).and_then(|i| usize::try_from(i).ok());
            if let Some(has) = index.and_then(|index| missing.get_mut(index)) {
                *has = false;
            }
            Ok(())
        });
        // several samples of an input are several items: then the items are not the lines
        if seen.is_ok() && lines.len() as u64 == run.n_items {
            let numbers: Vec<String> =
                lines.iter().zip(&missing).filter(|(_, m)| **m).map(|(n, _)| n.to_string()).collect();
            let more = if numbers.len() > NAMED { ", …" } else { "" };
            if !numbers.is_empty() {
                why += &format!("\n  inputs without a cache: {}{more}", numbers[..numbers.len().min(NAMED)].join(", "));
            }
        }
        why
    }

    fn show_caches(&self, run: &Run) -> Outcome {
        let mut caches: Vec<Cache> = Vec::new();
        self.each_cache(run, SHOWN, |cache| {
            caches.push(read(&cache)?);
            Ok(())
        })?;
        let out = &self.client.out;
        if caches.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(vec![
            Column::number("input"),
            Column::word("cache"),
            Column::number("tokens"),
            Column::text("text"),
            Column::text("continuation"),
        ]);
        for cache in &caches {
            let continuation = cache.completion.as_ref().map(|c| visible(&c.text)).unwrap_or_default();
            table.push(vec![
                cache.item_index.to_string().into(),
                visible(&cache.id).into(),
                cache.n_tokens.to_string().into(),
                visible(&cache.input()).into(),
                continuation.into(),
            ]);
        }
        out.print(&table.render(out))?;
        let legend = captured(&caches[0]);
        if self.options.generates || !legend.is_empty() { out.legend(&legend) } else { Ok(()) }
    }
}

/// What a cache holds, in a line.
pub(super) fn captured(cache: &Cache) -> String {
    let hooks = summary(cache.hooks.iter().map(|h| h.hook.as_str()));
    if hooks.is_empty() {
        return "nothing was captured".to_owned();
    }
    format!("captured {hooks}, positions {}, {}", visible(&positions_text(&cache.positions)), bytes(cache.n_bytes))
}

/// A run that has ended, in a line.
fn line_of(client: &Client, run: &Run) -> String {
    let mut parts = vec![plural(run.n_items, "input")];
    if run.n_reused > 0 {
        parts.push(format!("{} reused", run.n_reused));
    }
    if run.n_failed > 0 {
        parts.push(format!("{} failed", run.n_failed));
    }
    parts.extend(between(run.created_at, run.finished_at).map(span));
    let status = client.out.paint(Style::of_status(&run.status), &visible(&run.status));
    format!("run {}  {status}  {}", visible(&run.id), parts.join(", "))
}
