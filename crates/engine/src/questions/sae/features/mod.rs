//! Encodes stored positions of one cache with a sparse autoencoder, without a forward pass.

mod encoded_positions;
mod position_features;

pub use position_features::{ActiveFeature, FeatureSummary, PositionFeatures, PositionFit};

use std::sync::Arc;

use super::{left_out::LeftOutPositions, matching};
use crate::questions::{
    Questions, direction::check_feature, readout_rows::select, row_reader::read_rows, served::model_of,
};
use encoded_positions::EncodedPositions;
use residuum_domain::{CacheId, Code, Hook, PositionsRequest, Problem, Selection, TenantId, Warning};
use residuum_model::{Model, sae::Sae};
use residuum_store::{Store, StoredCache};

/// Most features to describe per position, strongest and chosen ones.
const MAX_FEATURES: usize = 1000;
/// Most numbers of one description.
const MAX_CELLS: usize = 1_000_000;
/// Most bytes of a tensor, which is held in memory.
const MAX_TENSOR_BYTES: usize = 256 << 20;
/// Most multiply-adds of one question; they take some ten seconds.
const MAX_WORK: usize = 2_000_000_000_000;
/// Most activations held at a time.
const BLOCK_ACTIVATIONS: usize = 1 << 22;

/// What to encode.
#[derive(Debug, Clone)]
pub struct FeaturesQuestion {
    /// The cache.
    pub cache: CacheId,
    /// The autoencoder.
    pub sae: String,
    /// Positions. If left out, all stored ones, except tokens that the autoencoder was not trained on.
    pub positions: Option<PositionsRequest>,
    /// Features whose activations to return at each position.
    pub features: Option<Vec<usize>>,
    /// Whether to encode although the cache begins with a BOS token and the autoencoder was trained without one, or
    /// vice versa. The answer then has a warning.
    pub allow_bos_mismatch: bool,
}

/// Rows of a cache that an autoencoder can encode: its hook and the positions are stored, and its model is served.
pub struct FeatureRows {
    store: Store,
    cache: Arc<StoredCache>,
    model: Arc<Model>,
    sae: Arc<Sae>,
    encoded: EncodedPositions,
    features: Option<Vec<usize>>,
    warnings: Vec<Warning>,
}

/// The active features of each position, and how well they reconstruct the stored row.
#[derive(Debug, Clone)]
pub struct FeaturesAnswer {
    /// The cache.
    pub cache: CacheId,
    /// The autoencoder.
    pub sae: String,
    /// The name under which its model is served.
    pub model: String,
    /// The hook that was encoded.
    pub hook: Hook,
    /// Features of the autoencoder.
    pub d_sae: usize,
    /// The chosen features, in the order of each position's `chosen`.
    pub features: Vec<usize>,
    /// The positions, in the order of the question.
    pub positions: Vec<PositionFeatures>,
    /// Summary of all positions.
    pub all: FeatureSummary,
    /// Summary of the positions whose tokens are not known to be special.
    pub ordinary: FeatureSummary,
    /// Stored positions left out because of their tokens.
    pub left_out: LeftOutPositions,
    /// Why the features may not mean what they should.
    pub warnings: Vec<Warning>,
}

/// Activations, float32 `[pos, feature]`: of the chosen features, or of all if none are chosen.
#[derive(Debug, Clone)]
pub struct FeaturesTensor {
    /// The autoencoder.
    pub sae: String,
    /// The positions, in the order of the first axis.
    pub positions: Vec<u32>,
    /// Whether the question gives the positions as numbers, so that the client already knows them.
    pub numbered: bool,
    /// Extent of each axis.
    pub shape: [usize; 2],
    /// The activations in blocks of positions, each `[positions of the block, feature]`. NaN for rows without features,
    /// because they are not finite, or because they are zero and would be divided by their norm.
    pub blocks: Vec<Vec<f32>>,
}

impl Questions {
    /// The rows to encode, after checking them against the cache, the autoencoder and its model.
    ///
    /// # Errors
    /// [`Code::CacheNotFound`]; [`Code::UnknownSae`] for an autoencoder or a feature that does not exist;
    /// [`Code::Unavailable`] while either loads; [`Code::Conflict`] for a cache that other weights made;
    /// [`Code::HookNotStored`]; [`Code::BosMismatch`]; [`Code::InvalidValue`], [`Code::TextNotFound`] and
    /// [`Code::PositionOutOfRange`] for positions; [`Code::ResultTooLarge`]; those of the store.
    pub async fn features(&self, tenant: TenantId, question: FeaturesQuestion) -> Result<FeatureRows, Problem> {
        let cache = self.stored(tenant, question.cache).await?;
        let at_sae = |p: Problem| match p.code {
            Code::UnknownSae => Problem::at(p.code, "/sae", p.detail),
            _ => p,
        };
        let sae = self.saes().get(&question.sae, Code::UnknownSae).map_err(at_sae)?;
        if let Some(features) = &question.features {
            check_features(features, sae.d_sae())?;
        }
        let warnings = matching::check(&sae, &cache.cache, question.allow_bos_mismatch)?;
        let model = model_of(self.models(), &cache.cache)?;
        let encoded = EncodedPositions::of(question.positions.as_ref(), &sae, &cache.cache, model.tokenizer())?;
        let n_positions = encoded.positions.len();
        let work = n_positions.saturating_mul(sae.d_in()).saturating_mul(sae.d_sae());
        if work > MAX_WORK {
            let detail = format!("{n_positions} positions are too many to encode at once; request fewer");
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        let (store, features) = (self.store().clone(), question.features);
        let rows = FeatureRows { store, cache, model, sae, encoded, features, warnings };
        // Checks now whether the rows are stored.
        rows.select(rows.positions())?;
        Ok(rows)
    }

    /// Encodes and decodes every position, and returns the `top_k` strongest features of each.
    ///
    /// # Errors
    /// [`Code::InvalidValue`], [`Code::ResultTooLarge`], and those of the store.
    pub async fn features_described(&self, rows: FeatureRows, top_k: usize) -> Result<FeaturesAnswer, Problem> {
        if top_k > MAX_FEATURES {
            let detail = format!("at most {MAX_FEATURES} features are listed; request format=npy for all");
            return Err(Problem::at(Code::InvalidValue, "/top_k", detail));
        }
        let cells = rows.positions().len().saturating_mul(top_k + rows.chosen().len() + 1);
        if cells > MAX_CELLS {
            let detail = format!(
                "the answer would hold {cells} entries; {MAX_CELLS} are allowed. Ask for fewer positions or features, or for format=npy"
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        self.analyse(move || position_features::describe(&rows, top_k)).await
    }

    /// The activations as a tensor.
    ///
    /// # Errors
    /// [`Code::ResultTooLarge`], and those of the store.
    pub async fn features_tensor(&self, rows: FeatureRows) -> Result<FeaturesTensor, Problem> {
        let n_features = rows.features.as_ref().map_or(rows.sae.d_sae(), Vec::len);
        let shape = [rows.positions().len(), n_features];
        let n_bytes = shape.iter().product::<usize>().saturating_mul(size_of::<f32>());
        if n_bytes > MAX_TENSOR_BYTES {
            let detail = format!(
                "the tensor would have {n_bytes} bytes; {MAX_TENSOR_BYTES} are allowed. Ask for fewer positions, or choose features"
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        self.analyse(move || {
            let blocks = rows.activations()?;
            let FeatureRows { sae, encoded: EncodedPositions { positions, numbered, .. }, .. } = rows;
            Ok(FeaturesTensor { sae: sae.id().to_owned(), positions, numbered, shape, blocks })
        })
        .await
    }
}

fn check_features(features: &[usize], d_sae: usize) -> Result<(), Problem> {
    if !(1..=MAX_FEATURES).contains(&features.len()) {
        let detail = format!("name 1 to {MAX_FEATURES} features");
        return Err(Problem::at(Code::InvalidValue, "/features", detail));
    }
    let check = |(i, feature): (usize, &usize)| check_feature(*feature, d_sae, &format!("/features/{i}"));
    features.iter().enumerate().try_for_each(check)
}

impl FeatureRows {
    fn positions(&self) -> &[u32] {
        &self.encoded.positions
    }

    fn chosen(&self) -> &[usize] {
        self.features.as_deref().unwrap_or_default()
    }

    fn select(&self, positions: &[u32]) -> Result<Selection, Problem> {
        select(&self.cache.cache, self.sae.hook(), positions, "/positions")
    }

    /// Passes the stored rows `[n, row_width]` to `take`, in blocks of positions.
    fn for_each_block(&self, mut take: impl FnMut(&[u32], &[f32])) -> Result<(), Problem> {
        for positions in self.positions().chunks((BLOCK_ACTIVATIONS / self.sae.d_sae()).clamp(1, 256)) {
            take(positions, &read_rows(&self.store, &self.cache, &self.select(positions)?)?);
        }
        Ok(())
    }

    /// The activations of each block of positions, `[positions of the block, feature]`.
    fn activations(&self) -> Result<Vec<Vec<f32>>, Problem> {
        let chosen = self.features.as_deref().map(|features| self.sae.choose(features));
        let mut blocks = Vec::new();
        self.for_each_block(|_, rows| {
            blocks.push(match &chosen {
                Some(chosen) => chosen.encode_rows(rows),
                None => self.sae.encode(&self.sae.targets(rows)),
            });
        })?;
        Ok(blocks)
    }
}
