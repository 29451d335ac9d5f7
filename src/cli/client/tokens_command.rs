//! `residuum tokens`: how a text becomes tokens.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    answers::Cache,
    call::{Call, segment},
    failure::{Failure, Outcome},
    output::Style,
    references::{cache_id, model_id},
    run_command::chat,
    server::{Client, Connection, read_text},
    table::{Cell, Column, Table},
    token_strip::{Marks, strip},
    units::plural,
    values::json_value,
    visible::{visible, visible_lines, visible_token},
};

/// Show the tokens of a text, of ids, of a chat, or of a cache.
#[derive(Debug, Args)]
#[group(id = "subject", required = true, multiple = false)]
#[command(after_help = "In the strip · is a space, ↵ a line break, ⇥ a tab; special tokens are yellow.")]
pub(in crate::cli) struct Tokens {
    /// The text; - reads standard input.
    #[arg(group = "subject")]
    text: Option<String>,
    /// Token ids, with commas between them.
    #[arg(long, value_delimiter = ',', group = "subject")]
    ids: Option<Vec<u32>>,
    /// A chat of one message, rendered with the model's template.
    #[arg(long, value_name = "TEXT", group = "subject")]
    user: Option<String>,
    /// A chat: a file with a JSON array of messages; - reads standard input.
    #[arg(long, value_name = "FILE", group = "subject")]
    chat: Option<PathBuf>,
    /// A stored cache.
    #[arg(long, group = "subject")]
    cache: Option<String>,
    /// The system message of the chat.
    #[arg(long, value_name = "TEXT", requires = "user")]
    system: Option<String>,
    /// The model; may be left out if the server has only one.
    #[arg(short, long)]
    model: Option<String>,
    /// Whether a text begins with a BOS token; by default the tokenizer decides.
    #[arg(long, value_name = "BOOL")]
    bos: Option<bool>,
    /// Show a table with position and id of each token.
    #[arg(short, long)]
    table: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What is shown of an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    model: String,
    token_ids: Vec<u32>,
    tokens: Vec<String>,
    special: Vec<bool>,
    bos: Bos,
    rendered: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bos {
    present: bool,
    added: bool,
    token_id: Option<u32>,
}

impl Tokens {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let answer = match &self.cache {
            Some(cache) => {
                let path = format!("/v1/caches/{}", segment(&cache_id(&client, cache)?));
                client.json(&Call::get(path))?
            }
            None => client.json(&Call::ask("/v1/tokenize", &self.body(&client)?.into()))?,
        };
        let out = &client.out;
        if out.json {
            return out.raw(&answer.text);
        }
        let shown: Shown = answer.read()?;
        if out.quiet {
            return shown.token_ids.iter().try_for_each(|id| out.line(&id.to_string()));
        }
        let generated_from = self.cache.as_ref().map(|_| answer.read::<Cache>()).transpose()?;
        let generated_from = generated_from.and_then(|cache| cache.completion).map(|c| c.first_position);
        self.show(&client, &shown, generated_from)
    }

    fn show(&self, client: &Client, shown: &Shown, generated_from: Option<usize>) -> Outcome {
        let out = &client.out;
        if let Some(rendered) = &shown.rendered {
            out.legend(visible_lines(rendered).trim_end())?;
            out.line("")?;
        }
        if self.table {
            let mut table = Table::new(vec![
                Column::number("position"),
                Column::number("id"),
                Column::text("token"),
                Column::word("special"),
            ]);
            for (i, token) in shown.tokens.iter().enumerate() {
                let special = shown.special.get(i).copied().unwrap_or(false);
                let id = shown.token_ids.get(i).map(ToString::to_string).unwrap_or_default();
                let style = if special { Style::Busy } else { Style::Plain };
                let token = Cell::styled(visible_token(token), style);
                table.push(vec![
                    i.to_string().into(),
                    id.into(),
                    token,
                    if special { "special".into() } else { "".into() },
                ]);
            }
            out.print(&table.render(out))?;
        } else {
            out.print(&strip(&shown.tokens, Marks { special: &shown.special, generated_from, numbered: false }, out))?;
        }
        let bos = match &shown.bos {
            Bos { added: true, .. } => "a BOS token was added",
            Bos { present: true, .. } => "begins with a BOS token",
            Bos { token_id: None, .. } => "the tokenizer has no BOS token",
            Bos { .. } => "no BOS token",
        };
        let n = plural(shown.tokens.len() as u64, "token");
        out.legend(&format!("{n}, {}, {bos}", visible(&shown.model)))
    }

    fn body(&self, client: &Client) -> Outcome<Map<String, Value>> {
        let subject = match (&self.text, &self.ids, &self.user, &self.chat) {
            (Some(text), ..) if text == "-" => ("text", json!(read_text("-".as_ref())?)),
            (Some(text), ..) => ("text", json!(text)),
            (_, Some(ids), ..) => ("token_ids", json!(ids)),
            (_, _, Some(user), _) => ("messages", chat(self.system.as_deref(), user)),
            (.., Some(file)) => {
                let wrong = |e: String| Failure::Usage(format!("{}: {e}", file.display()));
                ("messages", json_value(&read_text(file)?).map_err(wrong)?)
            }
            _ => return Err(Failure::Usage("give a text, --ids, --user, --chat or --cache".to_owned())),
        };
        let (name, value) = subject;
        let mut body = Map::from_iter([
            ("model".to_owned(), json!(model_id(client, self.model.as_deref())?)),
            (name.to_owned(), value),
        ]);
        body.extend(self.bos.map(|bos| ("prepend_bos".to_owned(), json!(bos))));
        Ok(body)
    }
}
