//! Caches in requests and answers.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, annotations::check_annotations, capture::PositionsSchema, generate::CompletionDto, import::OriginDto,
    warning::WarningDto,
};
use crate::api::dto::selector::FilterDto;
use residuum_domain::{
    BosDecision, Cache, CacheFilter, CachePatch, Code, Hook, Positions, Problem, Provenance, Site, Warning,
};

/// A stored cache.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cache, example = json!({
    "id": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "run": "0198c5a0-5b1e-7c3a-9b54-0242ac120002", "item_index": 0,
    "model": "smollm2-135m", "label": null, "tags": ["demo"], "metadata": {}, "text": "The Eiffel Tower",
    "token_ids": [504, 414, 46682, 18669], "tokens": ["The", " E", "iffel", " Tower"], "n_tokens": 4,
    "bos": {"requested": null, "present": false, "added": false, "token_id": 1}, "n_truncated": 0, "completion": null, "imported": null, "n_layers": 30,
    "d_model": 576, "positions": "last",
    "hooks": [{"hook": "blocks.12.hook_resid_post", "shape": [576], "axes": ["d_model"], "dtype": "float32", "hf_hidden_states_index": 13}],
    "provenance": {
        "model_fingerprint": "d18fcfc1a1be850dc2dee03adf277d2a72baf4de46a48a9ede5add0976bdcc9e", "architecture": "llama",
        "weights_dtype": "Q4_1+Q8_0+float32", "compute_dtype": "float32", "device": "cpu", "residuum_version": "0.1.0", "numerics_version": 2, "interventions": [],
        "warnings": []
    },
    "reused": false, "n_nan": 0, "n_inf": 0,
    "content_hash": "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592", "n_bytes": 2304,
    "created_at": "2026-11-23T12:00:00.05Z", "expires_at": null, "pinned": false
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
    /// Token ids the model saw; empty for an import that does not say.
    pub token_ids: Vec<u32>,
    /// What each token stands for; empty strings for an import that does not say.
    pub tokens: Vec<String>,
    /// Tokens.
    pub n_tokens: usize,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDto,
    /// Tokens cut from the input to fit the context.
    pub n_truncated: u64,
    /// What was generated, where the input was continued; null elsewhere.
    pub completion: Option<CompletionDto>,
    /// The file it came from, where it was made elsewhere; null elsewhere.
    pub imported: Option<OriginDto>,
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
    /// When it was stored; no two caches have the same time.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When it expires, unless it is pinned; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// Whether it neither expires nor makes room for new caches.
    pub pinned: bool,
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

/// What produced a cache's numbers; null where an import does not say.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Provenance)]
pub struct ProvenanceDto {
    /// blake3 of weights, config and tokenizer.
    pub model_fingerprint: Option<String>,
    /// `model_type` of the checkpoint.
    pub architecture: Option<String>,
    /// Type of the checkpoint's weights.
    pub weights_dtype: Option<String>,
    /// Type the forward pass computed in.
    pub compute_dtype: Option<String>,
    /// Device that computed it.
    pub device: Option<String>,
    /// Version of the server.
    pub residuum_version: Option<String>,
    /// Changes whenever the numbers of a forward pass may change.
    pub numerics_version: Option<u32>,
    /// What was changed on the way, in order; names resolved, positions settled.
    pub interventions: Vec<Map<String, Value>>,
    /// What is unusual about the cache: tokens that were cut, numbers that are not finite, weights that an import does not name.
    pub warnings: Vec<WarningDto>,
}

impl ProvenanceDto {
    fn new(p: Provenance, interventions: Vec<Map<String, Value>>, warnings: &[Warning]) -> Self {
        let Provenance {
            model_fingerprint,
            architecture,
            weights_dtype,
            compute_dtype,
            device,
            residuum_version,
            numerics_version,
        } = p;
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            model_fingerprint: said(model_fingerprint),
            architecture: said(architecture),
            weights_dtype: said(weights_dtype),
            compute_dtype: said(compute_dtype),
            device: said(device),
            residuum_version: said(residuum_version),
            numerics_version: Some(numerics_version).filter(|n| *n != 0),
            interventions,
            warnings: WarningDto::list(warnings),
        }
    }
}

/// Index in transformers' `hidden_states` that equals this hook, where one does.
pub fn hf_hidden_states_index(hook: Hook, n_layers: usize) -> Option<usize> {
    match (hook.site(), hook.layer()) {
        (Site::ResidPost, Some(l)) if l + 1 < n_layers => Some(l + 1),
        (Site::ResidPre, Some(l)) => Some(l),
        // of an import without layers nothing is known
        (Site::FinalNorm, None) if n_layers > 0 => Some(n_layers),
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
        let (knows_token_ids, warnings) = (cache.knows_token_ids(), cache.warnings());
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
            imported: cache.origin.map(OriginDto::from),
            token_ids: if knows_token_ids { cache.token_ids } else { Vec::new() },
            tokens: cache.tokens,
            bos: cache.bos.into(),
            n_truncated: cache.n_truncated,
            n_layers: cache.n_layers,
            d_model: cache.d_model,
            positions: cache.capture.positions,
            hooks,
            provenance: ProvenanceDto::new(cache.provenance, cache.interventions, &warnings),
            reused: cache.reused,
            n_nan: cache.stats.n_nan,
            n_inf: cache.stats.n_inf,
            content_hash: cache.content_hash,
            n_bytes: cache.n_bytes,
            created_at: cache.created_at,
            expires_at: cache.expires_at,
            pinned: cache.pinned,
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
    /// Captured this hook (full name); may be repeated, then every one.
    #[serde(default)]
    pub hook: Vec<String>,
    /// Stored at or after this time (RFC 3339).
    pub created_from: Option<String>,
    /// Stored before this time (RFC 3339).
    pub created_to: Option<String>,
    /// The text, or what was generated behind it, has these words and `"quoted phrases"`, in whatever case and with or
    /// without accents. Every one must occur; a word is a whole word.
    pub text: Option<String>,
    /// Is pinned, or is not.
    pub pinned: Option<bool>,
    /// Has a time to expire at or after this one (RFC 3339).
    pub expires_from: Option<String>,
    /// Has a time to expire before this one (RFC 3339).
    pub expires_to: Option<String>,
    /// true: `total` in the answer.
    pub count: Option<bool>,
    /// Items on a page, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl CachesQuery {
    /// The filter in the store's words, with conditions on `metadata`.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn filter(self, metadata: Map<String, Value>) -> Result<CacheFilter, Problem> {
        let conditions = FilterDto {
            model: self.model,
            run: self.run,
            tags: self.tag,
            label: self.label,
            hooks: self.hook,
            created_from: self.created_from,
            created_to: self.created_to,
            text: self.text,
            metadata,
            pinned: self.pinned,
            expires_from: self.expires_from,
            expires_to: self.expires_to,
        };
        // the parameter of several values is in the singular
        conditions.read(|field, detail| {
            let name = if field.starts_with("hooks") { "hook" } else { field };
            Problem::at(Code::InvalidQuery, name, detail)
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
    /// Replaces the time it expires, which lies ahead; null: never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Option<Time>>,
    /// true: it neither expires nor makes room for new caches.
    pub pinned: Option<bool>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

impl CachePatchDto {
    /// The patch in the store's words.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for oversized annotations, and for a time that is over at `now`.
    pub fn into_patch(self, now: jiff::Timestamp) -> Result<CachePatch, Problem> {
        let empty = Map::new();
        let label = self.label.as_ref().and_then(Option::as_deref);
        check_annotations(self.tags.as_deref().unwrap_or_default(), label, self.metadata.as_ref().unwrap_or(&empty))?;
        if self.expires_at.flatten().is_some_and(|Time(time)| time <= now) {
            let detail = "the time to expire lies ahead; to be rid of a cache now, delete it";
            return Err(Problem::at(Code::InvalidValue, "/expires_at", detail));
        }
        let Self { tags, metadata, label, expires_at, pinned } = self;
        let expires_at = expires_at.map(|time| time.map(|Time(time)| time));
        Ok(CachePatch { tags, metadata, label, expires_at, pinned })
    }
}
