//! Caches: the activations of one input, with what produced them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    capture::{Capture, stored_shape},
    generation::TextCompletion,
    hook::{Axis, Hook, Site},
    ids::{CacheId, RunId, TenantId},
    import::{ImportOrigin, UNKNOWN_TOKEN},
    positions::Rows,
    problem::{Code, Problem},
    text::TextQuery,
    warning::{Warning, WarningCode},
};

/// How the beginning-of-sequence token was decided for one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BosDecision {
    /// What the request said; `None` left it to the tokenizer.
    pub requested: Option<bool>,
    /// Whether the tokens begin with the tokenizer's BOS token, whoever put it there.
    pub present: bool,
    /// Whether it was added to what was posted.
    pub added: bool,
    /// The tokenizer's BOS token, where it has one.
    pub token_id: Option<u32>,
}

/// NaN and infinity counts of one cache, masked attention scores not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TensorStats {
    /// Elements that are not a number.
    pub n_nan: u64,
    /// Elements that are infinite as stored.
    pub n_inf: u64,
}

/// The receipt of a cache: what produced its numbers. Immutable. Of an imported cache it is what the file says; a text is
/// empty and the number 0 where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// blake3 of weights, config and tokenizer.
    pub model_fingerprint: String,
    /// `model_type` of the checkpoint.
    pub architecture: String,
    /// Type the checkpoint holds its weights in.
    pub weights_dtype: String,
    /// Type the forward pass computed in.
    pub compute_dtype: String,
    /// Device that computed it.
    pub device: String,
    /// Version of the server that computed it.
    pub residuum_version: String,
    /// Changes whenever the numbers of a forward pass may change.
    pub numerics_version: u32,
}

/// A stored cache. Tensors, tokens and provenance never change; tags, metadata and label do.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// Its id.
    pub id: CacheId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The run that made it.
    pub run: RunId,
    /// Its place among the run's inputs.
    pub item_index: u64,
    /// Name of the model.
    pub model: String,
    /// Number of blocks of the model; of an import that does not say, those it tells of.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// The text, where one was posted or rendered.
    pub text: Option<String>,
    /// Token ids the model saw.
    pub token_ids: Vec<u32>,
    /// What each token stands for.
    pub tokens: Vec<String>,
    /// What was captured.
    pub capture: Capture,
    /// Shape of one position's row of each hook, in the order of `capture.hooks`.
    pub row_shapes: Vec<Vec<usize>>,
    /// How the beginning-of-sequence token was decided.
    pub bos: BosDecision,
    /// Tokens cut from the input to fit the context.
    pub n_truncated: u64,
    /// What was generated, where the input was continued.
    pub completion: Option<TextCompletion>,
    /// Where it came from, when it was not computed here.
    pub origin: Option<ImportOrigin>,
    /// What was changed on the way, for people: names resolved, positions settled. Empty: nothing.
    pub interventions: Vec<Map<String, Value>>,
    /// NaN and infinity counts.
    pub stats: TensorStats,
    /// What produced it.
    pub provenance: Provenance,
    /// Whether the numbers came from the store instead of a forward pass of this run.
    pub reused: bool,
    /// blake3 of the stored tensors, in hex.
    pub content_hash: String,
    /// Bytes its tensors take in the store.
    pub n_bytes: u64,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub metadata: Map<String, Value>,
    /// Label.
    pub label: Option<String>,
    /// When it was stored. No two caches of a store have the same time.
    pub created_at: Timestamp,
    /// When it goes, unless it is pinned.
    pub expires_at: Option<Timestamp>,
    /// Whether it neither expires nor makes room for others.
    pub pinned: bool,
}

impl Cache {
    /// Layers that captured the site, ascending.
    #[must_use]
    pub fn layers_with(&self, site: Site) -> Vec<usize> {
        self.capture.hooks.iter().filter(|h| h.site() == site).filter_map(Hook::layer).collect()
    }

    /// What is unusual about it.
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

    /// Whether the tokens are known by their ids; those of an import may not be.
    #[must_use]
    pub fn knows_token_ids(&self) -> bool {
        self.token_ids.first() != Some(&UNKNOWN_TOKEN)
    }

    /// Positions its rows were taken at.
    ///
    /// # Errors
    /// None for a cache this server made; the signature is that of [`super::Positions::resolve`].
    pub fn rows(&self) -> Result<Rows, Problem> {
        self.capture.positions.resolve(self.token_ids.len())
    }

    /// Index of `hook` among the captured hooks.
    ///
    /// # Errors
    /// [`Code::HookNotInCache`] listing what the cache has.
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

/// Which caches a listing shows; every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheFilter {
    /// Name of the model.
    pub model: Option<String>,
    /// Made by this run.
    pub run: Option<RunId>,
    /// Bears every one of these tags.
    pub tags: Vec<String>,
    /// Has this label.
    pub label: Option<String>,
    /// Captured every one of these hooks.
    pub hooks: Vec<Hook>,
    /// Stored at or after.
    pub created_from: Option<Timestamp>,
    /// Stored before.
    pub created_to: Option<Timestamp>,
    /// The text, or what was generated behind it, has these words and phrases.
    pub text: Option<TextQuery>,
    /// Has these keys with these values in its metadata; dots lead into objects.
    pub metadata: Map<String, Value>,
    /// Is pinned, or is not.
    pub pinned: Option<bool>,
    /// Has a time to go at or after this.
    pub expires_from: Option<Timestamp>,
    /// Has a time to go before this.
    pub expires_to: Option<Timestamp>,
    /// Made by the model of this fingerprint.
    pub fingerprint: Option<String>,
    /// Its tokens begin with the tokenizer's BOS token, or do not.
    pub bos: Option<bool>,
}

/// How many caches there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Caches that were counted.
    pub total: u64,
    /// Whether these are all.
    pub is_exact: bool,
}

/// Changes to the editable parts of a cache. `None` leaves a part alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CachePatch {
    /// Replaces all tags.
    pub tags: Option<Vec<String>>,
    /// Merged into the metadata as RFC 7396 has it: null removes a key.
    pub metadata: Option<Map<String, Value>>,
    /// Replaces the label; `Some(None)` removes it.
    pub label: Option<Option<String>>,
    /// Replaces the time it goes; `Some(None)` removes it.
    pub expires_at: Option<Option<Timestamp>>,
    /// Pins it, or lets it go again.
    pub pinned: Option<bool>,
}
