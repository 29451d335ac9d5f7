//! `residuum run --dry-run`: what a run would store.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    call::Call,
    failure::{Failure, Outcome},
    hook_summary::{groups, layer_ranges, shape},
    input_lines::Line,
    server::Client,
    table::{Column, Table},
    token_strip::{Marks, strip},
    units::{bytes, plural},
    values::positions_text,
    visible::visible,
};

/// Most inputs that are shown one by one.
const SHOWN: usize = 5;

#[derive(Debug, Deserialize)]
struct DryRun {
    n_items: u64,
    n_tokens: u64,
    n_bytes: u64,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    tokens: Vec<String>,
    #[serde(default)]
    n_truncated: u64,
    n_bytes: u64,
    positions: Value,
    hooks: Vec<Hook>,
}

#[derive(Debug, Deserialize)]
struct Hook {
    hook: String,
    shape: Vec<usize>,
}

/// Asks what a run would store, and shows it.
///
/// # Errors
/// [`Failure::Usage`] without an input; those of the request.
pub(super) fn show_dry_run(client: &Client, base: &Map<String, Value>, lines: &[Line]) -> Outcome {
    if lines.is_empty() {
        return Err(Failure::Usage("there is no input".to_owned()));
    }
    let mut body = base.clone();
    let items: Vec<Value> = lines.iter().map(|line| line.item.clone().into()).collect();
    body.insert("items".to_owned(), items.into());
    let answer = client.json(&Call::ask("/v1/runs", &body.into()).query("dry_run", true))?;
    let out = &client.out;
    if out.json {
        return out.raw(&answer.text);
    }
    let dry: DryRun = answer.read()?;
    let (inputs, tokens) = (plural(dry.n_items, "input"), plural(dry.n_tokens, "token"));
    out.line(&format!("{inputs}, {tokens}, {} would be stored", bytes(dry.n_bytes)))?;
    for (item, line) in dry.items.iter().zip(lines).take(SHOWN) {
        let cut = if item.n_truncated > 0 {
            format!(", {} cut off", plural(item.n_truncated, "token"))
        } else {
            String::new()
        };
        let positions = visible(&positions_text(&item.positions));
        let facts = format!(
            "{}{cut}, positions {positions}, {}",
            plural(item.tokens.len() as u64, "token"),
            bytes(item.n_bytes)
        );
        out.legend(&format!("\ninput {}: {facts}", line.number))?;
        let marks = Marks { numbered: true, ..Marks::default() };
        out.print(&strip(&item.tokens, marks, out))?;
    }
    if dry.n_items as usize > SHOWN {
        out.legend(&format!("\n… and {} more", plural(dry.n_items - SHOWN as u64, "input")))?;
    }
    let mut table = Table::new(vec![Column::word("hook"), Column::text("layers"), Column::word("shape")]);
    let hooks = dry.items.first().map_or(&[][..], |item| &item.hooks);
    for group in groups(hooks.iter().map(|h| (h.hook.as_str(), shape(h.shape.iter().map(|n| Some(*n)))))) {
        table.push(vec![group.name.into(), layer_ranges(&group.layers).into(), group.shape.into()]);
    }
    out.line("")?;
    out.print(&table.render(out))
}
