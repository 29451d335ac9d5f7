//! Query parameters of an import, and the origin of an imported cache.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::api::tensor::DtypeParam;
use residuum_domain::{ImportOrigin, import::Given};

/// Facts about an imported file. Each takes precedence over the key of the same name in the file's `__metadata__`
/// (where `tags` is a JSON array of strings, and `dtype` is not read).
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Name of the model that computed the activations; this server need not have it. Required unless the file contains
    /// it.
    #[param(example = "google/gemma-2-2b")]
    pub model: Option<String>,
    /// The text of the input.
    pub text: Option<String>,
    /// The text of each token: a JSON array of strings.
    #[param(example = "[\"The\", \" E\", \"iffel\"]")]
    pub tokens: Option<String>,
    /// Number of tokens of the input, if it does not follow from `token_ids`, `tokens` or an attention map.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1_048_576)]
    pub n_tokens: Option<String>,
    /// Positions of the input that the rows belong to: `all`, `last`, `mean`, `3`, `0,2,-1`, `2:5`, or the JSON form of
    /// a capture. By default all if there are as many rows as tokens, and the last if the tensors have no position
    /// axis.
    #[param(example = "all")]
    pub positions: Option<String>,
    /// Layers of a stack, in the order of its first axis; by default 0, 1, 2 and so on.
    #[param(example = "0,5,11")]
    pub layers: Option<String>,
    /// Number of blocks of the model; by default one more than the last layer in the file.
    #[param(value_type = Option<u32>, minimum = 0, maximum = 10_000)]
    pub n_layers: Option<String>,
    /// Width of the residual stream; required if no tensor of the file has it.
    #[param(value_type = Option<u32>, minimum = 1)]
    pub d_model: Option<String>,
    /// Type in which to store the values; by default the file's, or float32 if the file has several. Required for F64,
    /// which must be rounded.
    #[param(value_type = Option<DtypeParam>)]
    pub dtype: Option<String>,
    /// Label of the cache.
    pub label: Option<String>,
    /// A tag of the cache; may be repeated.
    #[serde(default)]
    pub tag: Vec<String>,
    /// Metadata of the cache: a JSON object.
    #[param(example = "{\"split\": \"train\"}")]
    pub metadata: Option<String>,
}

impl ImportQuery {
    /// Converts the parameters to a map of facts by key.
    pub fn given(self) -> Given {
        let tags = (!self.tag.is_empty()).then(|| Value::from(self.tag).to_string());
        let facts = [
            ("model", self.model),
            ("text", self.text),
            ("tokens", self.tokens),
            ("n_tokens", self.n_tokens),
            ("positions", self.positions),
            ("layers", self.layers),
            ("n_layers", self.n_layers),
            ("d_model", self.d_model),
            ("dtype", self.dtype),
            ("label", self.label),
            ("tags", tags),
            ("metadata", self.metadata),
        ];
        facts.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
    }
}

/// Where an imported cache came from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImportOrigin)]
pub struct OriginDto {
    /// blake3 of the file.
    pub file_hash: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Types of its activations, as named in safetensors, each once. Types other than the cache's were converted.
    pub file_dtypes: Vec<String>,
    /// Entries of its `__metadata__` that have no field in the cache. For files of this server: ids of cache and run,
    /// and the time when the cache was made.
    pub metadata: Map<String, Value>,
}

impl From<ImportOrigin> for OriginDto {
    fn from(origin: ImportOrigin) -> Self {
        let ImportOrigin { file_hash, file_bytes, file_dtypes, metadata } = origin;
        Self { file_hash, file_bytes, file_dtypes, metadata }
    }
}
