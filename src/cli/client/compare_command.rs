//! `residuum compare`: compares caches without running a model.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    call::Call,
    failure::{Failure, Outcome},
    output::{Output, Style},
    references::{CACHE_HELP, cache_ids},
    server::Connection,
    table::{Column, Table},
    units::{bar, number},
    values::{layers, positions},
    visible::visible,
};

/// Columns of a bar.
const BAR: usize = 20;

/// Compare two caches layer by layer, or several with each other.
#[derive(Debug, Args)]
#[command(after_help = CACHE_HELP)]
pub(in crate::cli) struct Compare {
    /// The caches: two are compared at every layer; of more, each with each.
    #[arg(required = true, num_args = 2..)]
    caches: Vec<String>,
    /// Metrics, with commas between them: cosine, dot, euclidean, mae, pearson, jaccard.
    #[arg(long = "metric", value_name = "METRICS", value_delimiter = ',', default_value = "cosine")]
    metrics: Vec<String>,
    /// The hook, short or full.
    #[arg(long, default_value = "resid_post")]
    hook: String,
    /// Layers: all, 12, 0,6,-1 or 10:20 (without the end). By default all, or of more than two caches the last.
    #[arg(long, value_parser = layers, allow_hyphen_values = true)]
    layers: Option<Value>,
    /// One position: last, mean, a number, or stored, the only one of each cache. By default last.
    #[arg(long, value_parser = position, allow_hyphen_values = true)]
    position: Option<Value>,
    /// Subtract the mean over the caches first.
    #[arg(long)]
    center: bool,
    #[command(flatten)]
    connection: Connection,
}

fn position(text: &str) -> Result<Value, String> {
    if text == "stored" { Ok(json!("stored")) } else { positions(text) }
}

#[derive(Debug, Deserialize)]
struct Comparison {
    layers: Vec<usize>,
    #[serde(default)]
    pairs: Vec<Pair>,
    #[serde(default)]
    caches: Vec<String>,
    /// Of a matrix: `[layer][i][j]`.
    #[serde(default)]
    values: BTreeMap<String, Vec<Vec<Vec<Option<f64>>>>>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    a: String,
    b: String,
    values: BTreeMap<String, Vec<Option<f64>>>,
}

impl Compare {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let ids = cache_ids(&client, &self.caches)?;
        let answer = client.json(&Call::ask("/v1/comparisons", &self.body(&ids).into()))?;
        let out = &client.out;
        if out.json {
            return out.raw(&answer.text);
        }
        let comparison: Comparison = answer.read()?;
        match &comparison.pairs[..] {
            [pair] => show_pair(pair, &comparison.layers, &self.metrics, out),
            [] => show_matrices(&comparison, &self.metrics, out),
            _ => Err(Failure::unexpected(&"more than one pair")),
        }
    }

    fn body(&self, ids: &[String]) -> Map<String, Value> {
        let mut body =
            Map::from_iter([("hook".to_owned(), json!(self.hook)), ("metrics".to_owned(), json!(self.metrics))]);
        let mut set = |name: &str, value: Value| {
            body.insert(name.to_owned(), value);
        };
        // a full name has its layer
        let short = !self.hook.starts_with("blocks.");
        let layers = match ids {
            [a, b] => {
                set("mode", json!("pairs"));
                set("a", json!([a]));
                set("b", json!([b]));
                self.layers.clone()
            }
            _ => {
                set("mode", json!("matrix"));
                set("caches", json!(ids));
                self.layers.clone().or_else(|| short.then(|| json!(-1)))
            }
        };
        if let Some(layers) = layers {
            set("layers", layers);
        }
        if let Some(position) = &self.position {
            set("position", position.clone());
        }
        if self.center {
            set("center", json!("mean"));
        }
        body
    }
}

/// The least and the greatest of some values.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
}

/// The layers of a pair, with a bar for the first metric: from 0, or from the least value if all are near each other.
fn show_pair(pair: &Pair, layers: &[usize], metrics: &[String], out: &Output) -> Outcome {
    out.line(&format!("{}\n{}", visible(&pair.a), visible(&pair.b)))?;
    let names: Vec<&String> = metrics.iter().filter(|name| pair.values.contains_key(*name)).collect();
    let n_rows = pair.values.values().map(Vec::len).max().unwrap_or(0);
    let first = names.first().and_then(|name| pair.values.get(*name));
    let known = || first.into_iter().flatten().copied().flatten();
    let (low, high) = bounds(known());
    let from = if low >= 0.0 && high - low > high / 4.0 { 0.0 } else { low };
    let mut columns = vec![Column::number("layer")];
    columns.extend(names.iter().map(|name| Column::number(visible(name))));
    columns.push(Column::word("").optional());
    let mut table = Table::new(columns);
    for row in 0..n_rows {
        let value = |name: &String| pair.values.get(name).and_then(|v| v.get(row).copied().flatten());
        let mut cells = vec![layers.get(row).map(ToString::to_string).unwrap_or_default().into()];
        cells.extend(names.iter().map(|name| value(name).map_or_else(|| "null".to_owned(), number).into()));
        let share = first.and_then(|v| v.get(row).copied().flatten()).map_or(0.0, |v| share(v, from, high));
        cells.push(bar(share, BAR).into());
        table.push(cells);
    }
    out.print(&table.render(out))?;
    let name = names.first().map_or("", |name| name.as_str());
    let scale = format!("bar: {} from {} to {}", visible(name), number(from), number(high));
    if known().next().is_some() { out.legend(&scale) } else { Ok(()) }
}

/// Where a value lies between two others.
fn share(value: f64, from: f64, to: f64) -> f64 {
    if to > from { (value - from) / (to - from) } else { 1.0 }
}

fn show_matrices(comparison: &Comparison, metrics: &[String], out: &Output) -> Outcome {
    for (i, id) in comparison.caches.iter().enumerate() {
        out.line(&format!("{:>3}  {}", i + 1, visible(id)))?;
    }
    for metric in metrics {
        let Some(matrices) = comparison.values.get(metric) else { continue };
        for (l, matrix) in matrices.iter().enumerate() {
            let layer = comparison.layers.get(l).map(|layer| format!(", layer {layer}")).unwrap_or_default();
            out.line(&out.paint(Style::Bold, &format!("\n{}{layer}", visible(metric))))?;
            out.print(&matrix_lines(matrix))?;
        }
    }
    Ok(())
}

/// A matrix with numbered rows and columns.
fn matrix_lines(matrix: &[Vec<Option<f64>>]) -> String {
    let cell = |value: &Option<f64>| value.map_or_else(|| "null".to_owned(), number);
    let texts: Vec<Vec<String>> = matrix.iter().map(|row| row.iter().map(cell).collect()).collect();
    let width = texts.iter().flatten().map(String::len).max().unwrap_or(0);
    let head: String = (1..=matrix.len()).map(|i| format!("  {i:>width$}")).collect();
    let mut lines = format!("   {head}\n");
    for (i, row) in texts.iter().enumerate() {
        let cells: String = row.iter().map(|text| format!("  {text:>width$}")).collect();
        lines += &format!("{:>3}{cells}\n", i + 1);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_aligned() {
        let lines = matrix_lines(&[vec![Some(1.0), Some(0.5)], vec![Some(-0.5), None]]);
        assert_eq!(lines, "           1        2\n  1   1.0000   0.5000\n  2  -0.5000     null\n");
    }

    #[test]
    fn a_bar_shows_differences_even_if_they_are_small() {
        assert_eq!((share(0.5, 0.0, 1.0), share(1.0, 1.0, 1.0)), (0.5, 1.0));
        assert_eq!(bounds([0.2, 0.1, 0.9].into_iter()), (0.1, 0.9));
    }
}
