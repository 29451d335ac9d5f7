//! The extra object `residuum`: in a request, what to store of the generation; in an answer, where it is stored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::{
    dto::{
        annotations::check_annotations,
        capture::CaptureDto,
        run::RunStatusSchema,
        run_body::{PrioritySchema, check_ttl},
    },
    interventions::{InterventionDto, PostedInterventions},
    limits::LONGEST_WAIT,
    state::ApiState,
};
use residuum_domain::{Code, Priority, Problem, RunId, TenantId};
use residuum_engine::{InputSpec, RunRequest};

/// Number of caches read from the index at a time.
const PAGE: u32 = 1000;

/// What to store of a generation, as a run. The fields mean what they mean in `POST /v1/runs`; all may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAiRecording, example = json!({"capture": {"hooks": ["resid_post"], "layers": [12], "positions": "all"}, "tags": ["chat"]}))]
pub struct Recording {
    /// What to capture; the residual stream after every block at the final position if left out.
    #[serde(default)]
    #[schema(value_type = CaptureDto)]
    capture: CaptureDto,
    /// Changes to activations during the forward pass, also while the model generates.
    #[serde(default)]
    #[schema(value_type = Vec<InterventionDto>)]
    interventions: Vec<InterventionDto>,
    /// Tags for every cache.
    #[serde(default)]
    tags: Vec<String>,
    /// Metadata for the run and each of its caches.
    #[serde(default)]
    metadata: Map<String, Value>,
    /// Label of every cache.
    label: Option<String>,
    /// Seconds after which each cache expires; never if left out.
    #[schema(minimum = 1, maximum = 3_153_600_000_u64)]
    ttl_seconds: Option<u64>,
    /// How urgent the run is; `interactive` if left out.
    #[schema(value_type = Option<PrioritySchema>)]
    priority: Option<Priority>,
}

impl Recording {
    /// Adds what to store to a run. Problems of interventions point into `/interventions`, others into the request.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for oversized annotations, and those of interventions.
    pub async fn add_to(self, run: &mut RunRequest, state: &ApiState) -> Result<(), Problem> {
        let Self { capture, interventions, tags, metadata, label, ttl_seconds, priority } = self;
        check_annotations(&tags, label.as_deref(), &metadata).map_err(|problem| problem.under("/residuum"))?;
        check_ttl(ttl_seconds).map_err(|problem| problem.under("/residuum"))?;
        if let Some(asked) = PostedInterventions::of_run(interventions).questions()? {
            let n = run.n_items();
            *run = state.questions.with_interventions(run.clone(), &asked).await?;
            if run.n_items() != n {
                let detail = "a list of strengths makes several items of an input; post one strength here, or the list to /v1/runs";
                return Err(Problem::at(Code::InvalidValue, "/interventions", detail));
            }
        }
        run.capture = capture.into();
        (run.tags, run.metadata, run.ttl_seconds) = (tags, metadata, ttl_seconds);
        run.priority = priority.unwrap_or(run.priority);
        run.inputs.iter_mut().for_each(|input: &mut InputSpec| input.label.clone_from(&label));
        Ok(())
    }
}

/// Where a generation is stored.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = OpenAiRecorded, example = json!({
    "run": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "status": "completed", "caches": ["0198c5a0-5b3f-7d51-8a3e-0242ac120003"],
    "error": null
}))]
pub struct Recorded {
    /// Id of the run.
    run: String,
    /// Its status.
    #[schema(value_type = RunStatusSchema)]
    status: &'static str,
    /// The cache of each choice, by its index; null for a choice without one.
    caches: Vec<Option<String>>,
    /// Why an activation could not be captured, if so.
    error: Option<String>,
}

impl Recorded {
    /// Waits for the end of a run, and says where its `n_items` are stored.
    ///
    /// # Errors
    /// [`Code::Conflict`] if the run was deleted, and those of the store.
    pub async fn of(state: &ApiState, tenant: TenantId, id: RunId, n_items: usize) -> Result<Self, Problem> {
        let run = state.engine.wait(tenant, id, LONGEST_WAIT).await?;
        let run = run.ok_or_else(|| Problem::new(Code::Conflict, "the run was deleted before it could be answered"))?;
        let mut caches = vec![None; n_items];
        let mut from = 0;
        loop {
            let page = state.engine.store().run_caches(tenant, id, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = u32::try_from(last.item_index).unwrap_or(u32::MAX).saturating_add(1);
            for cache in &page {
                if let Some(place) = caches.get_mut(usize::try_from(cache.item_index).unwrap_or(usize::MAX)) {
                    *place = Some(cache.id.to_string());
                }
            }
        }
        let error = run.error.map(|problem| problem.detail);
        Ok(Self { run: id.to_string(), status: run.status.name(), caches, error })
    }
}
