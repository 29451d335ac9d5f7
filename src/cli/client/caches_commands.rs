//! `residuum caches`: stored caches.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    answers::Cache,
    cache_filter::CacheFilterArgs,
    call::{Call, segment},
    failure::{Failure, Outcome},
    hook_summary::{groups, layer_ranges, shape, summary},
    output::Style,
    references::{CACHE_HELP, cache_id, cache_ids},
    runs_commands::{deleted, show_facts},
    server::{Answer, Client, Connection, read},
    table::{Column, Table},
    token_strip::{Marks, strip},
    units::{age, bytes, plural},
    values::{pair, positions_text},
    visible::visible,
};

/// List, show, annotate, pin and delete caches.
#[derive(Debug, Args)]
#[command(after_help = CACHE_HELP)]
pub(in crate::cli) struct Caches {
    #[command(subcommand)]
    action: CachesAction,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum CachesAction {
    /// List caches, newest first.
    Ls(CachesLs),
    /// Show a cache: its tokens, hooks and provenance.
    #[command(after_help = CACHE_HELP)]
    Show {
        /// The cache.
        cache: String,
    },
    /// Delete caches: those that are named, or all that meet the conditions.
    #[command(after_help = CACHE_HELP)]
    Rm(CachesRm),
    /// Protect caches from expiry and eviction.
    #[command(after_help = CACHE_HELP)]
    Pin {
        /// The caches.
        #[arg(required = true)]
        caches: Vec<String>,
        /// Take the protection away.
        #[arg(long)]
        off: bool,
    },
    /// Add tags to caches, or change label and metadata.
    #[command(after_help = CACHE_HELP)]
    Tag(CachesTag),
}

#[derive(Debug, Args)]
struct CachesLs {
    /// Captured this hook (full name, such as blocks.5.hook_resid_post); may be repeated: captured all of them.
    #[arg(long = "hook", value_name = "HOOK")]
    hooks: Vec<String>,
    /// Maximum number of caches.
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
    /// List all.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    filter: CacheFilterArgs,
}

#[derive(Debug, Args)]
struct CachesRm {
    /// The caches.
    caches: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    filter: CacheFilterArgs,
}

#[derive(Debug, Args)]
struct CachesTag {
    /// The caches.
    #[arg(required = true)]
    caches: Vec<String>,
    /// Add this tag; may be repeated.
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Remove this tag; may be repeated.
    #[arg(long = "remove", value_name = "TAG")]
    removed: Vec<String>,
    /// Set the label; an empty one removes it.
    #[arg(long)]
    label: Option<String>,
    /// Set metadata; may be repeated. The value is JSON, or else a string; null removes the key.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, Value)>,
}

impl Caches {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        match &self.action {
            CachesAction::Ls(ls) => ls.run(&client),
            CachesAction::Show { cache } => {
                let answer = client.json(&Call::get(path(&cache_id(&client, cache)?)))?;
                show(&client, &answer)
            }
            CachesAction::Rm(rm) => rm.run(&client),
            CachesAction::Pin { caches, off } => cache_ids(&client, caches)?
                .iter()
                .try_for_each(|id| changed(&client, &client.json(&Call::patch(path(id), &json!({"pinned": !off})))?)),
            CachesAction::Tag(tag) => tag.run(&client),
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/caches/{}", segment(id))
}

impl CachesLs {
    fn run(&self, client: &Client) -> Outcome {
        let filter = self.filter.resolved(client)?;
        let names = filter.metadata_names();
        let call = filter.query(Call::get("/v1/caches"), &names).each("hook", &self.hooks);
        let limit = if self.all { usize::MAX } else { self.limit };
        let out = &client.out;
        if out.json {
            return client.pages(&call, limit, |cache| out.json_line(&cache));
        }
        if out.quiet {
            return client.pages(&call, limit, |cache| out.line(&visible(&read::<Cache>(&cache)?.id)));
        }
        let mut caches: Vec<Cache> = Vec::new();
        client.pages(&call, limit, |cache| {
            caches.push(read(&cache)?);
            Ok(())
        })?;
        if caches.is_empty() {
            return out.line("no cache matches");
        }
        out.print(&listed(&caches, Timestamp::now()).render(out))
    }
}

fn listed(caches: &[Cache], now: Timestamp) -> Table {
    let mut table = Table::new(vec![
        Column::word("cache"),
        Column::number("age"),
        Column::number("tokens"),
        Column::text("text"),
        Column::text("captured").optional(),
        Column::number("size").optional(),
        Column::text("model").optional(),
        Column::text("label").optional(),
        Column::text("tags").optional(),
        Column::word("pinned").optional(),
    ]);
    for cache in caches {
        let continuation = cache.completion.as_ref().map(|c| c.text.as_str()).unwrap_or_default();
        table.push(vec![
            visible(&cache.id).into(),
            age(cache.created_at, now).into(),
            cache.n_tokens.to_string().into(),
            visible(&format!("{}{continuation}", cache.input())).into(),
            summary(cache.hooks.iter().map(|h| h.hook.as_str())).into(),
            bytes(cache.n_bytes).into(),
            visible(&cache.model).into(),
            visible(cache.label.as_deref().unwrap_or_default()).into(),
            visible(&cache.tags.join(",")).into(),
            if cache.pinned { "pinned".into() } else { "".into() },
        ]);
    }
    table
}

/// Shows a cache.
fn show(client: &Client, answer: &Answer) -> Outcome {
    let out = &client.out;
    if out.json {
        return out.raw(&answer.text);
    }
    let cache: Cache = answer.read()?;
    if out.quiet {
        return out.line(&visible(&cache.id));
    }
    show_facts(out, &facts(&cache))?;
    out.line("")?;
    let generated_from = cache.completion.as_ref().map(|c| c.first_position);
    out.print(&strip(&cache.tokens, Marks { generated_from, ..Marks::default() }, out))?;
    out.line("")?;
    let mut table = Table::new(vec![
        Column::word("hook"),
        Column::text("layers"),
        Column::word("shape"),
        Column::text("axes").optional(),
        Column::word("type").optional(),
    ]);
    let describe = |hook: &super::answers::CacheHook| {
        let shape = shape(hook.shape.iter().map(|n| Some(*n)));
        format!("{shape}\t{}\t{}", visible(&hook.axes.join(", ")), visible(&hook.dtype))
    };
    for group in groups(cache.hooks.iter().map(|h| (h.hook.as_str(), describe(h)))) {
        let mut parts = group.shape.splitn(3, '\t').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        table.push(vec![
            group.name.clone().into(),
            layer_ranges(&group.layers).into(),
            next().into(),
            next().into(),
            next().into(),
        ]);
    }
    if table.is_empty() {
        out.line("nothing was captured")?
    } else {
        out.print(&table.render(out))?
    }
    for warning in &cache.provenance.warnings {
        let text = format!("warning {}: {}", visible(&warning.code), visible(&warning.detail));
        out.line(&out.paint(Style::Busy, &text))?;
    }
    Ok(())
}

fn facts(cache: &Cache) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("cache", cache.id.clone()),
        ("run", format!("{}, input {}", cache.run, cache.item_index)),
        ("model", cache.model.clone()),
        ("tokens", format!("{}, positions {}", cache.n_tokens, positions_text(&cache.positions))),
        ("size", bytes(cache.n_bytes)),
    ];
    facts.extend(cache.created_at.map(|t| ("created", t.to_string())));
    facts.extend(cache.expires_at.map(|t| ("expires", t.to_string())));
    if cache.pinned {
        facts.push(("pinned", "yes".to_owned()));
    }
    facts.extend(cache.label.clone().map(|label| ("label", label)));
    if !cache.tags.is_empty() {
        facts.push(("tags", cache.tags.join(", ")));
    }
    if !cache.metadata.is_empty() {
        facts.push(("metadata", Value::Object(cache.metadata.clone()).to_string()));
    }
    if let Some(done) = &cache.completion {
        let reason = done.finish_reason.replace('_', " ");
        facts.push(("generated", format!("{}, ended by {reason}", plural(done.token_ids.len() as u64, "token"))));
    }
    let from = &cache.provenance;
    let made = [&from.architecture, &from.weights_dtype, &from.compute_dtype, &from.device];
    let made: Vec<&str> = made.into_iter().flatten().map(String::as_str).collect();
    let reused = if cache.reused { ", from the store" } else { "" };
    facts.push(("made by", format!("{}{reused}", made.join(", "))));
    for change in &from.interventions {
        facts.push(("changed", Value::Object(change.clone()).to_string()));
    }
    if cache.n_nan + cache.n_inf > 0 {
        facts.push(("not finite", format!("{} NaN, {} infinite", cache.n_nan, cache.n_inf)));
    }
    facts
}

impl CachesRm {
    fn run(&self, client: &Client) -> Outcome {
        if self.caches.is_empty() != self.filter.is_given() {
            return Err(Failure::Usage("name caches, or give conditions such as --tag, and not both".to_owned()));
        }
        let ids = if self.caches.is_empty() { self.matching(client)? } else { cache_ids(client, &self.caches)? };
        ids.iter().try_for_each(|id| {
            let path = path(id);
            match client.done(&Call::delete(path.as_str())) {
                // another client was faster; what was asked for is so
                Err(Failure::NotFound(_)) if self.caches.is_empty() => Ok(()),
                other => other.and_then(|()| deleted(&client.out, &path)),
            }
        })
    }

    /// The ids of the caches that meet the conditions, once a person has agreed.
    fn matching(&self, client: &Client) -> Outcome<Vec<String>> {
        let filter = self.filter.resolved(client)?;
        let names = filter.metadata_names();
        let mut ids = Vec::new();
        client.pages(&filter.query(Call::get("/v1/caches"), &names), usize::MAX, |cache| {
            ids.push(read::<Cache>(&cache)?.id);
            Ok(())
        })?;
        if ids.is_empty() {
            return Err(Failure::NotFound("no cache matches".to_owned()));
        }
        if !self.yes && !agreed(&format!("delete {}?", plural(ids.len() as u64, "cache")))? {
            return Err(Failure::Other("nothing was deleted".to_owned()));
        }
        Ok(ids)
    }
}

/// Asks a person on the terminal.
fn agreed(question: &str) -> Outcome<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(format!("{question} give --yes to do it without being asked")));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::Other(format!("standard input: {e}")))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

impl CachesTag {
    fn run(&self, client: &Client) -> Outcome {
        let Self { tags, removed, label, metadata, .. } = self;
        if tags.is_empty() && removed.is_empty() && label.is_none() && metadata.is_empty() {
            return Err(Failure::Usage("give --tag, --remove, --label or --metadata".to_owned()));
        }
        for id in cache_ids(client, &self.caches)? {
            let mut patch = Map::new();
            if !tags.is_empty() || !removed.is_empty() {
                let cache: Cache = client.json(&Call::get(path(&id)))?.read()?;
                patch.insert("tags".to_owned(), json!(with_tags(&cache.tags, tags, removed)));
            }
            if let Some(label) = label {
                patch.insert("label".to_owned(), if label.is_empty() { Value::Null } else { json!(label) });
            }
            if !metadata.is_empty() {
                patch.insert("metadata".to_owned(), super::values::object(metadata).into());
            }
            changed(client, &client.json(&Call::patch(path(&id), &patch.into()))?)?;
        }
        Ok(())
    }
}

/// The tags with some added and some removed, each once.
fn with_tags<'a>(old: &'a [String], added: &'a [String], removed: &[String]) -> Vec<&'a str> {
    let mut tags: Vec<&str> = Vec::new();
    for tag in old.iter().chain(added) {
        if !removed.contains(tag) && !tags.contains(&tag.as_str()) {
            tags.push(tag);
        }
    }
    tags
}

/// Shows a cache that was changed.
fn changed(client: &Client, answer: &Answer) -> Outcome {
    let out = &client.out;
    if out.json {
        return out.raw(&answer.text);
    }
    let cache: Cache = answer.read()?;
    if out.quiet {
        return out.line(&visible(&cache.id));
    }
    let mut facts = vec![format!("cache {}", cache.id)];
    facts.extend(cache.pinned.then(|| "pinned".to_owned()));
    facts.extend(cache.label.map(|label| format!("label {label}")));
    if !cache.tags.is_empty() {
        facts.push(format!("tags {}", cache.tags.join(", ")));
    }
    if !cache.metadata.is_empty() {
        facts.push(format!("metadata {}", Value::Object(cache.metadata)));
    }
    out.line(&visible(&facts.join("  ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_added_and_removed_once() {
        let tags = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let (old, added, removed) = (tags(&["a", "b"]), tags(&["b", "c"]), tags(&["a"]));
        assert_eq!(with_tags(&old, &added, &removed), ["b", "c"]);
        assert_eq!(with_tags(&[], &[], &[]), [""; 0]);
    }
}
