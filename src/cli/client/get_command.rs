//! `residuum get`: fetches activations.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{
    answers::Cache,
    call::{Call, segment},
    download::{download, extension, is_standard},
    failure::{Failure, Outcome},
    get_summary::show_summary,
    references::{CACHE_HELP, cache_id},
    server::{Client, Connection},
};

/// Fetch activations of a cache: to a file, or in numbers.
#[derive(Debug, Args)]
#[command(after_help = format!("{CACHE_HELP}

Examples:
  residuum get @last --layer 12                        a summary of layer 12 of the residual stream
  residuum get @last -o layers.npy                     all layers of the residual stream, [n_layers, …]
  residuum get @last -o cache.safetensors              the whole cache
  residuum get @last:attn.pattern --layer 3 -o p.npy   a hook, at one layer
  residuum get @last:logits --dtype float16 -o - | python3 read.py"))]
pub(in crate::cli) struct Get {
    /// The cache, and if you like a hook: a full name, or one without its layer.
    #[arg(value_name = "CACHE[:HOOK]")]
    subject: String,
    /// File to write: .npy, .safetensors, .json or .bin (only the values, little-endian); - for a pipe. Without it, a
    /// summary is shown.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Format, if the name of the file does not say it.
    #[arg(long, value_parser = ["npy", "safetensors", "json", "raw"], requires = "output")]
    format: Option<String>,
    /// One layer; its axis is dropped. Negative numbers count from the last layer of the cache.
    #[arg(short, long, allow_hyphen_values = true)]
    layer: Option<i64>,
    /// One position; its axis is dropped: a number, last or mean.
    #[arg(long, allow_hyphen_values = true)]
    position: Option<String>,
    /// Several positions: all, 0,2,4 or 2:5.
    #[arg(long, allow_hyphen_values = true, conflicts_with = "position")]
    positions: Option<String>,
    /// Type of the values; by default as they are stored.
    #[arg(long, value_parser = ["float32", "float16", "bfloat16"])]
    dtype: Option<String>,
    /// Include tags, label and metadata in the file of a whole cache.
    #[arg(long)]
    annotations: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Get {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        let (cache, hook) = match self.subject.split_once(':') {
            Some((cache, hook)) if !hook.is_empty() => (cache, Some(hook)),
            Some((cache, _)) => (cache, None),
            None => (self.subject.as_str(), None),
        };
        let id = cache_id(&client, cache)?;
        let Some(output) = &self.output else {
            let path = self.tensor_path(&client, &id, hook)?;
            if client.out.json {
                let call = self.selection(Call::get(path.0), path.1.as_deref()).query("format", "json");
                return client.out.raw(&client.json(&call)?.text);
            }
            return show_summary(&client, self.selection(Call::get(path.0), path.1.as_deref()));
        };
        let format = match &self.format {
            Some(format) => format.clone(),
            None => self.format_of(output)?,
        };
        let whole = hook.is_none() && self.layer.is_none() && format == "safetensors" && !self.selects();
        if whole {
            let call = Call::get(format!("/v1/caches/{}/safetensors", segment(&id)));
            let call = if self.annotations { call.query("annotations", true) } else { call };
            return download(&client, &call, output);
        }
        if self.annotations {
            return Err(Failure::Usage(
                "--annotations goes with the file of a whole cache: -o FILE.safetensors".to_owned(),
            ));
        }
        let (path, query) = self.tensor_path(&client, &id, hook)?;
        download(&client, &self.selection(Call::get(path), query.as_deref()).query("format", format), output)
    }

    fn selects(&self) -> bool {
        self.position.is_some() || self.positions.is_some() || self.dtype.is_some()
    }

    fn format_of(&self, output: &std::path::Path) -> Outcome<String> {
        Ok(match extension(output).as_str() {
            "npy" => "npy",
            "safetensors" => "safetensors",
            "json" => "json",
            "bin" | "raw" => "raw",
            _ if is_standard(output) => "npy",
            _ => {
                let message = "the name of the file ends in .npy, .safetensors, .json or .bin; or give --format";
                return Err(Failure::Usage(message.to_owned()));
            }
        }
        .to_owned())
    }

    /// The route of the tensor, and the query parameter `hook` if the route takes one.
    fn tensor_path(&self, client: &Client, id: &str, hook: Option<&str>) -> Outcome<(String, Option<String>)> {
        let base = format!("/v1/caches/{}", segment(id));
        if let (Some(layer), true) = (self.layer, hook.is_none_or(|hook| !hook.starts_with("blocks."))) {
            let layer = if layer < 0 { counted_back(client, &base, hook, layer)? } else { layer };
            return Ok((format!("{base}/layers/{layer}"), hook.map(str::to_owned)));
        }
        let Some(hook) = hook else { return Ok((format!("{base}/layers"), None)) };
        if self.layer.is_some() {
            return Err(Failure::Usage(format!("{hook} names its layer: leave --layer out")));
        }
        // a full name is one tensor; a name without a layer is a stack of layers
        let cache: Cache = client.json(&Call::get(base.as_str()))?.read()?;
        let full = cache.hooks.iter().any(|h| h.hook == hook) || hook.starts_with("blocks.");
        Ok(if full {
            (format!("{base}/tensors/{}", segment(hook)), None)
        } else {
            (format!("{base}/layers"), Some(hook.to_owned()))
        })
    }

    fn selection<'a>(&'a self, call: Call<'a>, hook: Option<&str>) -> Call<'a> {
        call.maybe("hook", hook)
            .maybe("position", self.position.as_ref())
            .maybe("positions", self.positions.as_ref())
            .maybe("dtype", self.dtype.as_ref())
    }
}

/// The layer that a negative number means: counted from the last block of the model.
fn counted_back(client: &Client, base: &str, hook: Option<&str>, layer: i64) -> Outcome<i64> {
    let value = client.json(&Call::get(base))?.value;
    let n_layers = value.get("n_layers").and_then(Value::as_i64).unwrap_or(0);
    let counted = n_layers + layer;
    if counted < 0 {
        let hook = hook.unwrap_or("the residual stream");
        return Err(Failure::Usage(format!("--layer {layer}: the model has {n_layers} layers, and so has {hook}")));
    }
    Ok(counted)
}
