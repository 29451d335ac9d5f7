//! `residuum import`: stores files of activations made elsewhere as caches.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;
use ureq::SendBody;

use super::{
    answers::Cache,
    call::Call,
    failure::{Failure, Outcome},
    hook_summary::summary,
    progress::{Counts, progress},
    run_batches::new_key,
    server::{Client, Connection, read},
    units::{bytes, plural},
    values::{object, pair},
    visible::visible,
};

/// Import safetensors files, each as a cache.
#[derive(Debug, Args)]
#[command(
    after_help = "Each tensor of a file has the name of its hook: blocks.5.hook_resid_post is one layer, resid_post a stack of
layers, token_ids the tokens. What the file's metadata does not say is given here, for all files."
)]
pub(in crate::cli) struct Import {
    /// The files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Name of the model that computed the activations; the server need not have it.
    #[arg(short, long)]
    model: Option<String>,
    /// The text of the input.
    #[arg(long)]
    text: Option<String>,
    /// The text of each token: a JSON array of strings.
    #[arg(long, value_name = "JSON")]
    tokens: Option<String>,
    /// Positions that the rows belong to: all, last, mean, 3, 0,2,-1 or 2:5.
    #[arg(long, allow_hyphen_values = true)]
    positions: Option<String>,
    /// Layers of a stack, in the order of its first axis, such as 0,5,11.
    #[arg(long)]
    layers: Option<String>,
    /// Number of tokens of the input.
    #[arg(long, value_name = "N")]
    n_tokens: Option<u32>,
    /// Number of blocks of the model.
    #[arg(long, value_name = "N")]
    n_layers: Option<u32>,
    /// Width of the residual stream.
    #[arg(long, value_name = "N")]
    d_model: Option<u32>,
    /// Type in which to store the values.
    #[arg(long, value_parser = ["float32", "float16", "bfloat16"])]
    dtype: Option<String>,
    /// A tag of the caches; may be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Label of the caches.
    #[arg(long)]
    label: Option<String>,
    /// Metadata of the caches; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, Value)>,
    #[command(flatten)]
    connection: Connection,
}

/// A file whose reading moves a bar.
struct Watched {
    file: File,
    bar: ProgressBar,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.bar.inc(n as u64);
        Ok(n)
    }
}

impl Import {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        self.files.iter().try_for_each(|path| self.import(&client, path))
    }

    fn import(&self, client: &Client, path: &PathBuf) -> Outcome {
        let wrong = |e: &io::Error| Failure::file(path, e);
        let size = File::open(path).and_then(|file| file.metadata()).map_err(|e| wrong(&e))?;
        if !size.is_file() {
            return Err(Failure::Usage(format!("{} is not a file", path.display())));
        }
        let bar = progress(&client.out, Some(size.len()), Counts::Bytes);
        bar.set_message("importing");
        let key = new_key();
        let call = self
            .call()
            .header("content-type", "application/vnd.safetensors")
            .header("content-length", size.len().to_string())
            .once(&key);
        let mut response = client.send_with(&call, || {
            bar.set_position(0);
            let file = File::open(path).map_err(|e| wrong(&e))?;
            Ok(SendBody::from_owned_reader(Watched { file, bar: bar.clone() }))
        })?;
        let text = response.body_mut().read_to_string().map_err(|e| client.unread(&e))?;
        bar.finish_and_clear();
        let out = &client.out;
        let value: Value = serde_json::from_str(&text).map_err(|e| Failure::unexpected(&e))?;
        if out.json {
            return out.raw(&text);
        }
        let cache: Cache = read(&value)?;
        if out.quiet {
            return out.line(&visible(&cache.id));
        }
        let hooks = summary(cache.hooks.iter().map(|h| h.hook.as_str()));
        let (tokens, size) = (plural(cache.n_tokens as u64, "token"), bytes(cache.n_bytes));
        out.line(&format!("cache {}  {}  {tokens}, {hooks}, {size}", visible(&cache.id), visible(&cache.model)))
    }

    fn call(&self) -> Call<'_> {
        let metadata = (!self.metadata.is_empty()).then(|| Value::Object(object(&self.metadata)));
        Call::post_bytes("/v1/caches")
            .maybe("model", self.model.as_ref())
            .maybe("text", self.text.as_ref())
            .maybe("tokens", self.tokens.as_ref())
            .maybe("positions", self.positions.as_ref())
            .maybe("layers", self.layers.as_ref())
            .maybe("n_tokens", self.n_tokens)
            .maybe("n_layers", self.n_layers)
            .maybe("d_model", self.d_model)
            .maybe("dtype", self.dtype.as_ref())
            .each("tag", &self.tags)
            .maybe("label", self.label.as_ref())
            .maybe("metadata", metadata)
    }
}
