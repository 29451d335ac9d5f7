//! Interventions of a run: checked against a model, their numbers fetched from the store.

mod intervention_reader;
mod row_part;
mod stored_values;

use std::{ops::Range, sync::Arc};

use serde_json::{Map, Value};

use super::{Questions, chosen::Selector, deleted_caches::again, direction::Direction};
use crate::{Asked, Interventions};
use intervention_reader::Reader;
use residuum_domain::{CacheId, Code, Edit, Edits, Layers, ModelInfo, Positions, Problem, TenantId, TokensRequest};

/// Interventions of one run.
const MAX_INTERVENTIONS: usize = 256;
/// Numbers that all of them take together: 128 MiB, kept with the run.
const MAX_NUMBERS: usize = 32 << 20;

/// One change to a forward pass, as a run asks for it.
#[derive(Debug, Clone)]
pub struct Intervention {
    /// What is done.
    pub change: Change,
    /// Where: a full or short hook name; `resid_post` if left out, and of a knockout always `attn.hook_attn_scores`.
    pub hook: Option<String>,
    /// Layers that a short name stands for; all if left out.
    pub layers: Option<Layers>,
    /// Which tokens; all if left out, those to come included.
    pub positions: Option<TokensRequest>,
    /// Of a hook with a head axis, only these heads; negatives count from the last. Attention maps have query heads.
    pub heads: Option<Vec<i64>>,
    /// Of a hook on the neurons of an MLP, only these.
    pub neurons: Option<Vec<usize>>,
    /// Of an attention map: the keys; all if left out.
    pub from: Option<TokensRequest>,
    /// Of an attention map: the queries; all if left out.
    pub to: Option<TokensRequest>,
    /// What the provenance of caches says of it beside its operation, its hooks and its numbers.
    pub described: Map<String, Value>,
}

/// What an intervention does.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a vector.
    Add {
        /// The vector.
        vector: VectorSource,
        /// What it is multiplied with.
        strength: f32,
    },
    /// Removes what lies along a direction, which is scaled to length one.
    ProjectOut(VectorSource),
    /// Replaces the values by a vector.
    Set(VectorSource),
    /// Replaces the values by a number.
    Fill(f32),
    /// Multiplies the values.
    Scale(f32),
    /// Replaces the values by 0.
    Zero,
    /// Replaces the values by one mean over everything that the caches stored at the hook.
    MeanAblate(Selector),
    /// Replaces the values by those of a stored cache.
    Patch(PatchSource),
    /// Masks attention edges before the softmax.
    Knockout,
}

/// Where the vectors of an intervention come from.
#[derive(Debug, Clone)]
pub enum VectorSource {
    /// The same numbers at every layer: as many as the hook has, or as one head or what is changed has.
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
    /// The hook there; the one that is patched if left out.
    pub hook: Option<String>,
    /// One layer for all; each layer its own if left out.
    pub layer: Option<usize>,
    /// The position whose values each patched token gets, in the same order, or one for all. If left out, the same
    /// positions as those that are patched.
    pub positions: Option<Positions>,
}

impl Change {
    /// The name of the operation. A number and a vector are set by the same one.
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

/// What has been read so far.
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
    /// Reads interventions against a served model, fetching directions, means and patches from the store. Problems point
    /// into `/interventions`.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::ShapeMismatch`],
    /// [`Code::InvalidBody`], [`Code::InvalidValue`], [`Code::UnknownDirection`], [`Code::UnknownCache`],
    /// [`Code::HookNotStored`], [`Code::PositionOutOfRange`], [`Code::ResultTooLarge`]; the store's own.
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
            tracing::error!(why, "interventions were read wrongly");
            Problem::new(Code::Internal, "the interventions could not be read")
        })?;
        Ok(Interventions { edits: Arc::new(edits), asked: made.asked })
    }
}
