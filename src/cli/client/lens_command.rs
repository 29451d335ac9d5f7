//! `residuum lens`: reads a stored residual stream as predictions.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    answers::Cache,
    call::{Call, segment},
    download::{download, extension, is_standard},
    failure::{Failure, Outcome},
    output::{Output, Style},
    references::{CACHE_HELP, cache_id},
    server::{Client, Connection},
    table::{Cell, Column, Table},
    units::percent,
    values::{layers, positions, token},
    visible::{columns, cut, visible_token},
};

/// Most columns of a token.
const TOKEN: usize = 16;

/// Apply the logit lens to a cache: what the model would predict after each layer.
#[derive(Debug, Args)]
#[command(after_help = CACHE_HELP)]
pub(in crate::cli) struct Lens {
    /// The cache; it must hold the residual stream.
    cache: String,
    /// Layers: all, 12, 0,6,-1 or 10:20 (without the end). By default all that the cache has.
    #[arg(long, value_parser = layers, allow_hyphen_values = true)]
    layers: Option<Value>,
    /// Positions: last, all, 3, 0,2,-1 or 2:5. By default the last token, or what the cache has.
    #[arg(long, value_parser = positions, allow_hyphen_values = true)]
    positions: Option<Value>,
    /// The hook: resid_pre, resid_mid or resid_post.
    #[arg(long, default_value = "resid_post")]
    hook: String,
    /// Number of most probable tokens to show.
    #[arg(short = 'k', long, default_value_t = 5)]
    top_k: usize,
    /// A token to follow through the layers, such as ' Paris' or id:7042; may be repeated.
    #[arg(short, long = "token", value_name = "TOKEN", value_parser = token)]
    tokens: Vec<Value>,
    /// Write whole distributions to a file, float32 [layer, pos, d_vocab]: .npy or .safetensors; - for a pipe.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Values of the file: log-probabilities in nats, or logits.
    #[arg(long, value_parser = ["log_probs", "logits"], requires = "output")]
    values: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Deserialize)]
struct LensAnswer {
    layers: Vec<usize>,
    positions: Vec<u32>,
    #[serde(default)]
    position_tokens: Vec<String>,
    #[serde(default)]
    tokens: Vec<Named>,
    /// `[layer][position]`.
    values: Vec<Vec<Distribution>>,
}

#[derive(Debug, Deserialize)]
struct Named {
    token: String,
}

#[derive(Debug, Deserialize)]
struct Distribution {
    #[serde(default)]
    entropy: Option<f64>,
    #[serde(default)]
    kl: Option<f64>,
    #[serde(default)]
    top: Vec<Top>,
    #[serde(default)]
    tokens: Vec<Followed>,
}

#[derive(Debug, Deserialize)]
struct Top {
    token: String,
    probability: f64,
}

#[derive(Debug, Deserialize)]
struct Followed {
    rank: u64,
    probability: f64,
}

impl Lens {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let path = format!("/v1/caches/{}", segment(&cache_id(&client, &self.cache)?));
        let mut body = Map::from_iter([("hook".to_owned(), json!(self.hook))]);
        body.extend(self.layers.clone().map(|layers| ("layers".to_owned(), layers)));
        let positions = self.positions.clone().map_or_else(|| default_positions(&client, &path), |p| Ok(Some(p)))?;
        body.extend(positions.map(|positions| ("positions".to_owned(), positions)));
        let lens = format!("{path}/lens");
        if let Some(output) = &self.output {
            return self.save(&client, &lens, body, output);
        }
        body.insert("top_k".to_owned(), json!(self.top_k));
        if !self.tokens.is_empty() {
            body.insert("tokens".to_owned(), json!(self.tokens));
        }
        let answer = client.json(&Call::ask(lens, &body.into()))?;
        if client.out.json {
            return client.out.raw(&answer.text);
        }
        show(&answer.read()?, &client.out)
    }

    fn save(&self, client: &Client, path: &str, body: Map<String, Value>, output: &PathBuf) -> Outcome {
        if !self.tokens.is_empty() {
            return Err(Failure::Usage("a file has every token: leave --token out".to_owned()));
        }
        let format = match extension(output).as_str() {
            "npy" => "npy",
            "safetensors" => "safetensors",
            _ if is_standard(output) => "npy",
            _ => return Err(Failure::Usage("the name of the file ends in .npy or .safetensors".to_owned())),
        };
        let call = Call::ask(path, &body.into()).query("format", format).maybe("values", self.values.as_ref());
        download(client, &call, output)
    }
}

/// The last position if the cache has all, which would otherwise be a table for each.
fn default_positions(client: &Client, path: &str) -> Outcome<Option<Value>> {
    let cache: Cache = client.json(&Call::get(path))?.read()?;
    Ok((cache.positions == "all").then(|| json!("last")))
}

fn show(answer: &LensAnswer, out: &Output) -> Outcome {
    for (p, position) in answer.positions.iter().enumerate() {
        let token = answer.position_tokens.get(p).map(|t| visible_token(t)).unwrap_or_default();
        let gap = if p > 0 { "\n" } else { "" };
        out.line(&out.paint(Style::Bold, &format!("{gap}after {token} (position {position})")))?;
        out.print(&table(answer, p, out.width).render(out))?;
    }
    let followed =
        if answer.tokens.is_empty() { "" } else { "; a followed token has its probability, and its rank from 0" };
    out.line(
        &out.paint(
            Style::Faint,
            &format!("entropy and KL(final ‖ layer) in nats; tokens, most probable first{followed}"),
        ),
    )
}

/// The table of one position.
fn table(answer: &LensAnswer, p: usize, width: Option<usize>) -> Table {
    const TITLES: [&str; 10] = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th"];
    let rows: Vec<(usize, &Distribution)> =
        answer.layers.iter().zip(&answer.values).filter_map(|(l, row)| Some((*l, row.get(p)?))).collect();
    let n_top = rows.iter().map(|(_, d)| d.top.len()).max().unwrap_or(0);
    let names: Vec<String> = answer.tokens.iter().map(|t| cut(&visible_token(&t.token), TOKEN)).collect();
    let followed = |row: &Distribution, i: usize| {
        row.tokens.get(i).map(|f| format!("{:>6} #{}", percent(f.probability), f.rank)).unwrap_or_default()
    };
    let mut columns_of =
        vec![Column::number("layer"), Column::number("entropy").optional(), Column::number("KL").optional()];
    columns_of.extend(names.iter().map(Column::word));
    let fixed = columns_of.len();
    columns_of.extend((0..n_top).map(|i| {
        let column = Column::word(TITLES.get(i).copied().unwrap_or("…"));
        // the most probable token always stays
        if i > 0 && width.is_some() { column.optional() } else { column }
    }));
    let widest: Vec<usize> = (0..n_top)
        .map(|i| rows.iter().filter_map(|(_, d)| d.top.get(i)).map(|t| columns(&name(t))).max().unwrap_or(0))
        .collect();
    let mut table = Table::new(columns_of);
    for (layer, row) in rows {
        let nats = |value: Option<f64>| value.map(|v| format!("{v:.2}")).unwrap_or_default();
        let mut cells: Vec<Cell> = vec![layer.to_string().into(), nats(row.entropy).into(), nats(row.kl).into()];
        cells.extend((0..names.len()).map(|i| Cell::from(followed(row, i))));
        debug_assert_eq!(cells.len(), fixed);
        cells.extend((0..n_top).map(|i| match row.top.get(i) {
            Some(top) => {
                let name = name(top);
                let space = " ".repeat(widest[i].saturating_sub(columns(&name)));
                let style = if i == 0 { Style::Bold } else { Style::Plain };
                Cell::styled(format!("{name}{space} {:>6}", percent(top.probability)), style)
            }
            None => "".into(),
        }));
        table.push(cells);
    }
    table
}

fn name(top: &Top) -> String {
    cut(&visible_token(&top.token), TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> LensAnswer {
        let row = |p: f64, rank: u64| {
            json!([{"entropy": 2.5, "kl": 0.0, "top": [{"id": 1, "token": " Paris", "probability": p}, {"id": 2, "token": "\u{1b}", "probability": 0.01}],
                "tokens": [{"id": 1, "rank": rank, "probability": p}]}])
        };
        let value = json!({"layers": [0, 29], "positions": [9], "position_tokens": [" of"], "tokens": [{"id": 1, "token": " Paris"}],
            "values": [row(0.0001, 812), row(0.41, 0)]});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_layer_is_a_row_and_tokens_are_visible() {
        let text = table(&answer(), 0, None).render(&Output::plain(None));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "layer  entropy    KL  ·Paris       1st            2nd");
        assert_eq!(lines[1], "    0     2.50  0.00  <0.1 % #812  ·Paris <0.1 %  ␛  1.0 %");
        assert_eq!(lines[2], "   29     2.50  0.00    41 % #0    ·Paris   41 %  ␛  1.0 %");
    }

    #[test]
    fn a_narrow_terminal_keeps_the_most_probable_token() {
        let text = table(&answer(), 0, Some(45)).render(&Output::plain(Some(45)));
        assert!(text.contains("·Paris   41 %") && !text.contains('␛'), "{text}");
    }
}
