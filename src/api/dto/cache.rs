//! Caches in requests and responses.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Time, annotations::check_annotations, capture::PositionsSchema, generate::CompletionDto, import::OriginDto,
    next_tokens::NextTokensDto, warning::WarningDto,
};
use crate::api::tensor::DtypeParam;
use residuum_domain::{BosDecision, Cache, CachePatch, Code, Hook, Positions, Problem, Provenance, Site, Warning};

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
    /// Id of the cache.
    pub id: String,
    /// The run that made it.
    pub run: String,
    /// Index of its input in the run.
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
    /// Token ids of the input; empty for an import without them.
    pub token_ids: Vec<u32>,
    /// The text of each token; empty strings for an import without them.
    pub tokens: Vec<String>,
    /// Number of tokens.
    pub n_tokens: usize,
    /// Whether there is a beginning-of-sequence token, and why.
    pub bos: BosDto,
    /// Number of tokens cut from the input to fit the context.
    pub n_truncated: u64,
    /// What was generated, if the run continued the input; else null.
    pub completion: Option<CompletionDto>,
    /// The file it came from, if it was imported; else null.
    pub imported: Option<OriginDto>,
    /// Number of blocks of the model.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Positions that were captured.
    #[schema(value_type = PositionsSchema)]
    pub positions: Positions,
    /// The hooks that were captured.
    pub hooks: Vec<CacheHook>,
    /// What computed the numbers.
    pub provenance: ProvenanceDto,
    /// Whether the numbers came from the store instead of a forward pass of this run.
    pub reused: bool,
    /// Number of stored values that are NaN.
    pub n_nan: u64,
    /// Number of stored values that are infinite.
    pub n_inf: u64,
    /// blake3 of the stored tensors.
    pub content_hash: String,
    /// Bytes its tensors take in the store.
    pub n_bytes: u64,
    /// When it was stored; no two caches have the same time.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: jiff::Timestamp,
    /// When it expires, unless it is pinned; null if never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<jiff::Timestamp>,
    /// Whether it is protected from expiry and eviction.
    pub pinned: bool,
    /// In the caches of a run, with `include=top_tokens`: the most probable next tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_tokens: Option<NextTokensDto>,
}

/// One captured hook of a cache.
#[derive(Debug, Serialize, ToSchema)]
pub struct CacheHook {
    /// Full name.
    pub hook: String,
    /// Shape of its tensor.
    pub shape: Vec<usize>,
    /// Names of the axes.
    pub axes: Vec<&'static str>,
    /// Stored type.
    #[schema(value_type = DtypeParam)]
    pub dtype: &'static str,
    /// For `hook_resid_post`: the index in transformers' `hidden_states` that equals it. Null for the last block: in
    /// models with a final norm, the last entry of `hidden_states` is computed after that norm.
    pub hf_hidden_states_index: Option<usize>,
}

/// Whether there is a beginning-of-sequence token, and why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Bos)]
pub struct BosDto {
    /// `prepend_bos` of the request; null leaves the decision to the tokenizer.
    pub requested: Option<bool>,
    /// Whether the tokens begin with the BOS token.
    pub present: bool,
    /// Whether it was added to the posted input.
    pub added: bool,
    /// The tokenizer's BOS token, if it has one.
    pub token_id: Option<u32>,
}

impl From<BosDecision> for BosDto {
    fn from(bos: BosDecision) -> Self {
        let BosDecision { requested, present, added, token_id } = bos;
        Self { requested, present, added, token_id }
    }
}

/// What computed the numbers of a cache. Fields that an import does not give are null.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Provenance)]
pub struct ProvenanceDto {
    /// blake3 of weights, config and tokenizer.
    pub model_fingerprint: Option<String>,
    /// `model_type` of the checkpoint.
    pub architecture: Option<String>,
    /// Type of the checkpoint's weights.
    pub weights_dtype: Option<String>,
    /// Type in which the forward pass computed.
    pub compute_dtype: Option<String>,
    /// Device of the forward pass.
    pub device: Option<String>,
    /// Version of the server.
    pub residuum_version: Option<String>,
    /// Rises whenever the same forward pass may give other numbers.
    pub numerics_version: Option<u32>,
    /// Changes made during the forward pass, in order, with full hook names and numeric positions.
    pub interventions: Vec<Map<String, Value>>,
    /// What is unusual about the cache: truncated tokens, values that are not finite, an import without a fingerprint.
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

/// The index in transformers' `hidden_states` that equals this hook, if there is one.
pub fn hf_hidden_states_index(hook: Hook, n_layers: usize) -> Option<usize> {
    match (hook.site(), hook.layer()) {
        (Site::ResidPost, Some(l)) if l + 1 < n_layers => Some(l + 1),
        (Site::ResidPre, Some(l)) => Some(l),
        // for an import without layers the index is not known
        (Site::FinalNorm, None) if n_layers > 0 => Some(n_layers),
        _ => None,
    }
}

impl CacheDto {
    /// The description of a cache.
    ///
    /// # Errors
    /// Never for a cache that this server made.
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
        Ok(Self::with_hooks(cache, hooks))
    }

    /// The description of a cache whose hooks are described already.
    pub(super) fn with_hooks(cache: Cache, hooks: Vec<CacheHook>) -> Self {
        let (knows_token_ids, warnings) = (cache.knows_token_ids(), cache.warnings());
        Self {
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
            top_tokens: None,
        }
    }
}

/// Changes to a cache. Fields that are left out are not changed.
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
    /// Replaces the time at which it expires, which must be in the future; null: never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Option<Time>>,
    /// true protects it from expiry and eviction.
    pub pinned: Option<bool>,
}

/// Tells null (`Some(None)`) from absent (`None`).
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}

impl CachePatchDto {
    /// Converts the body to a patch of the store.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for oversized annotations, and for a time before `now`.
    pub fn into_patch(self, now: jiff::Timestamp) -> Result<CachePatch, Problem> {
        let empty = Map::new();
        let label = self.label.as_ref().and_then(Option::as_deref);
        check_annotations(self.tags.as_deref().unwrap_or_default(), label, self.metadata.as_ref().unwrap_or(&empty))?;
        if self.expires_at.flatten().is_some_and(|Time(time)| time <= now) {
            let detail = "expires_at must be in the future; to remove a cache now, delete it";
            return Err(Problem::at(Code::InvalidValue, "/expires_at", detail));
        }
        let Self { tags, metadata, label, expires_at, pinned } = self;
        let expires_at = expires_at.map(|time| time.map(|Time(time)| time));
        Ok(CachePatch { tags, metadata, label, expires_at, pinned })
    }
}
