//! Caches: the activations of one input, with their provenance.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    capture::{Capture, stored_shape},
    generation::TextCompletion,
    hook::{Axis, Hook, Site},
    ids::{CacheId, RunId, TenantId},
    import::{ImportOrigin, UNKNOWN_TOKEN},
    order::RunOrder,
    positions::{Part, Positions, Rows},
    problem::{Code, Problem},
    text::TextQuery,
    warning::{Warning, WarningCode},
};

/// How the beginning-of-sequence token was decided for one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BosDecision {
    /// The request's setting; `None`: as the tokenizer does.
    pub requested: Option<bool>,
    /// Whether the tokens begin with the tokenizer's BOS token, whether it was posted or added.
    pub present: bool,
    /// Whether it was added to the input.
    pub added: bool,
    /// The tokenizer's BOS token, if it has one.
    pub token_id: Option<u32>,
}

/// Counts of NaN and infinities in one cache. Masked attention scores do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TensorStats {
    /// Elements that are not a number.
    pub n_nan: u64,
    /// Elements that are infinite as stored.
    pub n_inf: u64,
}

/// The provenance of a cache: what produced its numbers. It never changes. For an imported cache it is what the file says; where
/// the file says nothing, texts are empty and the number is 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// blake3 of weights, config and tokenizer.
    pub model_fingerprint: String,
    /// `model_type` of the checkpoint.
    pub architecture: String,
    /// Type of the weights in the checkpoint.
    pub weights_dtype: String,
    /// Type in which the forward pass computed.
    pub compute_dtype: String,
    /// Device that the forward pass ran on.
    pub device: String,
    /// Version of the server.
    pub residuum_version: String,
    /// Version of the numbers: it is raised whenever the numbers of a forward pass may change.
    pub numerics_version: u32,
}

/// A stored cache. Tensors, tokens and provenance never change; tags, metadata, label, expiry and pin may.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Its id.
    pub id: CacheId,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// The run that created it.
    pub run: RunId,
    /// Index of its input in the run.
    pub item_index: u64,
    /// Name of the model.
    pub model: String,
    /// Number of blocks of the model. For an import that does not say: as many as its hooks show.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// The text, if one was posted or rendered.
    pub text: Option<String>,
    /// The token ids of the forward pass.
    pub token_ids: Vec<u32>,
    /// The text of each token.
    pub tokens: Vec<String>,
    /// What was captured.
    pub capture: Capture,
    /// Shape of one position's row of each hook, in the order of `capture.hooks`.
    pub row_shapes: Vec<Vec<usize>>,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDecision,
    /// Number of tokens that were truncated to fit the context.
    pub n_truncated: u64,
    /// What was generated, if the input was continued.
    pub completion: Option<TextCompletion>,
    /// The source, if it was imported.
    pub origin: Option<ImportOrigin>,
    /// The interventions, in readable form: with names resolved and positions as numbers. Empty if there were none.
    pub interventions: Vec<Map<String, Value>>,
    /// NaN and infinity counts.
    pub stats: TensorStats,
    /// Its provenance.
    pub provenance: Provenance,
    /// Whether its numbers were reused from the store, without a forward pass.
    pub reused: bool,
    /// blake3 of the stored tensors, in hex.
    pub content_hash: String,
    /// Size of its tensors in the store, in bytes.
    pub n_bytes: u64,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// Label.
    pub label: Option<String>,
    /// When it was stored. No two caches of a store have the same time.
    pub created_at: Timestamp,
    /// When it expires, unless it is pinned.
    pub expires_at: Option<Timestamp>,
    /// Whether it is protected from expiry and eviction.
    pub pinned: bool,
}

impl Cache {
    /// Its place among other caches: by run, the oldest first, and within a run in the order of its inputs.
    #[must_use]
    pub fn run_order(&self) -> RunOrder {
        (self.run, self.item_index, self.id)
    }

    /// Layers that captured the site, ascending.
    #[must_use]
    pub fn layers_with(&self, site: Site) -> Vec<usize> {
        self.capture.hooks.iter().filter(|h| h.site() == site).filter_map(Hook::layer).collect()
    }

    /// Its warnings.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let TensorStats { n_nan, n_inf } = self.stats;
        let cut = (self.n_truncated > 0).then(|| {
            (WarningCode::InputTruncated, format!("{} tokens of the input were cut to fit", self.n_truncated))
        });
        let not_finite = (n_nan + n_inf > 0)
            .then(|| (WarningCode::NotFinite, format!("{n_nan} of its numbers are NaN and {n_inf} infinite")));
        let unnamed = self.provenance.model_fingerprint.is_empty().then(|| {
            let detail = "the imported file does not say which weights made it";
            (WarningCode::WeightsUnknown, detail.to_owned())
        });
        let all = [cut, not_finite, unnamed].into_iter().flatten();
        all.map(|(code, detail)| Warning { code, detail }).collect()
    }

    /// Whether the token ids are known; those of an import may not be.
    #[must_use]
    pub fn knows_token_ids(&self) -> bool {
        self.token_ids.first() != Some(&UNKNOWN_TOKEN)
    }

    /// The positions of its rows.
    ///
    /// # Errors
    /// As [`super::Positions::resolve`]; never for a stored cache.
    pub fn rows(&self) -> Result<Rows, Problem> {
        self.capture.positions.resolve(self.token_ids.len())
    }

    /// The positions of a part of the text.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] for what is generated, if nothing was.
    pub fn part(&self, part: Part) -> Result<Positions, Problem> {
        let first = self.completion.as_ref().map(|c| i64::try_from(c.first).unwrap_or(i64::MAX));
        match (part, first) {
            (Part::Prompt, first) => Ok(Positions::Range { start: Some(0), end: first }),
            (Part::Generated, Some(first)) => Ok(Positions::Range { start: Some(first), end: None }),
            (Part::Generated, None) => {
                let detail = "nothing was generated after this input, so it has no generated positions";
                Err(Problem::at(Code::PositionOutOfRange, "positions", detail))
            }
        }
    }

    /// Index of `hook` among the captured hooks.
    ///
    /// # Errors
    /// [`Code::HookNotInCache`] listing the hooks of the cache.
    pub fn hook_index(&self, hook: Hook) -> Result<usize, Problem> {
        self.capture.hooks.iter().position(|h| *h == hook).ok_or_else(|| {
            let have: Vec<String> = self.capture.hooks.iter().map(ToString::to_string).collect();
            Problem::new(Code::HookNotInCache, format!("the cache has no `{hook}`; it has {}", have.join(", ")))
        })
    }

    /// Shape and axes of the stored tensor of the hook at `index`.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn shape_of(&self, index: usize) -> Result<(Vec<usize>, Vec<Axis>), Problem> {
        let keep = self.capture.positions.keeps_axis();
        let site = self.capture.hooks[index].site();
        Ok(stored_shape(site, &self.row_shapes[index], &self.rows()?, keep, self.token_ids.len()))
    }
}

/// A filter of a listing; a cache must meet every condition that is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheFilter {
    /// Name of the model.
    pub model: Option<String>,
    /// Created by this run.
    pub run: Option<RunId>,
    /// Has all of these tags.
    pub tags: Vec<String>,
    /// Has this label.
    pub label: Option<String>,
    /// Has all of these hooks.
    pub hooks: Vec<Hook>,
    /// Stored at or after.
    pub created_from: Option<Timestamp>,
    /// Stored before.
    pub created_to: Option<Timestamp>,
    /// Its text, or the generated text, contains these words and phrases.
    pub text: Option<TextQuery>,
    /// Has these keys with these values in its metadata; dots separate the keys of nested objects.
    pub metadata: Map<String, Value>,
    /// Whether it is pinned.
    pub pinned: Option<bool>,
    /// Expires at or after this time.
    pub expires_from: Option<Timestamp>,
    /// Expires before this time.
    pub expires_to: Option<Timestamp>,
    /// Computed by the model with this fingerprint.
    pub fingerprint: Option<String>,
    /// Whether its tokens begin with the tokenizer's BOS token.
    pub bos: Option<bool>,
}

impl CacheFilter {
    /// Whether it has no condition, so that it selects every cache.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A count of caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Number of caches that were counted.
    pub total: u64,
    /// Whether all caches were counted.
    pub is_exact: bool,
}

/// Changes to the editable parts of a cache. `None` leaves a part unchanged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CachePatch {
    /// Replaces all tags.
    pub tags: Option<Vec<String>>,
    /// Merged into the metadata as in RFC 7396: null removes a key.
    pub metadata: Option<Map<String, Value>>,
    /// Replaces the label; `Some(None)` removes it.
    pub label: Option<Option<String>>,
    /// Replaces the time of expiry; `Some(None)` removes it.
    pub expires_at: Option<Option<Timestamp>>,
    /// Pins or unpins it.
    pub pinned: Option<bool>,
}
