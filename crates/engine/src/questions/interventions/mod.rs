//! Reads the interventions of a run: checks them against the model and fetches their numbers from the store.

mod intervention_reader;
mod made_edits;
pub(super) mod row_part;
pub(super) mod stored_values;
mod variants;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{Questions, chosen::Selector, deleted_caches::again, direction::Direction};
use crate::{Interventions, RunRequest};
use intervention_reader::Reader;
use made_edits::Made;
use residuum_domain::{CacheId, Code, Edits, Layers, ModelInfo, Positions, Problem, TenantId, TokensRequest};
use variants::{ReadIntervention, variants};

/// Most interventions of one input: those of the run and its own.
const MAX_INTERVENTIONS: usize = 256;

/// The interventions of a request.
#[derive(Debug, Clone, Default)]
pub struct RunInterventions {
    /// Those of every input.
    pub run: Vec<Intervention>,
    /// Those of single inputs, by index of the input. They are applied after those of the run.
    pub own: BTreeMap<usize, Vec<Intervention>>,
}

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
        strength: Strength,
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

/// Factors of a vector that is added.
#[derive(Debug, Clone)]
pub enum Strength {
    /// One for every item.
    One(f64),
    /// Each for an item of its own: an input becomes as many items.
    Each(Vec<f64>),
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

impl Questions {
    /// Reads the interventions of a run, and fetches their directions, means and patches from the store. Afterwards the
    /// request has them. Problems point into `/interventions` and `/items/…/interventions`.
    ///
    /// # Errors
    /// [`Code::UnknownModel`], [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::ShapeMismatch`],
    /// [`Code::InvalidBody`], [`Code::InvalidValue`], [`Code::UnknownDirection`], [`Code::UnknownCache`],
    /// [`Code::HookNotStored`], [`Code::PositionOutOfRange`], [`Code::ResultTooLarge`], [`Code::TooManyItems`], and those
    /// of the store.
    pub async fn with_interventions(
        &self,
        request: RunRequest,
        asked: &RunInterventions,
    ) -> Result<RunRequest, Problem> {
        let model = self.models().get(&request.model)?;
        let (tenant, n_inputs) = (request.tenant, request.inputs.len());
        let read = || self.read_interventions(tenant, model.info(), asked, n_inputs);
        let interventions = again(Code::UnknownCache, read).await?;
        Ok(RunRequest { interventions: Some(interventions), ..request })
    }

    async fn read_interventions(
        &self,
        tenant: TenantId,
        info: &ModelInfo,
        asked: &RunInterventions,
        n_inputs: usize,
    ) -> Result<Interventions, Problem> {
        let mut made = Made::default();
        let run = self.read_list(tenant, info, (&asked.run, 0, "/interventions"), &mut made).await?;
        let mut own = BTreeMap::new();
        for (input, list) in &asked.own {
            let pointer = format!("/items/{input}/interventions");
            let read = self.read_list(tenant, info, (list, run.len(), &pointer), &mut made).await?;
            own.insert(*input, read);
        }
        let variants = variants(&run, &own, n_inputs, self.engine().limits().max_run_items)?;
        let edits = Edits::new(made.edits, made.numbers).map_err(|why| {
            tracing::error!(why, "the edits built from interventions are inconsistent");
            Problem::new(Code::Internal, "the interventions could not be read")
        })?;
        Ok(Interventions { edits: Arc::new(edits), asked: made.asked, variants })
    }

    /// Reads the list of interventions at a pointer, for inputs that have `n_before` others.
    async fn read_list(
        &self,
        tenant: TenantId,
        info: &ModelInfo,
        (list, n_before, pointer): (&[Intervention], usize, &str),
        made: &mut Made,
    ) -> Result<Vec<ReadIntervention>, Problem> {
        let n = n_before + list.len();
        if n > MAX_INTERVENTIONS {
            let detail = format!("{n} interventions are too many; an input takes {MAX_INTERVENTIONS}");
            return Err(Problem::at(Code::InvalidValue, pointer, detail));
        }
        let mut read = Vec::with_capacity(list.len());
        for (i, intervention) in list.iter().enumerate() {
            let pointer = format!("{pointer}/{i}");
            let reader = Reader { questions: self, tenant, info, intervention };
            read.push(reader.read(&pointer, made).await.map_err(|p| p.under(&pointer))?);
        }
        Ok(read)
    }
}
