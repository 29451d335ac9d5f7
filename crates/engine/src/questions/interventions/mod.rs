//! Reads the interventions of a run: checks them against the model and fetches their numbers from the store.

mod intervention_reader;
mod row_part;
mod stored_values;

use std::{ops::Range, sync::Arc};

use serde_json::{Map, Value};

use super::{Questions, chosen::Selector, deleted_caches::again, direction::Direction};
use crate::{Asked, Interventions};
use intervention_reader::Reader;
use residuum_domain::{CacheId, Code, Edit, Edits, Layers, ModelInfo, Positions, Problem, TenantId, TokensRequest};

/// Most interventions of one run.
const MAX_INTERVENTIONS: usize = 256;
/// Most numbers of all interventions of a run: 128 MiB, which are stored with the run.
const MAX_NUMBERS: usize = 32 << 20;

/// One change to a forward pass, as a run requests it.
#[derive(Debug, Clone)]
pub struct Intervention {
    /// The operation.
    pub change: Change,
    /// A full or short hook name; `resid_post` if left out. A knockout always uses `attn.hook_attn_scores`.
    pub hook: Option<String>,
    /// Layers, for a short name; all if left out.
    pub layers: Option<Layers>,
    /// Which tokens; if left out all, including generated ones.
    pub positions: Option<TokensRequest>,
    /// If given, only these heads of a hook with a head axis; negatives count from the last. Attention maps have query
    /// heads.
    pub heads: Option<Vec<i64>>,
    /// If given, only these neurons of a hook on the neurons of an MLP.
    pub neurons: Option<Vec<usize>>,
    /// For an attention map: the keys; all if left out.
    pub from: Option<TokensRequest>,
    /// For an attention map: the queries; all if left out.
    pub to: Option<TokensRequest>,
    /// Fields for the provenance of caches, in addition to the operation, its hooks and its numbers.
    pub described: Map<String, Value>,
}

/// The operation of an intervention.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a vector.
    Add {
        /// The vector.
        vector: VectorSource,
        /// The factor of the vector.
        strength: f32,
    },
    /// Removes the component along a direction, which is first scaled to length one.
    ProjectOut(VectorSource),
    /// Replaces the values with a vector.
    Set(VectorSource),
    /// Replaces the values with a number.
    Fill(f32),
    /// Multiplies the values by a number.
    Scale(f32),
    /// Replaces the values with 0.
    Zero,
    /// Replaces the values with the mean over all rows that the caches stored at the hook.
    MeanAblate(Selector),
    /// Replaces the values with those of a stored cache.
    Patch(PatchSource),
    /// Masks attention edges before the softmax.
    Knockout,
}

/// Where the vectors of an intervention come from.
#[derive(Debug, Clone)]
pub enum VectorSource {
    /// The same numbers at every layer: as many as a row of the hook, one head or the changed part has.
    Numbers {
        /// The numbers.
        values: Vec<f32>,
        /// Where they stand in the intervention, as a JSON pointer.
        pointer: &'static str,
    },
    /// A direction.
    Direction(Direction),
}

/// Values of a stored cache.
#[derive(Debug, Clone)]
pub struct PatchSource {
    /// The cache.
    pub cache: CacheId,
    /// The hook of the source; by default the patched hook.
    pub hook: Option<String>,
    /// One layer of the source for all patched layers; by default each is patched from the same layer.
    pub layer: Option<usize>,
    /// The source positions: one for each patched token, in the same order, or one for all of them. By default the same
    /// positions as those that are patched.
    pub positions: Option<Positions>,
}

impl Change {
    /// The name of the operation. Setting to a number and setting to a vector have the same name.
    fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::ProjectOut(_) => "project_out",
            Self::Set(_) | Self::Fill(_) => "set",
            Self::Scale(_) => "scale",
            Self::Zero => "zero",
            Self::MeanAblate(_) => "mean_ablate",
            Self::Patch(_) => "patch",
            Self::Knockout => "knockout",
        }
    }

    /// Whether it needs a vector in the space of the hook.
    fn takes_vector(&self) -> bool {
        matches!(self, Self::Add { .. } | Self::ProjectOut(_) | Self::Set(_) | Self::MeanAblate(_))
    }
}

/// The interventions that have been read so far.
struct Made {
    edits: Vec<Edit>,
    numbers: Vec<f32>,
    asked: Vec<Asked>,
}

impl Made {
    fn keep(&mut self, numbers: &[f32]) -> Range<usize> {
        let start = self.numbers.len();
        self.numbers.extend_from_slice(numbers);
        start..self.numbers.len()
    }
}

impl Questions {
    /// Reads interventions for a served model, and fetches their directions, means and patches from the store. Problems
    /// point into `/interventions`.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::ShapeMismatch`],
    /// [`Code::InvalidBody`], [`Code::InvalidValue`], [`Code::UnknownDirection`], [`Code::UnknownCache`],
    /// [`Code::HookNotStored`], [`Code::PositionOutOfRange`], [`Code::ResultTooLarge`], and those of the store.
    pub async fn interventions(
        &self,
        tenant: TenantId,
        model: &str,
        asked: &[Intervention],
    ) -> Result<Interventions, Problem> {
        let model = self.models().get(model)?;
        again(Code::UnknownCache, || self.read_interventions(tenant, model.info(), asked)).await
    }

    async fn read_interventions(
        &self,
        tenant: TenantId,
        info: &ModelInfo,
        asked: &[Intervention],
    ) -> Result<Interventions, Problem> {
        if asked.len() > MAX_INTERVENTIONS {
            let detail = format!("{} interventions are too many; a run takes {MAX_INTERVENTIONS}", asked.len());
            return Err(Problem::at(Code::InvalidValue, "/interventions", detail));
        }
        let mut made = Made { edits: Vec::new(), numbers: Vec::new(), asked: Vec::new() };
        for (i, intervention) in asked.iter().enumerate() {
            let pointer = format!("/interventions/{i}");
            let reader = Reader { questions: self, tenant, info, intervention };
            reader.read(i, &pointer, &mut made).await.map_err(|p| p.under(&pointer))?;
            if made.numbers.len() > MAX_NUMBERS {
                let detail =
                    format!("the interventions take more than {MAX_NUMBERS} numbers; patch fewer layers or positions");
                return Err(Problem::at(Code::ResultTooLarge, pointer, detail));
            }
        }
        let edits = Edits::new(made.edits, made.numbers).map_err(|why| {
            tracing::error!(why, "the edits built from interventions are inconsistent");
            Problem::new(Code::Internal, "the interventions could not be read")
        })?;
        Ok(Interventions { edits: Arc::new(edits), asked: made.asked })
    }
}
