//! Caches in requests and answers.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{capture::PositionsSchema, generate::CompletionDto};
use crate::domain::{BosDecision, Cache, CacheFilter, CachePatch, Code, Hook, Positions, Problem, Provenance, Site};

/// A stored cache.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cache, example = json!({
    "id": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "run": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "item_index": 0,
    "model": "smollm2-135m", "label": null, "tags": ["demo"], "metadata": {}, "text": "The Eiffel Tower",
    "token_ids": [504, 414, 46682, 18669], "tokens": ["The", " E", "iffel", " Tower"], "n_tokens": 4,
    "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "n_truncated": 0, "completion": null, "n_layers": 30,
    "d_model": 576, "positions": "last",
    "hooks": [{"hook": "blocks.12.hook_resid_post", "shape": [576], "axes": ["d_model"], "dtype": "float32", "hf_hidden_states_index": 13}],
    "provenance": {
        "model_fingerprint": "d18fcfc1a1be850dc2dee03adf277d2a72baf4de46a48a9ede5add0976bdcc9e", "architecture": "llama",
        "weights_dtype": "Q4_1+Q8_0+float32", "compute_dtype": "float32", "device": "cpu", "residuum_version": "0.1.0", "numerics_version": 1
    },
    "reused": false, "n_nan": 0, "n_inf": 0,
    "content_hash": "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592", "n_bytes": 2304,
    "created_at": "2026-11-23T12:00:00.05Z"
}))]
pub struct CacheDto {
    /// Its id.
    pub id: String,
    /// The run that made it.
    pub run: String,
    /// Its place among the run's inputs.
    pub item_index: u64,
    /// Name of the model.
    pub model: String,
    /// Label.
    pub label: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// The text as posted, or as rendered from a chat; null when token ids were posted.
    pub text: Option<String>,
    /// Token ids the model saw.
    pub token_ids: Vec<u32>,
    /// What each token stands for.
    pub tokens: Vec<String>,
    /// Tokens.
    pub n_tokens: usize,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDto,
    /// Tokens cut from the input to fit the context.
    pub n_truncated: u64,
    /// What was generated, where the input was continued; null elsewhere.
    pub completion: Option<CompletionDto>,
    /// Blocks of the model.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Positions that were captured.
    #[schema(value_type = PositionsSchema)]
    pub positions: Positions,
    /// What was captured.
    pub hooks: Vec<CacheHook>,
    /// What produced it.
    pub provenance: ProvenanceDto,
    /// Whether the numbers came from the store instead of a forward pass of this run.
    pub reused: bool,
    /// NaN as stored.
    pub n_nan: u64,
    /// Infinities as stored.
    pub n_inf: u64,
    /// blake3 of the stored tensors.
    pub content_hash: String,
    /// Bytes its tensors take in the store.
    pub n_bytes: u64,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
}

/// One captured hook of a cache.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheHook {
    /// Full name.
    pub hook: String,
    /// Shape of its tensor.
    pub shape: Vec<usize>,
    /// What the axes are.
    pub axes: Vec<&'static str>,
    /// Stored type.
    pub dtype: &'static str,
    /// For `hook_resid_post`: the index in transformers' `hidden_states` that is sure to equal it, if any. The last
    /// one there is after the final norm in models that have one; for the last block's output none is given.
    pub hf_hidden_states_index: Option<usize>,
}

/// How the beginning-of-sequence token was decided.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bos)]
pub struct BosDto {
    /// What the request said; null left it to the tokenizer.
    pub requested: Option<bool>,
    /// Whether the tokens begin with the BOS token.
    pub present: bool,
    /// Whether it was added to what was posted.
    pub added: bool,
    /// The tokenizer's BOS token, where it has one.
    pub token_id: Option<u32>,
}

impl From<BosDecision> for BosDto {
    fn from(bos: BosDecision) -> Self {
        let BosDecision { requested, present, added, token_id } = bos;
        Self { requested, present, added, token_id }
    }
}

/// What produced a cache's numbers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Provenance)]
pub struct ProvenanceDto {
    /// blake3 of weights, config and tokenizer.
    pub model_fingerprint: String,
    /// `model_type` of the checkpoint.
    pub architecture: String,
    /// Type of the checkpoint's weights.
    pub weights_dtype: String,
    /// Type the forward pass computed in.
    pub compute_dtype: String,
    /// Device that computed it.
    pub device: String,
    /// Version of the server.
    pub residuum_version: String,
    /// Changes whenever the numbers of a forward pass may change.
    pub numerics_version: u32,
}

impl From<Provenance> for ProvenanceDto {
    fn from(p: Provenance) -> Self {
        let Provenance {
            model_fingerprint,
            architecture,
            weights_dtype,
            compute_dtype,
            device,
            residuum_version,
            numerics_version,
        } = p;
        Self {
            model_fingerprint,
            architecture,
            weights_dtype,
            compute_dtype,
            device,
            residuum_version,
            numerics_version,
        }
    }
}

/// Index in transformers' `hidden_states` that equals this hook, where one does.
pub fn hf_hidden_states_index(hook: Hook, n_layers: usize) -> Option<usize> {
    match (hook.site(), hook.layer()) {
        (Site::ResidPost, Some(l)) if l + 1 < n_layers => Some(l + 1),
        (Site::ResidPre, Some(l)) => Some(l),
        (Site::FinalNorm, None) => Some(n_layers),
        _ => None,
    }
}

impl CacheDto {
    /// The description of a cache.
    ///
    /// # Errors
    /// None for a cache this server made.
    pub fn new(cache: Cache) -> Result<Self, Problem> {
        let hooks = (0..cache.capture.hooks.len())
            .map(|i| {
                let hook = cache.capture.hooks[i];
                let (shape, axes) = cache.shape_of(i)?;
                Ok(CacheHook {
                    hook: hook.to_string(),
                    shape,
                    axes: axes.iter().map(|a| a.name()).collect(),
                    dtype: cache.capture.dtype.name(),
                    hf_hidden_states_index: hf_hidden_states_index(hook, cache.n_layers),
                })
            })
            .collect::<Result<_, Problem>>()?;
        Ok(Self {
            id: cache.id.to_string(),
            run: cache.run.to_string(),
            item_index: cache.item_index,
            model: cache.model,
            label: cache.label,
            tags: cache.tags,
            metadata: cache.metadata,
            text: cache.text,
            n_tokens: cache.token_ids.len(),
            completion: cache.completion.map(|c| CompletionDto::new(c, &cache.token_ids)),
            token_ids: cache.token_ids,
            tokens: cache.tokens,
            bos: cache.bos.into(),
            n_truncated: cache.n_truncated,
            n_layers: cache.n_layers,
            d_model: cache.d_model,
            positions: cache.capture.positions,
            hooks,
            provenance: cache.provenance.into(),
            reused: cache.reused,
            n_nan: cache.stats.n_nan,
            n_inf: cache.stats.n_inf,
            content_hash: cache.content_hash,
            n_bytes: cache.n_bytes,
            created_at: cache.created_at,
        })
    }
}

/// Filters of a listing of caches; all given ones must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CachesQuery {
    /// Name of the model.
    pub model: Option<String>,
    /// Made by this run.
    pub run: Option<String>,
    /// Bears this tag; may be repeated, then every one.
    #[serde(default)]
    pub tag: Vec<String>,
    /// Has this label.
    pub label: Option<String>,
    /// Captured this hook (full name).
    pub hook: Option<String>,
    /// Stored at or after this time (RFC 3339).
    pub created_from: Option<String>,
    /// Stored before this time (RFC 3339).
    pub created_to: Option<String>,
    /// The text contains this, ASCII case ignored.
    pub text: Option<String>,
    /// Items on a page, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl CachesQuery {
    /// The filter in the store's words.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn filter(&self) -> Result<CacheFilter, Problem> {
        let wrong = |name: &str, detail: String| Problem::at(Code::InvalidQuery, name, detail);
        let time = |name: &str, value: &Option<String>| {
            value
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(|_| wrong(name, "a time is written as RFC 3339, for example 2026-11-23T12:00:00Z".into()))
        };
        let run = self.run.as_deref().map(str::parse).transpose();
        let hook = self.hook.as_deref().map(str::parse).transpose();
        Ok(CacheFilter {
            model: self.model.clone(),
            run: run.map_err(|_| wrong("run", "this is not the id of a run".into()))?,
            tags: self.tag.clone(),
            label: self.label.clone(),
            hook: hook.map_err(|e: crate::domain::hook::UnknownHook| {
                wrong("hook", format!("{e}; give a full name such as blocks.5.hook_resid_post"))
            })?,
            created_from: time("created_from", &self.created_from)?,
            created_to: time("created_to", &self.created_to)?,
            text: self.text.clone(),
            ..CacheFilter::default()
        })
    }
}

/// Changes to a cache; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CachePatch, example = json!({"tags": ["demo", "paris"], "label": "capital", "metadata": {"split": "train", "old": null}}))]
pub struct CachePatchDto {
    /// Replaces all tags.
    pub tags: Option<Vec<String>>,
    /// Merged into the metadata; null removes a key.
    pub metadata: Option<Map<String, Value>>,
    /// Replaces the label; null removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub label: Option<Option<String>>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

impl CachePatchDto {
    /// The patch in the store's words.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for oversized annotations.
    pub fn into_patch(self) -> Result<CachePatch, Problem> {
        let empty = Map::new();
        let label = self.label.as_ref().and_then(Option::as_deref);
        super::run::check_annotations(
            self.tags.as_deref().unwrap_or_default(),
            label,
            self.metadata.as_ref().unwrap_or(&empty),
        )?;
        Ok(CachePatch { tags: self.tags, metadata: self.metadata, label: self.label })
    }
}

/// Layers of a cache that captured the site, ascending.
pub fn layers_with(cache: &Cache, site: Site) -> Vec<usize> {
    cache.capture.hooks.iter().filter(|h| h.site() == site).filter_map(Hook::layer).collect()
}
