//! What a request says of a file that it imports, and what a cache tells of its file.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::api::tensor::DtypeParam;
use residuum_domain::{ImportOrigin, import::Given};

/// Facts about an imported file. Each beats the key of the same name in the file's `__metadata__` (there `tags` is a JSON array of
/// strings; `dtype` is read here only).
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// Name of the model that made the activations; it need not be served here. Needed unless the file says it.
    #[param(example = "google/gemma-2-2b")]
    pub model: Option<String>,
    /// The text of the input.
    pub text: Option<String>,
    /// What each token stands for: a JSON array of strings.
    #[param(example = "[\"The\", \" E\", \"iffel\"]")]
    pub tokens: Option<String>,
    /// Tokens of the input, where neither `token_ids` nor `tokens` nor an attention map tells.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1_048_576)]
    pub n_tokens: Option<String>,
    /// Positions of the input that the rows belong to: `all`, `last`, `mean`, `3`, `0,2,-1`, `2:5`, or the JSON form of a capture.
    /// Left out: all where there are as many rows as tokens, the last where the tensors have no position axis.
    #[param(example = "all")]
    pub positions: Option<String>,
    /// Layers that a stack holds, in the order of its first axis; all of them, from 0 on, if left out.
    #[param(example = "0,5,11")]
    pub layers: Option<String>,
    /// Blocks of the model; one more than the last layer in the file if left out.
    #[param(value_type = Option<u32>, minimum = 0, maximum = 10_000)]
    pub n_layers: Option<String>,
    /// Width of the residual stream; needed where no tensor of the file has it.
    #[param(value_type = Option<u32>, minimum = 1)]
    pub d_model: Option<String>,
    /// Type to store. Left out: the file's own, and float32 where it mixes them; F64 has to be rounded, so it needs one.
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
    /// The facts by their keys.
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
    /// Types of its activations as safetensors spells them, each once; another than the cache's was converted.
    pub file_dtypes: Vec<String>,
    /// What its `__metadata__` says beyond the fields of the cache: of a file of this server the ids of cache and run, and when it
    /// was made.
    pub metadata: Map<String, Value>,
}

impl From<ImportOrigin> for OriginDto {
    fn from(origin: ImportOrigin) -> Self {
        let ImportOrigin { file_hash, file_bytes, file_dtypes, metadata } = origin;
        Self { file_hash, file_bytes, file_dtypes, metadata }
    }
}
