//! Parameters of the export routes.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    dto::cache::CachesQuery,
    tensor::{DtypeParam, TensorQuery},
};
use residuum_domain::{CacheFilter, Code, Dtype, HookName, Layers, Problem, hook::UnknownHook};
use residuum_engine::questions::export::ExportQuestion;

/// Bytes of a shard when the client does not say.
const DEFAULT_SHARD: u64 = 1 << 30;
/// Bounds of what it may say.
const SHARD_BYTES: std::ops::RangeInclusive<u64> = 1 << 16..=1 << 36;

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A safetensors file with the manifest in its metadata; beyond a shard a tar of them.
    #[default]
    Safetensors,
    /// A NumPy archive with `manifest.json` inside; beyond a shard a tar of them.
    Npz,
    /// An Arrow IPC stream, a record batch at a time.
    Arrow,
}

/// What of each cache is exported, and how.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// `safetensors`, `npz` or `arrow`.
    #[param(inline)]
    pub format: Option<ExportFormat>,
    /// The hook: a full name, or a name without its layer. `resid_post` if left out.
    #[param(example = "resid_post")]
    pub hook: Option<String>,
    /// Layers of a hook inside the blocks: `all` (those that every cache has), `12` or `0,6,-1`.
    #[param(example = "0,6,-1")]
    pub layers: Option<String>,
    /// One row of each cache: an integer (negatives count from the end), `last` or `mean`.
    #[param(example = "last")]
    pub position: Option<String>,
    /// Several rows of each cache: `all`, `0,2,4` or `start:end`. Every stored row if neither is given.
    #[param(example = "0,2,4")]
    pub positions: Option<String>,
    /// Type to send. Left out: the stored one, and float32 where the caches differ.
    #[param(value_type = Option<DtypeParam>)]
    pub dtype: Option<Dtype>,
    /// Bytes of activations beyond which safetensors and npz are cut into shards.
    #[param(value_type = Option<u64>, minimum = 65_536, maximum = 68_719_476_736u64, default = 1_073_741_824)]
    pub shard_bytes: Option<u64>,
}

/// The same with the conditions of a listing; all that are given must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FilteredExportQuery {
    /// Name of the model.
    pub model: Option<String>,
    /// Made by this run.
    pub run: Option<String>,
    /// Bears this tag; may be repeated, then every one.
    #[serde(default)]
    pub tag: Vec<String>,
    /// Has this label.
    pub label: Option<String>,
    /// Stored at or after this time (RFC 3339).
    pub created_from: Option<String>,
    /// Stored before this time (RFC 3339).
    pub created_to: Option<String>,
    /// The text, or what was generated behind it, has these words and `"phrases in quotes"`.
    pub text: Option<String>,
    /// Is pinned, or is not.
    pub pinned: Option<bool>,
    /// Has a time to expire at or after this one (RFC 3339).
    pub expires_from: Option<String>,
    /// Has a time to expire before this one (RFC 3339).
    pub expires_to: Option<String>,
    /// `safetensors`, `npz` or `arrow`.
    #[param(inline)]
    pub format: Option<ExportFormat>,
    /// The hook: a full name, or a name without its layer. `resid_post` if left out. Caches that captured none of it are left out.
    #[param(example = "resid_post")]
    pub hook: Option<String>,
    /// Layers of a hook inside the blocks: `all` (those that every cache has), `12` or `0,6,-1`.
    #[param(example = "0,6,-1")]
    pub layers: Option<String>,
    /// One row of each cache: an integer (negatives count from the end), `last` or `mean`.
    #[param(example = "last")]
    pub position: Option<String>,
    /// Several rows of each cache: `all`, `0,2,4` or `start:end`. Every stored row if neither is given.
    #[param(example = "0,2,4")]
    pub positions: Option<String>,
    /// Type to send. Left out: the stored one, and float32 where the caches differ.
    #[param(value_type = Option<DtypeParam>)]
    pub dtype: Option<Dtype>,
    /// Bytes of activations beyond which safetensors and npz are cut into shards.
    #[param(value_type = Option<u64>, minimum = 65_536, maximum = 68_719_476_736u64, default = 1_073_741_824)]
    pub shard_bytes: Option<u64>,
}

/// The parameters, parsed.
#[derive(Debug, Clone)]
pub struct ExportSpec {
    /// How it is written.
    pub format: ExportFormat,
    /// What is exported.
    pub question: ExportQuestion,
    /// Bytes of activations in a shard.
    pub shard_bytes: u64,
}

impl FilteredExportQuery {
    /// The conditions, and what is exported of the caches that meet them.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn parse(self, metadata: Map<String, Value>) -> Result<(CacheFilter, ExportSpec), Problem> {
        let Self { model, run, tag, label, created_from, created_to, text, pinned, expires_from, expires_to, .. } =
            self;
        let filter = CachesQuery {
            model,
            run,
            tag,
            label,
            hook: Vec::new(),
            created_from,
            created_to,
            text,
            pinned,
            expires_from,
            expires_to,
            count: None,
            limit: None,
            cursor: None,
        };
        let Self { format, hook, layers, position, positions, dtype, shard_bytes, .. } = self;
        let export = ExportQuery { format, hook, layers, position, positions, dtype, shard_bytes };
        Ok((filter.filter(metadata)?, export.spec()?))
    }
}

impl ExportQuery {
    /// Checks the parameters against each other.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn spec(&self) -> Result<ExportSpec, Problem> {
        let wrong = |name: &str, detail: String| Problem::at(Code::InvalidQuery, name, detail);
        let format = self.format.unwrap_or_default();
        let name: HookName =
            self.hook.as_deref().unwrap_or("resid_post").parse().map_err(|e: UnknownHook| {
                wrong("hook", format!("{e}; resid_post or blocks.5.hook_resid_post is one"))
            })?;
        if matches!(name, HookName::Full(_)) && self.layers.is_some() {
            return Err(wrong(
                "layers",
                "the hook's name says which layer; layers goes with a name without one".into(),
            ));
        }
        if format == ExportFormat::Arrow && self.shard_bytes.is_some() {
            let detail = "an Arrow stream comes in record batches and has no shards; leave shard_bytes out";
            return Err(wrong("shard_bytes", detail.into()));
        }
        let shard_bytes = self.shard_bytes.unwrap_or(DEFAULT_SHARD);
        if !SHARD_BYTES.contains(&shard_bytes) {
            let detail = format!("shard_bytes lies between {} and {}", SHARD_BYTES.start(), SHARD_BYTES.end());
            return Err(wrong("shard_bytes", detail));
        }
        let layers = self.layers.as_deref().map_or(Ok(Layers::All), read_layers);
        let layers = layers
            .map_err(|()| wrong("layers", "layers is all, an integer, or integers with commas between them".into()))?;
        let (position, positions) = (self.position.clone(), self.positions.clone());
        let rows = TensorQuery { position, positions, dtype: None, format: None, encoding: None, hook: None }.spec()?;
        let question = ExportQuestion { name, layers, positions: rows.positions, dtype: self.dtype };
        Ok(ExportSpec { format, question, shard_bytes })
    }
}

fn read_layers(text: &str) -> Result<Layers, ()> {
    if text == "all" {
        return Ok(Layers::All);
    }
    let list = text.split(',').map(|l| l.trim().parse().map_err(|_| ())).collect::<Result<Vec<i64>, ()>>()?;
    Ok(Layers::List(list))
}
