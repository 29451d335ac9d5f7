//! `residuum patch`: a sweep of patches or ablations.

use std::{io::BufReader, path::PathBuf};

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    answers::Problem,
    call::Call,
    download::{download, extension, is_standard},
    event_stream::Events,
    failure::{Failure, Outcome},
    patch_table::{PatchAnswer, show},
    progress::{Counts, progress, set_total},
    references::model_id,
    server::{Client, Connection},
    values::{layers, swept, token},
};

/// Patch or ablate activations cell by cell, and measure the effect on an answer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  residuum patch 'When John and Mary went to the store, John gave a drink to' \\
    'When John and Mary went to the store, Mary gave a drink to' --answer ' Mary' --against ' John' --layers 0,15,20,25
  residuum patch 'The Eiffel Tower is in the city of' --op zero --hook attn.z --heads each --answer ' Paris'

Positions are an axis by default. Nothing is stored. Ctrl-C stops the sweep.")]
pub(in crate::cli) struct Patch {
    /// The input that leads to the answer.
    clean: String,
    /// The input that leads to another answer, with the same number of tokens; for --op patch, and only then.
    corrupt: Option<String>,
    /// The token to measure, such as ' Paris' or id:7042.
    #[arg(short, long, value_parser = token)]
    answer: Value,
    /// A token whose logit is subtracted.
    #[arg(long, value_parser = token)]
    against: Option<Value>,
    /// How the effect is measured; by default logit_diff with --against, else probability.
    #[arg(long, value_parser = ["logit_diff", "logit", "probability", "log_probability"])]
    metric: Option<String>,
    /// What each cell does; by default patch, or zero if there is only one input.
    #[arg(long, value_parser = ["patch", "zero", "knockout"])]
    op: Option<String>,
    /// The hook: resid_pre if left out; attn.z with --heads each for heads; mlp_out for MLPs.
    #[arg(long)]
    hook: Option<String>,
    /// Layers: all, 12, 0,6,-1 or 10:20 (without the end). By default all.
    #[arg(long, value_parser = layers, allow_hyphen_values = true)]
    layers: Option<Value>,
    /// each: an axis of positions. Otherwise the positions that are changed together. By default each, or all with
    /// --heads.
    #[arg(long, value_parser = swept, allow_hyphen_values = true)]
    positions: Option<Value>,
    /// each: an axis of heads. Otherwise the heads that are changed together, such as 0,3.
    #[arg(long, value_parser = heads)]
    heads: Option<Value>,
    /// Keys of a knockout: each, or those that are hidden together.
    #[arg(long, value_parser = swept, allow_hyphen_values = true)]
    from: Option<Value>,
    /// Queries of a knockout: each, or those that are changed together.
    #[arg(long, value_parser = swept, allow_hyphen_values = true)]
    to: Option<Value>,
    /// Put clean values into the corrupt run, or the other way round.
    #[arg(long, value_parser = ["denoise", "noise"])]
    direction: Option<String>,
    /// The model; may be left out if the server has only one.
    #[arg(short, long)]
    model: Option<String>,
    /// Whether the inputs begin with a BOS token; by default the tokenizer decides.
    #[arg(long, value_name = "BOOL")]
    bos: Option<bool>,
    /// Write the metric of every cell to a file: .npy or .safetensors; - for a pipe.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

fn heads(text: &str) -> Result<Value, String> {
    if text == "each" {
        return Ok(json!("each"));
    }
    let heads = text.split(',').map(|h| h.trim().parse::<u32>()).collect::<Result<Vec<_>, _>>();
    heads.map(|heads| json!(heads)).map_err(|_| "expected each, or heads with commas between them".to_owned())
}

/// The data of an event `progress`.
#[derive(Debug, Deserialize)]
struct Progress {
    #[serde(default)]
    queue_position: Option<u64>,
    done: u64,
    total: u64,
}

impl Patch {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let body: Value = self.body(&client)?.into();
        if let Some(output) = &self.output {
            let format = match extension(output).as_str() {
                "npy" => "npy",
                "safetensors" => "safetensors",
                _ if is_standard(output) => "npy",
                _ => return Err(Failure::Usage("the name of the file ends in .npy or .safetensors".to_owned())),
            };
            return download(&client, &Call::ask("/v1/experiments/patching", &body).query("format", format), output);
        }
        let answer = sweep(&client, &body)?;
        if client.out.json {
            return client.out.raw(&answer);
        }
        let answer: PatchAnswer = serde_json::from_str(&answer).map_err(|e| Failure::unexpected(&e))?;
        show(&answer, &client.out)
    }

    fn body(&self, client: &Client) -> Outcome<Map<String, Value>> {
        let op = self.op.as_deref().unwrap_or(if self.corrupt.is_some() { "patch" } else { "zero" });
        let mut sweep = Map::from_iter([("op".to_owned(), json!(op))]);
        let positions = self.positions.clone();
        // a knockout has its own axes, and heads are rarely wanted for each position
        let positions = positions.or_else(|| (op != "knockout" && self.heads.is_none()).then(|| json!("each")));
        let to = self.to.clone().or_else(|| (op == "knockout" && self.from.is_none()).then(|| json!("last")));
        let from = self.from.clone().or_else(|| (op == "knockout" && self.heads.is_none()).then(|| json!("each")));
        let given = [
            ("hook", self.hook.as_ref().map(|hook| json!(hook))),
            ("layers", self.layers.clone()),
            ("positions", positions),
            ("heads", self.heads.clone()),
            ("from", from),
            ("to", to),
        ];
        sweep.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let mut body = Map::from_iter([
            ("model".to_owned(), json!(model_id(client, self.model.as_deref())?)),
            ("clean".to_owned(), json!(self.clean)),
            ("answer".to_owned(), self.answer.clone()),
            ("sweep".to_owned(), sweep.into()),
        ]);
        let given = [
            ("corrupt", self.corrupt.as_ref().map(|text| json!(text))),
            ("against", self.against.clone()),
            ("metric", self.metric.as_ref().map(|metric| json!(metric))),
            ("direction", self.direction.as_ref().map(|direction| json!(direction))),
            ("prepend_bos", self.bos.map(|bos| json!(bos))),
        ];
        body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Ok(body)
    }
}

/// Runs the sweep and follows its progress. Returns the answer, as the server gives it.
fn sweep(client: &Client, body: &Value) -> Outcome<String> {
    let call = Call::ask("/v1/experiments/patching", body).header("accept", "text/event-stream");
    let response = client.send(&call)?;
    let bar = progress(&client.out, None, Counts::Things);
    bar.set_message("patching");
    for event in Events::new(BufReader::new(response.into_body().into_reader())) {
        let event = event.map_err(|e| client.unread(&e))?;
        let wrong = |e: serde_json::Error| Failure::unexpected(&e);
        match event.name.as_str() {
            "progress" => {
                let Progress { queue_position, done, total } = serde_json::from_str(&event.data).map_err(wrong)?;
                match queue_position {
                    Some(ahead) => bar.set_message(format!("{ahead} experiments ahead")),
                    None => bar.set_message("patching"),
                }
                set_total(&bar, total, Counts::Things);
                bar.set_position(done);
            }
            "result" => {
                bar.finish_and_clear();
                return Ok(event.data);
            }
            "problem" => {
                bar.finish_and_clear();
                let problem: Problem = serde_json::from_str(&event.data).map_err(wrong)?;
                let status: Value = serde_json::from_str(&event.data).map_err(wrong)?;
                let status = status.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok());
                return Err(Failure::of_problem(status.unwrap_or(500), &problem));
            }
            _ => {}
        }
    }
    Err(client.unread(&"the sweep has no result"))
}
