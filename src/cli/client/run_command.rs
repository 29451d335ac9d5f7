//! `residuum run`: posts inputs as runs and shows their caches.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    failure::{Failure, Outcome},
    input_lines::{Batches, InputLines, Line, LineFormat},
    references::model_id,
    run_batches::Bulk,
    run_dry::show_dry_run,
    run_report::BulkOptions,
    run_stream::stream_generation,
    server::{Client, Connection, read_text},
    values::{json_value, layers, object, pair, positions, seconds},
};

/// Capture the activations of texts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  residuum run 'The Eiffel Tower is in the city of' --hooks resid_post,logits --tag tour
  residuum run 'Once upon a time' --generate 40 --temperature 0.8
  cat prompts.txt | residuum run -f - --layers 12 --json | jq -r '.caches[]'
  residuum run -f sentences.jsonl --positions mean --dry-run

Ctrl-C cancels what has been posted; caches that exist are kept, and the same command computes only the rest.
To leave a run to the server, use --no-wait.")]
pub(in crate::cli) struct Run {
    /// Texts; each gets a cache of its own.
    #[arg(required_unless_present_any = ["file", "user"])]
    texts: Vec<String>,
    /// File with an input on each line, text or JSON; - reads standard input. JSON is an object with text, token_ids or
    /// messages, and if you like positions, metadata, tags and label; a string; or an array of token ids.
    #[arg(short, long, conflicts_with_all = ["texts", "user"])]
    file: Option<PathBuf>,
    /// What the lines of the file are; by default the extension or the first line decides.
    #[arg(long, requires = "file")]
    format: Option<LineFormat>,
    /// A chat of one message, rendered with the model's template.
    #[arg(long, value_name = "TEXT", conflicts_with = "texts")]
    user: Option<String>,
    /// The system message of the chat.
    #[arg(long, value_name = "TEXT", requires = "user")]
    system: Option<String>,
    /// The model; may be left out if the server has only one.
    #[arg(short, long)]
    model: Option<String>,
    /// A change to activations during the forward pass, as JSON; may be repeated. @FILE reads an array of them.
    #[arg(long, value_name = "JSON", help_heading = "Forward pass")]
    intervene: Vec<String>,
    /// Whether texts begin with a BOS token; by default the tokenizer decides.
    #[arg(long, value_name = "BOOL", help_heading = "Forward pass")]
    bos: Option<bool>,
    /// What to do with inputs that are longer than the context.
    #[arg(long, value_parser = ["error", "left", "right"], help_heading = "Forward pass")]
    truncate: Option<String>,
    /// Compute a forward pass even if the activations are stored already.
    #[arg(long, help_heading = "Forward pass")]
    no_reuse: bool,
    /// How urgent the runs are; by default normal, or bulk if there are several.
    #[arg(long, value_parser = ["interactive", "normal", "bulk"], help_heading = "Forward pass")]
    priority: Option<String>,
    /// A tag of every cache; may be repeated.
    #[arg(long = "tag", value_name = "TAG", help_heading = "Annotations")]
    tags: Vec<String>,
    /// Metadata of every cache; may be repeated. The value is JSON, or else a string.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, help_heading = "Annotations")]
    metadata: Vec<(String, Value)>,
    /// Label of every cache that has none in the file.
    #[arg(long, help_heading = "Annotations")]
    label: Option<String>,
    /// Time after which the caches expire, such as 7d; by default never.
    #[arg(long, value_name = "TIME", value_parser = seconds, help_heading = "Annotations")]
    ttl: Option<u64>,
    /// Post the runs and do not wait for them.
    #[arg(long)]
    no_wait: bool,
    /// Show tokens, shapes and bytes, and store nothing. Of a file, the first inputs, up to --batch.
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
    /// Maximum number of inputs of one run; a longer file becomes several runs.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    // headings of flattened options stay for those that follow
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    connection: Connection,
}

/// What to capture.
#[derive(Debug, Args)]
#[command(next_help_heading = "Capture")]
struct CaptureArgs {
    /// Hooks, with commas between them: resid_post, attn.pattern, blocks.5.hook_resid_post. By default resid_post. With
    /// --generate also none: nothing is captured.
    #[arg(long, value_delimiter = ',', value_name = "HOOKS")]
    hooks: Option<Vec<String>>,
    /// Layers: all, 12, 0,6,-1 or 10:20 (without the end). By default all.
    #[arg(long, value_parser = layers, allow_hyphen_values = true)]
    layers: Option<Value>,
    /// Positions: last, mean, all, prompt, generated, 3, 0,2,-1, 2:5, text:WORD, or JSON. By default last.
    #[arg(long, value_parser = positions, allow_hyphen_values = true)]
    positions: Option<Value>,
    /// Type in which to store values.
    #[arg(long, value_parser = ["float32", "float16", "bfloat16"])]
    dtype: Option<String>,
}

/// How to continue the inputs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation")]
struct GenerateArgs {
    /// Continue each input by at most this many tokens. The text of a single input is shown as it comes.
    #[arg(long, value_name = "N")]
    generate: Option<u32>,
    /// 0, the default, always takes the most probable token.
    #[arg(long, requires = "generate")]
    temperature: Option<f64>,
    /// Sample from this many of the most probable tokens.
    #[arg(long, requires = "generate")]
    top_k: Option<u32>,
    /// Sample from the most probable tokens whose probabilities add up to this.
    #[arg(long, requires = "generate")]
    top_p: Option<f64>,
    /// Seed of sampling, to repeat it.
    #[arg(long, requires = "generate")]
    seed: Option<u64>,
    /// A text that ends the continuation; may be repeated.
    #[arg(long, requires = "generate")]
    stop: Vec<String>,
    /// How often each input is continued.
    #[arg(long, requires = "generate", value_name = "N")]
    samples: Option<u32>,
}

impl CaptureArgs {
    fn body(&self) -> Map<String, Value> {
        let mut capture = Map::new();
        if let Some(hooks) = &self.hooks {
            let hooks: Vec<&str> = hooks.iter().map(|h| h.trim()).filter(|h| !h.is_empty() && *h != "none").collect();
            capture.insert("hooks".to_owned(), json!(hooks));
        }
        let others = [("layers", &self.layers), ("positions", &self.positions)];
        for (name, value) in others {
            capture.extend(value.clone().map(|value| (name.to_owned(), value)));
        }
        capture.extend(self.dtype.as_ref().map(|dtype| ("dtype".to_owned(), json!(dtype))));
        capture
    }
}

impl GenerateArgs {
    fn body(&self) -> Option<Value> {
        let mut body = Map::from_iter([("max_new_tokens".to_owned(), json!(self.generate?))]);
        let given = [
            ("temperature", self.temperature.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("stop", (!self.stop.is_empty()).then(|| json!(self.stop))),
            ("n", self.samples.map(Value::from)),
        ];
        body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Some(body.into())
    }
}

impl Run {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let base = self.base(&client)?;
        if self.dry_run {
            return show_dry_run(&client, &base, &self.first_inputs()?);
        }
        if self.is_streamed(&client, &base) {
            return stream_generation(&client, &base, &self.given());
        }
        let options = BulkOptions { wait: !self.no_wait, generates: self.generate.generate.is_some() };
        match &self.file {
            Some(path) => {
                let lines = InputLines::open(path, self.format)?;
                let total = InputLines::count(path);
                let batches = Batches::new(lines.map(|line| line.map(|line| self.labelled(line))), self.batch as usize);
                Bulk::new(&client, base, options, total).run(batches)
            }
            None => {
                let given = self.given();
                let total = given.len() as u64;
                let batches = Batches::new(given.into_iter().map(Ok), self.batch as usize);
                Bulk::new(&client, base, options, Some(total)).run(batches)
            }
        }
    }

    /// The fields of every run's body but its inputs.
    fn base(&self, client: &Client) -> Outcome<Map<String, Value>> {
        let mut body = Map::from_iter([("model".to_owned(), json!(model_id(client, self.model.as_deref())?))]);
        let capture = self.capture.body();
        let given = [
            ("capture", (!capture.is_empty()).then(|| capture.into())),
            ("generate", self.generate.body()),
            ("interventions", self.interventions()?),
            ("prepend_bos", self.bos.map(Value::from)),
            ("truncate", self.truncate.as_deref().map(Value::from)),
            ("reuse", self.no_reuse.then(|| json!(false))),
            ("priority", self.priority.as_deref().map(Value::from)),
            ("tags", (!self.tags.is_empty()).then(|| json!(self.tags))),
            ("metadata", (!self.metadata.is_empty()).then(|| object(&self.metadata).into())),
            ("ttl_seconds", self.ttl.map(Value::from)),
        ];
        body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Ok(body)
    }

    fn interventions(&self) -> Outcome<Option<Value>> {
        let mut all = Vec::new();
        for given in &self.intervene {
            let (text, place) = match given.strip_prefix('@') {
                Some(path) => (read_text(path.as_ref())?, path),
                None => (given.clone(), "--intervene"),
            };
            match json_value(&text).map_err(|e| Failure::Usage(format!("{place}: {e}")))? {
                Value::Array(several) => all.extend(several),
                one => all.push(one),
            }
        }
        Ok((!all.is_empty()).then_some(Value::Array(all)))
    }

    /// The inputs that stand on the command line.
    fn given(&self) -> Vec<Line> {
        let item = |name: &str, value| Map::from_iter([(name.to_owned(), value)]);
        let items: Vec<_> = match &self.user {
            Some(user) => vec![item("messages", chat(self.system.as_deref(), user))],
            None => self.texts.iter().map(|text| item("text", json!(text))).collect(),
        };
        items.into_iter().zip(1..).map(|(item, number)| self.labelled(Line { number, item })).collect()
    }

    /// The inputs of a dry run.
    fn first_inputs(&self) -> Outcome<Vec<Line>> {
        let Some(path) = &self.file else { return Ok(self.given()) };
        let lines = InputLines::open(path, self.format)?.map(|line| line.map(|line| self.labelled(line)));
        Batches::new(lines, self.batch as usize).next().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn labelled(&self, mut line: Line) -> Line {
        if let Some(label) = &self.label {
            line.item.entry("label").or_insert_with(|| json!(label));
        }
        line
    }

    /// Whether the text is shown as it comes: that of one continuation, to a person.
    fn is_streamed(&self, client: &Client, base: &Map<String, Value>) -> bool {
        let out = &client.out;
        let watched = out.is_terminal && !out.json && !out.quiet && !self.no_wait;
        // a list of strengths makes several continuations of one input
        let changes = base.get("interventions").and_then(Value::as_array).into_iter().flatten();
        let several = changes.filter_map(|change| change.get("strength")).any(Value::is_array);
        watched && self.generate.generate.is_some() && self.file.is_none() && self.n_continuations() == 1 && !several
    }

    fn n_continuations(&self) -> u32 {
        let inputs = if self.user.is_some() { 1 } else { u32::try_from(self.texts.len()).unwrap_or(u32::MAX) };
        inputs.saturating_mul(self.generate.samples.unwrap_or(1))
    }
}

/// A chat of one message, with a system message if there is one.
pub(super) fn chat(system: Option<&str>, user: &str) -> Value {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    system.map(|text| message("system", text)).into_iter().chain([message("user", user)]).collect()
}
