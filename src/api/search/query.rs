//! Where the vectors of a search come from.

use std::time::Duration;

use super::{
    super::state::ApiState,
    QueryCache,
    dto::{Search, SourceDto},
    one_position,
};
use crate::api::dto::direction_ref::{SaeDirection, StoredDirection};
use residuum_analysis::scan::Nearness;
use residuum_domain::{
    CacheId, CaptureRequest, Code, Dtype, Hook, Layers, Positions, PositionsRequest, Priority, Problem, RunStatus,
    TenantId,
};
use residuum_engine::questions::{
    Chosen,
    deleted_caches::as_unknown,
    direction::{of_feature, of_stored},
    read_id,
};
use residuum_engine::{Content, InputSpec, RunRequest};

/// What is searched for, with the vectors not yet read.
pub enum Source {
    Cache { cache: QueryCache, position: Option<Positions> },
    Text { text: String, model: String, position: Option<Positions> },
    Direction(StoredDirection),
    Feature(SaeDirection),
    Vectors { vectors: Vec<Vec<f32>>, pointer: &'static str },
}

impl Source {
    /// # Errors
    /// [`Code::InvalidBody`] unless there is one source with what goes with it; [`Code::UnknownCache`];
    /// [`Code::InvalidValue`] for several positions or no vectors.
    pub fn of(request: &Search) -> Result<Self, Problem> {
        let SourceDto { cache, text, model, position, direction, component, sae, feature, side, vector, vectors } =
            &request.query;
        let refuse = |pointer: &str, detail: &str| Err(Problem::at(Code::InvalidBody, pointer, detail));
        let given =
            [cache.is_some(), text.is_some(), direction.is_some(), sae.is_some(), vector.is_some(), vectors.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return refuse("/query", "give exactly one of cache, text, direction, sae, vector and vectors");
        }
        if feature.is_some() != sae.is_some() {
            return refuse("/query/feature", "a sparse autoencoder needs the feature, and nothing else takes one");
        }
        if side.is_some() && sae.is_none() {
            return refuse("/query/side", "side goes with a feature of a sparse autoencoder");
        }
        if component.is_some() && direction.is_none() {
            return refuse("/query/component", "component goes with a direction");
        }
        if text.is_some() != model.is_some() {
            return refuse("/query/model", "a text needs the model that reads it, and nothing else takes one");
        }
        if position.is_some() && cache.is_none() && text.is_none() {
            return refuse("/query/position", "position goes with a cache or a text");
        }
        if request.exclude_self.is_some() && cache.is_none() {
            return refuse("/exclude_self", "exclude_self goes with query.cache");
        }
        one_position(position.as_ref())?;
        let position = position.clone();
        if let Some(direction) = direction {
            let component = component.unwrap_or(0);
            return Ok(Self::Direction(StoredDirection {
                name: None,
                direction: direction.clone(),
                layer: None,
                component,
            }));
        }
        if let (Some(sae), Some(feature)) = (sae, *feature) {
            let side = side.unwrap_or_default();
            return Ok(Self::Feature(SaeDirection { name: None, sae: sae.clone(), feature, side }));
        }
        Ok(match (cache, text, model, vector, vectors) {
            (Some(cache), ..) => {
                Self::Cache { cache: (read_id(cache, "/query/cache")?, "/query/cache".to_owned()), position }
            }
            (_, Some(text), Some(model), ..) => Self::Text { text: text.clone(), model: model.clone(), position },
            (.., Some(vector), _) => Self::Vectors { vectors: vec![vector.clone()], pointer: "/query/vector" },
            (.., vectors) => Self::Vectors { vectors: vectors.clone().unwrap_or_default(), pointer: "/query/vectors" },
        })
    }

    /// Where it stands in the body.
    pub fn pointer(&self) -> &'static str {
        match self {
            Self::Cache { .. } => "/query/cache",
            Self::Text { .. } => "/query/text",
            Self::Direction(_) => "/query/direction",
            Self::Feature(_) => "/query/sae",
            Self::Vectors { pointer, .. } => pointer,
        }
    }

    /// The cache it names.
    pub fn cache(&self) -> Option<CacheId> {
        match self {
            Self::Cache { cache: (id, _), .. } => Some(*id),
            _ => None,
        }
    }

    /// How many vectors it gives.
    pub fn n_queries(&self) -> usize {
        match self {
            Self::Vectors { vectors, .. } => vectors.len(),
            _ => 1,
        }
    }

    /// Layers of the model that is searched, where the request says which: the query's own, else that of the filter.
    pub async fn n_layers(
        &self,
        state: &ApiState,
        tenant: TenantId,
        filtered: Option<&str>,
    ) -> Result<Option<usize>, Problem> {
        let served = |name: &str| state.engine.models().get(name).map(|model| model.info().n_layers);
        match (self, filtered) {
            (Self::Cache { cache, .. }, _) => {
                let chosen = Chosen::of_ids(state.engine.store(), tenant, vec![cache.clone()]).await?;
                Ok(chosen.caches.first().map(|c| c.cache.n_layers))
            }
            (Self::Text { model, .. }, _) => served(model).map(Some).map_err(|p| point(p, "/query/model")),
            // a filter may name a model that was served once
            (Self::Vectors { .. } | Self::Direction(_) | Self::Feature(_), Some(name)) => Ok(served(name).ok()),
            (Self::Vectors { .. } | Self::Direction(_) | Self::Feature(_), None) => Ok(None),
        }
    }

    /// The vectors at `hook`, in float32; a text is captured within `wait`.
    ///
    /// # Errors
    /// [`Code::UnknownCache`], [`Code::HookNotStored`], [`Code::PositionOutOfRange`]; whatever refuses a run;
    /// [`Code::Unavailable`] when `wait` is over first; the store's own.
    pub async fn vectors(
        &self,
        state: &ApiState,
        tenant: TenantId,
        hook: Hook,
        wait: Duration,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        match self {
            Self::Vectors { vectors, .. } => Ok(vectors.clone()),
            Self::Direction(direction) => {
                of_stored(
                    state.engine.store(),
                    tenant,
                    (&direction.direction, direction.layer, direction.component),
                    &[hook],
                    "/query",
                )
                .await
            }
            Self::Feature(feature) => Ok(vec![of_feature(
                state.questions.saes(),
                (&feature.sae, feature.feature, feature.side.into()),
                "/query",
            )?]),
            Self::Cache { cache, position } => stored(state, tenant, cache.clone(), hook, position.as_ref()).await,
            Self::Text { text, model, position } => {
                let request = run_request(tenant, text, model, hook, position.clone());
                let state = state.clone();
                // A task of its own: the run is deleted also when the client hangs up.
                let captured = tokio::spawn(async move { capture(&state, tenant, request, hook, wait).await });
                captured.await.unwrap_or_else(|e| {
                    tracing::error!(error = %e, "capturing a query panicked");
                    Err(Problem::new(Code::Internal, "the text could not be captured"))
                })
            }
        }
    }
}

/// Checks that there are vectors, that they have one width and that the metric is defined for them.
///
/// # Errors
/// [`Code::ShapeMismatch`], [`Code::InvalidValue`] at the first vector at fault.
pub fn check_vectors(vectors: &[Vec<f32>], metric: Nearness, source: &Source) -> Result<(), Problem> {
    let pointer = |i: usize| match source {
        Source::Vectors { pointer: "/query/vectors", .. } => format!("/query/vectors/{i}"),
        _ => source.pointer().to_owned(),
    };
    let width = vectors.first().map_or(0, Vec::len);
    if width == 0 {
        return Err(Problem::at(Code::InvalidValue, pointer(0), "a query needs a vector with values in it"));
    }
    for (i, vector) in vectors.iter().enumerate() {
        if vector.len() != width {
            let detail = format!("this vector has {} values and the first {width}", vector.len());
            return Err(Problem::at(Code::ShapeMismatch, pointer(i), detail));
        }
        if vector.iter().any(|v| !v.is_finite()) {
            let detail = "the vector holds NaN or values beyond float32, near which nothing lies";
            return Err(Problem::at(Code::InvalidValue, pointer(i), detail));
        }
        if metric == Nearness::Cosine && vector.iter().all(|v| *v == 0.0) {
            let detail = "a vector of zeros has no cosine; choose dot or euclidean";
            return Err(Problem::at(Code::InvalidValue, pointer(i), detail));
        }
    }
    Ok(())
}

/// The vector of a stored cache.
async fn stored(
    state: &ApiState,
    tenant: TenantId,
    cache: QueryCache,
    hook: Hook,
    position: Option<&Positions>,
) -> Result<Vec<Vec<f32>>, Problem> {
    let store = state.engine.store();
    let chosen = Chosen::of_ids(store, tenant, vec![cache]).await?;
    chosen.hooks(&hook.to_string(), &Layers::All)?;
    let captured = chosen.caches.first().map(|c| c.cache.capture.positions.clone()).filter(|p| !p.keeps_axis());
    let position = position.cloned().or(captured).unwrap_or_default();
    let vectors = chosen.vectors(store, hook, &position).await;
    vectors.map_err(|problem| as_unknown(problem, &chosen.pointers[0]))
}

fn run_request(tenant: TenantId, text: &str, model: &str, hook: Hook, position: Option<Positions>) -> RunRequest {
    let input = InputSpec {
        positions: position.map(PositionsRequest::Known),
        ..InputSpec::new("/query/text".to_owned(), Content::Text(text.to_owned()))
    };
    let hooks = vec![hook.to_string()];
    RunRequest {
        capture: CaptureRequest { hooks, layers: Layers::All, positions: None, dtype: Dtype::Float32 },
        priority: Priority::Interactive,
        // it is deleted at the end; where the server dies first, it is not kept for ever
        ttl_seconds: Some(3600),
        ..RunRequest::new(tenant, model, vec![input])
    }
}

/// Runs the capture of one text, reads its vector and deletes the run.
async fn capture(
    state: &ApiState,
    tenant: TenantId,
    request: RunRequest,
    hook: Hook,
    wait: Duration,
) -> Result<Vec<Vec<f32>>, Problem> {
    let engine = &state.engine;
    let id = engine.submit(request).await.map_err(as_query)?.id();
    let outcome = async {
        let run = engine.wait(tenant, id, wait).await?;
        match run {
            Some(run) if run.status == RunStatus::Completed => {
                let cache = run.caches.first().copied();
                let cache = cache.ok_or_else(|| Problem::new(Code::Internal, "the captured text has no cache"))?;
                stored(state, tenant, (cache, "/query/text".to_owned()), hook, None).await
            }
            Some(run) if run.status.is_final() => {
                let unknown = || Problem::new(Code::WorkerFailed, "the text could not be captured");
                Err(run.error.unwrap_or_else(unknown))
            }
            _ => {
                let detail = "the text was not captured in time: the server is busy or stopping. Wait longer, or capture it by a run";
                Err(Problem::new(Code::Unavailable, detail).retry_after(5))
            }
        }
    }
    .await;
    engine.delete(tenant, id).await?;
    outcome
}

/// A problem of the run, with pointers into the search.
fn as_query(mut problem: Problem) -> Problem {
    for error in &mut problem.errors {
        let pointer = match error.pointer.as_str() {
            "/model" => "/query/model",
            p if p.ends_with("/positions") => "/query/position",
            p if p.starts_with("/capture/hooks") => "/hook",
            _ => "/query/text",
        };
        pointer.clone_into(&mut error.pointer);
    }
    problem
}

fn point(problem: Problem, pointer: &str) -> Problem {
    match problem.code {
        Code::UnknownModel => Problem::at(problem.code, pointer, problem.detail),
        _ => problem,
    }
}
