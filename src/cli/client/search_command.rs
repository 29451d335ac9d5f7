//! `residuum search`: finds the stored caches nearest to a text, a cache or a direction.

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    cache_filter::CacheFilterArgs,
    call::Call,
    failure::Outcome,
    output::Output,
    references::{CACHE_HELP, cache_id, model_id},
    server::{Client, Connection},
    table::{Column, Table},
    units::{number, plural},
    values::positions,
    visible::{visible, visible_token},
};

/// Find the caches nearest to a text, a cache, a direction or a feature of an autoencoder.
#[derive(Debug, Args)]
#[group(id = "query", required = true, multiple = false)]
#[command(after_help = CACHE_HELP)]
pub(in crate::cli) struct Search {
    /// A text, which the model reads now. -m names the model that reads it and, as everywhere, limits the search to its
    /// caches.
    #[arg(group = "query")]
    query_text: Option<String>,
    /// A stored cache.
    #[arg(long, group = "query")]
    cache: Option<String>,
    /// A stored direction, by id or name.
    #[arg(long, group = "query")]
    direction: Option<String>,
    /// An autoencoder; --feature says which of its features.
    #[arg(long, group = "query", requires = "feature")]
    sae: Option<String>,
    /// Index of the feature.
    #[arg(long, requires = "sae")]
    feature: Option<u64>,
    /// The hook, short or full.
    #[arg(long, default_value = "resid_post")]
    hook: String,
    /// The layer; negative numbers count from the last.
    #[arg(short, long, allow_hyphen_values = true, default_value = "-1")]
    layer: i64,
    /// How nearness is measured.
    #[arg(long, value_parser = ["cosine", "dot", "euclidean"], default_value = "cosine")]
    metric: String,
    /// Number of results.
    #[arg(short, long, default_value_t = 10)]
    k: usize,
    /// What is ranked: caches, or every stored position.
    #[arg(long, value_parser = ["caches", "positions"], default_value = "caches")]
    over: String,
    /// The position that represents each cache: a number, last or mean.
    #[arg(long, value_parser = positions, allow_hyphen_values = true)]
    position: Option<Value>,
    #[command(flatten)]
    filter: CacheFilterArgs,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    hook: String,
    results: Vec<Hits>,
    scanned: Scanned,
}

#[derive(Debug, Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Debug, Deserialize)]
struct Hit {
    cache: String,
    score: f64,
    #[serde(default)]
    position: Option<u32>,
    #[serde(default)]
    context: Option<Context>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Context {
    tokens: Vec<String>,
    hit: usize,
}

#[derive(Debug, Deserialize)]
struct Scanned {
    caches: u64,
    rows: u64,
    #[serde(default)]
    skipped: u64,
    #[serde(default)]
    damaged: u64,
}

impl Search {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let filter = self.filter.resolved(&client)?;
        let mut conditions = filter.body();
        // a layer that counts from the last needs a model; a text and a cache have one
        let needs_model = self.layer < 0 && self.query_text.is_none() && self.cache.is_none();
        if needs_model && !self.hook.starts_with("blocks.") && !conditions.contains_key("model") {
            conditions.insert("model".to_owned(), json!(model_id(&client, None)?));
        }
        let body = self.body(&client, conditions)?;
        let answer = client.json(&Call::ask("/v1/search", &body.into()))?;
        let out = &client.out;
        if out.json {
            return out.raw(&answer.text);
        }
        let found: Found = answer.read()?;
        if out.quiet {
            let hits = found.results.iter().flat_map(|r| &r.hits);
            return hits.map(|hit| visible(&hit.cache)).try_for_each(|id| out.line(&id));
        }
        show(&found, &self.metric, out)
    }

    fn body(&self, client: &Client, filter: Map<String, Value>) -> Outcome<Map<String, Value>> {
        let query = match (&self.query_text, &self.cache, &self.direction, &self.sae) {
            (Some(text), ..) => {
                let model = model_id(client, filter.get("model").and_then(Value::as_str))?;
                json!({"text": text, "model": model})
            }
            (_, Some(cache), ..) => json!({"cache": cache_id(client, cache)?}),
            (_, _, Some(direction), _) => json!({"direction": direction}),
            (.., sae) => json!({"sae": sae, "feature": self.feature}),
        };
        let mut body = Map::from_iter([
            ("query".to_owned(), query),
            ("hook".to_owned(), json!(self.hook)),
            ("metric".to_owned(), json!(self.metric)),
            ("k".to_owned(), json!(self.k)),
            ("over".to_owned(), json!(self.over)),
        ]);
        let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
        if !self.hook.starts_with("blocks.") {
            set("layer", json!(self.layer));
        }
        if self.cache.is_some() {
            set("exclude_self", json!(true));
        }
        if let Some(position) = &self.position {
            set("position", position.clone());
        }
        if !filter.is_empty() {
            set("filter", filter.into());
        }
        Ok(body)
    }
}

fn show(found: &Found, metric: &str, out: &Output) -> Outcome {
    let mut table = Table::new(vec![
        Column::number("score"),
        Column::word("cache"),
        Column::number("position").optional(),
        Column::text("context"),
        Column::text("label").optional(),
        Column::text("tags").optional(),
    ]);
    for hit in found.results.iter().flat_map(|r| &r.hits) {
        table.push(vec![
            number(hit.score).into(),
            visible(&hit.cache).into(),
            hit.position.map(|p| p.to_string()).unwrap_or_default().into(),
            hit.context.as_ref().map(in_context).unwrap_or_default().into(),
            visible(hit.label.as_deref().unwrap_or_default()).into(),
            visible(&hit.tags.join(",")).into(),
        ]);
    }
    if table.is_empty() {
        out.line("nothing was found")?;
    } else {
        out.print(&table.render(out))?;
    }
    let Scanned { caches, rows, skipped, damaged } = found.scanned;
    let mut scanned =
        format!("{metric} at {} over {}, {}", visible(&found.hook), plural(caches, "cache"), plural(rows, "row"));
    if skipped > 0 {
        scanned += &format!("; {} did not store the position", plural(skipped, "cache"));
    }
    if damaged > 0 {
        scanned += &format!("; {} could not be read", plural(damaged, "cache"));
    }
    out.legend(&scanned)
}

/// The tokens around a hit, which stands in brackets.
fn in_context(context: &Context) -> String {
    let token = |(i, token): (usize, &String)| {
        if i == context.hit { format!("⟦{}⟧", visible_token(token)) } else { visible(token) }
    };
    context.tokens.iter().enumerate().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hit_stands_in_brackets() {
        let tokens = ["The", " E", "iffel\u{1b}"].map(str::to_owned).to_vec();
        assert_eq!(in_context(&Context { tokens, hit: 1 }), "The⟦·E⟧iffel␛");
    }
}
