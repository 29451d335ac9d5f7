//! `residuum export`: activations of many caches as matrices.

use std::path::PathBuf;

use clap::Args;

use super::{
    cache_filter::CacheFilterArgs,
    call::Call,
    download::{download, extension, is_standard, refuse_terminal},
    failure::{Failure, Outcome},
    server::Connection,
};

/// Export one hook of many caches as a matrix, with a description of each row.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  residuum export --tag tour --layers 12 -o tour.npz
  residuum export --run @last --hook mlp_out --positions all -o run.safetensors
  residuum export --tag train --layers 12 --format arrow -o - | python3 train.py

The file has X [rows, …] (or X.0, X.1, … for several layers), row_cache, row_position and row_token_id. Exports that are
larger than one file may be are a tar of several.")]
pub(in crate::cli) struct Export {
    /// File to write: .npz, .safetensors, .arrow or .arrows; - for a pipe. A .tar needs --format.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Format, if the name of the file does not say it.
    #[arg(long, value_parser = ["npz", "safetensors", "arrow"])]
    format: Option<String>,
    /// The hook: a full name, or a name without its layer.
    #[arg(long, default_value = "resid_post")]
    hook: String,
    /// Layers: all (those that every cache has), 12 or 0,6,-1. By default all.
    #[arg(long, allow_hyphen_values = true)]
    layers: Option<String>,
    /// One row of each cache: a number, last or mean.
    #[arg(long, allow_hyphen_values = true, conflicts_with = "positions")]
    position: Option<String>,
    /// Several rows of each cache: all, 0,2,4 or 2:5. By default all stored rows.
    #[arg(long, allow_hyphen_values = true)]
    positions: Option<String>,
    /// Type of the values.
    #[arg(long, value_parser = ["float32", "float16", "bfloat16"])]
    dtype: Option<String>,
    /// Maximum bytes of activations in one file of a tar.
    #[arg(long, value_name = "BYTES")]
    shard_bytes: Option<u64>,
    /// Export every cache of the server that has the hook.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: CacheFilterArgs,
    #[command(flatten)]
    connection: Connection,
}

impl Export {
    pub(super) fn run(&self) -> Outcome {
        if self.all == self.filter.is_given() {
            return Err(Failure::Usage("say which caches: --run, --tag or another condition, or --all".to_owned()));
        }
        refuse_terminal(&self.output)?;
        let client = self.connection.open()?;
        let filter = self.filter.resolved(&client)?;
        let names = filter.metadata_names();
        let call = filter
            .query(Call::get("/v1/export"), &names)
            .query("format", self.format()?)
            .query("hook", &self.hook)
            .maybe("layers", self.layers.as_ref())
            .maybe("position", self.position.as_ref())
            .maybe("positions", self.positions.as_ref())
            .maybe("dtype", self.dtype.as_ref())
            .maybe("shard_bytes", self.shard_bytes);
        download(&client, &call, &self.output)
    }

    fn format(&self) -> Outcome<&str> {
        if let Some(format) = &self.format {
            return Ok(format);
        }
        match extension(&self.output).as_str() {
            "npz" => Ok("npz"),
            "arrow" | "arrows" => Ok("arrow"),
            "safetensors" => Ok("safetensors"),
            _ if is_standard(&self.output) => Ok("npz"),
            _ => Err(Failure::Usage(
                "the name of the file ends in .npz, .safetensors or .arrow; or give --format".to_owned(),
            )),
        }
    }
}
