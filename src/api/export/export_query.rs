//! Query parameters of the export routes.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    dto::cache_query::{OrderParam, selecting_caches},
    tensor::{DtypeParam, TensorQuery, WantedPositions},
};
use residuum_domain::{CacheFilter, Code, Dtype, HookName, Layers, Order, Problem, hook::UnknownHook};
use residuum_engine::questions::export::{Arrangement, ExportQuestion};

/// Default of `shard_bytes`.
const DEFAULT_SHARD: u64 = 1 << 30;
/// Bounds of `shard_bytes`.
const SHARD_BYTES: std::ops::RangeInclusive<u64> = 1 << 16..=1 << 36;

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// A safetensors file with the manifest in its metadata; for several shards a tar of such files.
    #[default]
    Safetensors,
    /// A NumPy archive that contains `manifest.json`; for several shards a tar of such files.
    Npz,
    /// An Arrow IPC stream, a record batch at a time.
    Arrow,
}

/// What to export of each cache, and in which format.
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
    /// One row of each cache: an integer (negative numbers count from the end), `last` or `mean`.
    #[param(example = "last")]
    pub position: Option<String>,
    /// Several rows of each cache: `all`, `0,2,4` or `start:end`. All stored rows if neither `position` nor `positions`
    /// is given.
    #[param(example = "0,2,4")]
    pub positions: Option<String>,
    /// Type of the values in the export; by default the stored type, or float32 if the caches have several.
    #[param(value_type = Option<DtypeParam>)]
    pub dtype: Option<Dtype>,
    /// `asc`: in the order of the inputs, which is the default; `desc`: the reverse.
    #[param(inline)]
    pub order: Option<OrderParam>,
    /// A seed: shuffles the caches. The rows of a cache stay together. The same caches and the same seed give the same
    /// order.
    #[param(minimum = 0, example = 0)]
    pub shuffle: Option<u64>,
    /// Maximum bytes of activations in one safetensors or npz file; larger exports are split into shards.
    #[param(value_type = Option<u64>, minimum = 65_536, maximum = 68_719_476_736u64, default = 1_073_741_824)]
    pub shard_bytes: Option<u64>,
}

selecting_caches! {
    /// What to export, in which format, and which caches: those that meet all conditions.
    FilteredExportQuery {
        /// `safetensors`, `npz` or `arrow`.
        #[param(inline)]
        format: Option<ExportFormat>,
        /// The hook: a full name, or a name without its layer. `resid_post` if left out. Caches that did not capture it
        /// are left out.
        #[param(example = "resid_post")]
        hook: Option<String>,
        /// Layers of a hook inside the blocks: `all` (those that every cache has), `12` or `0,6,-1`.
        #[param(example = "0,6,-1")]
        layers: Option<String>,
        /// One row of each cache: an integer (negative numbers count from the end), `last` or `mean`.
        #[param(example = "last")]
        position: Option<String>,
        /// Several rows of each cache: `all`, `0,2,4` or `start:end`. All stored rows if neither `position` nor
        /// `positions` is given.
        #[param(example = "0,2,4")]
        positions: Option<String>,
        /// Type of the values in the export; by default the stored type, or float32 if the caches have several.
        #[param(value_type = Option<DtypeParam>)]
        dtype: Option<Dtype>,
        /// `asc`: by run, the oldest first, and within a run in the order of its inputs, which is the default; `desc`:
        /// the reverse.
        #[param(inline)]
        order: Option<OrderParam>,
        /// A seed: shuffles the caches. The rows of a cache stay together. The same caches and the same seed give the
        /// same order.
        #[param(minimum = 0, example = 0)]
        shuffle: Option<u64>,
        /// Maximum bytes of activations in one safetensors or npz file; larger exports are split into shards.
        #[param(value_type = Option<u64>, minimum = 65_536, maximum = 68_719_476_736u64, default = 1_073_741_824)]
        shard_bytes: Option<u64>,
    }
}

/// The parameters, parsed.
#[derive(Debug, Clone)]
pub struct ExportSpec {
    /// Format of the export.
    pub format: ExportFormat,
    /// What is exported.
    pub question: ExportQuestion,
    /// Maximum bytes of activations in a shard.
    pub shard_bytes: u64,
}

impl FilteredExportQuery {
    /// Parses the conditions, and what to export.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn parse(self, metadata: Map<String, Value>) -> Result<(CacheFilter, ExportSpec), Problem> {
        let filter = self.conditions(&[], metadata)?;
        let Self { format, hook, layers, position, positions, dtype, order, shuffle, shard_bytes, .. } = self;
        let export = ExportQuery { format, hook, layers, position, positions, dtype, order, shuffle, shard_bytes };
        Ok((filter, export.spec()?))
    }
}

impl ExportQuery {
    /// Parses the parameters and checks that they fit together.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn spec(&self) -> Result<ExportSpec, Problem> {
        let wrong = |name: &str, detail: String| Problem::at(Code::InvalidQuery, name, detail);
        let format = self.format.unwrap_or_default();
        let name: HookName = self.hook.as_deref().unwrap_or("resid_post").parse().map_err(|e: UnknownHook| {
            wrong("hook", format!("{e}; valid names are resid_post and blocks.5.hook_resid_post"))
        })?;
        if matches!(name, HookName::Full(_)) && self.layers.is_some() {
            return Err(wrong("layers", "layers can only be used with a hook name without a layer".into()));
        }
        if format == ExportFormat::Arrow && self.shard_bytes.is_some() {
            let detail = "an Arrow stream has no shards; leave shard_bytes out";
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
        let positions = match rows.wanted {
            None => None,
            Some(WantedPositions::Positions(positions)) => Some(positions),
            Some(WantedPositions::Part(_)) => {
                let detail =
                    "prompt and generated are no positions of an export; capture them, and export all stored rows";
                return Err(wrong("positions", detail.into()));
            }
        };
        let arrangement = match (self.order, self.shuffle) {
            (Some(_), Some(_)) => {
                return Err(wrong("shuffle", "a shuffled export has no order; leave one of the two out".into()));
            }
            (_, Some(seed)) => Arrangement::Shuffled(seed),
            (order, None) => Arrangement::ByRun(order.map_or(Order::Ascending, Order::from)),
        };
        let question = ExportQuestion { name, layers, positions, dtype: self.dtype, arrangement };
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
