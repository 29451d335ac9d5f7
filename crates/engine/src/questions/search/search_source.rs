//! What is searched for, and its vectors at the searched hook.

use std::time::Duration;

use super::Nearness;
use crate::{
    Content, InputSpec, RunRequest,
    questions::{
        Chosen, Questions,
        deleted_caches::as_unknown,
        direction::{Side, of_feature, of_stored},
    },
};
use residuum_domain::{
    CacheId, CaptureRequest, Code, Dtype, Hook, Layers, Positions, PositionsRequest, Priority, Problem, RunStatus,
    TenantId,
};

/// What to search for.
#[derive(Debug, Clone)]
pub enum SearchSource {
    /// A stored cache, at the searched hook.
    Cache {
        /// The cache.
        cache: CacheId,
        /// One position, or the mean. If left out: the only stored row if there is just one, else the row of the last
        /// token.
        position: Option<Positions>,
        /// Whether to leave all rows of this cache out of the search.
        exclude_self: bool,
    },
    /// A text, captured now at the searched hook.
    Text {
        /// The text.
        text: String,
        /// The model that computes its activations.
        model: String,
        /// One position, or the mean; the model's default if left out.
        position: Option<Positions>,
        /// How long the capture may take, including its time in the queue.
        wait: Duration,
    },
    /// A stored direction: its vector at the searched layer.
    Direction {
        /// Its id or name.
        direction: String,
        /// Which component, for principal components.
        component: usize,
    },
    /// A feature of a sparse autoencoder.
    Feature {
        /// The autoencoder.
        sae: String,
        /// The feature.
        feature: usize,
        /// Which of its vectors.
        side: Side,
    },
    /// A vector.
    Vector(Vec<f32>),
    /// Several vectors of one width, each a separate query.
    Vectors(Vec<Vec<f32>>),
}

impl SearchSource {
    /// The JSON pointer of the source in the question.
    pub(super) fn pointer(&self) -> &'static str {
        match self {
            Self::Cache { .. } => "/query/cache",
            Self::Text { .. } => "/query/text",
            Self::Direction { .. } => "/query/direction",
            Self::Feature { .. } => "/query/sae",
            Self::Vector(_) => "/query/vector",
            Self::Vectors(_) => "/query/vectors",
        }
    }

    /// The cache that is left out of the search.
    pub(super) fn excluded(&self) -> Option<CacheId> {
        match self {
            Self::Cache { cache, exclude_self: true, .. } => Some(*cache),
            _ => None,
        }
    }

    /// Number of query vectors.
    pub(super) fn n_queries(&self) -> usize {
        match self {
            Self::Vectors(vectors) => vectors.len(),
            _ => 1,
        }
    }

    /// Checks that the position, if there is one, is a single one.
    ///
    /// # Errors
    /// [`Code::InvalidValue`].
    pub(super) fn check_position(&self) -> Result<(), Problem> {
        match self {
            Self::Cache { position: Some(position), .. } | Self::Text { position: Some(position), .. }
                if position.keeps_axis() =>
            {
                let detail = "a query has one position: an integer, \"last\" or \"mean\"";
                Err(Problem::at(Code::InvalidValue, "/query/position", detail))
            }
            _ => Ok(()),
        }
    }

    /// Number of layers of the searched model, if the question names one: that of the source, else that of the filter.
    ///
    /// # Errors
    /// [`Code::UnknownCache`], [`Code::UnknownModel`] for the model of a text, [`Code::Unavailable`] while it loads,
    /// and those of the store.
    pub(super) async fn n_layers(
        &self,
        questions: &Questions,
        tenant: TenantId,
        filtered: Option<&str>,
    ) -> Result<Option<usize>, Problem> {
        let served = |name: &str| questions.models().get(name).map(|model| model.info().n_layers);
        match self {
            Self::Cache { cache, .. } => {
                let named = (*cache, self.pointer().to_owned());
                let chosen = Chosen::of_ids(questions.store(), tenant, vec![named]).await?;
                Ok(chosen.caches.first().map(|c| c.cache.n_layers))
            }
            Self::Text { model, .. } => served(model).map(Some).map_err(|p| point(p, "/query/model")),
            // a filter may name a model that is not served any more
            Self::Vector(_) | Self::Vectors(_) | Self::Direction { .. } | Self::Feature { .. } => {
                Ok(filtered.and_then(|name| served(name).ok()))
            }
        }
    }

    /// The query vectors at `hook`, `[queries, width]` in float32. A text is captured first.
    ///
    /// # Errors
    /// [`Code::UnknownCache`], [`Code::UnknownDirection`], [`Code::UnknownSae`], [`Code::HookNotStored`],
    /// [`Code::PositionOutOfRange`]; those of submitting a run; [`Code::Unavailable`] if a text was not captured in
    /// time; those of the store.
    pub(super) async fn vectors(
        &self,
        questions: &Questions,
        tenant: TenantId,
        hook: Hook,
    ) -> Result<Vec<Vec<f32>>, Problem> {
        match self {
            Self::Vector(vector) => Ok(vec![vector.clone()]),
            Self::Vectors(vectors) => Ok(vectors.clone()),
            Self::Direction { direction, component } => {
                of_stored(questions.store(), tenant, (direction, None, *component), &[hook], "/query").await
            }
            Self::Feature { sae, feature, side } => {
                Ok(vec![of_feature(questions.saes(), (sae, *feature, *side), "/query")?])
            }
            Self::Cache { cache, position, .. } => {
                stored(questions, tenant, (*cache, self.pointer()), hook, position.as_ref()).await
            }
            Self::Text { text, model, position, wait } => {
                let request = run_request(tenant, text, model, hook, position.clone());
                let (questions, wait) = (questions.clone(), *wait);
                // In a separate task, so that the run is deleted even if the future that waits for it is dropped.
                let captured = tokio::spawn(async move { capture(&questions, tenant, request, hook, wait).await });
                captured.await.unwrap_or_else(|e| {
                    tracing::error!(error = %e, "capturing a query panicked");
                    Err(Problem::new(Code::Internal, "the text could not be captured"))
                })
            }
        }
    }

    /// Checks that there are vectors, that they have one width, and that the metric is defined for them.
    ///
    /// # Errors
    /// [`Code::ShapeMismatch`], [`Code::InvalidValue`] at the first bad vector.
    pub(super) fn check_vectors(&self, vectors: &[Vec<f32>], metric: Nearness) -> Result<(), Problem> {
        let pointer = |i: usize| match self {
            Self::Vectors(_) => format!("{}/{i}", self.pointer()),
            _ => self.pointer().to_owned(),
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
                let detail = "the vector holds NaN or values beyond the range of float32";
                return Err(Problem::at(Code::InvalidValue, pointer(i), detail));
            }
            if metric == Nearness::Cosine && vector.iter().all(|v| *v == 0.0) {
                let detail = "a vector of zeros has no cosine; choose dot or euclidean";
                return Err(Problem::at(Code::InvalidValue, pointer(i), detail));
            }
        }
        Ok(())
    }
}

/// The vector of a stored cache, which stands at `pointer` in the question.
async fn stored(
    questions: &Questions,
    tenant: TenantId,
    (cache, pointer): (CacheId, &str),
    hook: Hook,
    position: Option<&Positions>,
) -> Result<Vec<Vec<f32>>, Problem> {
    let store = questions.store();
    let chosen = Chosen::of_ids(store, tenant, vec![(cache, pointer.to_owned())]).await?;
    chosen.hooks(&hook.to_string(), &Layers::All)?;
    let captured = chosen.caches.first().map(|c| c.cache.capture.positions.clone()).filter(|p| !p.keeps_axis());
    let position = position.cloned().or(captured).unwrap_or_default();
    let vectors = chosen.vectors(store, hook, &position).await;
    vectors.map_err(|problem| as_unknown(problem, pointer))
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
        // it is deleted at the end; this bounds its life if the server dies first
        ttl_seconds: Some(3600),
        ..RunRequest::new(tenant, model, vec![input])
    }
}

/// Captures one text by a run, reads its vector and deletes the run.
async fn capture(
    questions: &Questions,
    tenant: TenantId,
    request: RunRequest,
    hook: Hook,
    wait: Duration,
) -> Result<Vec<Vec<f32>>, Problem> {
    let engine = questions.engine();
    let id = engine.submit(request).await.map_err(as_query)?.id();
    let outcome = async {
        let run = engine.wait(tenant, id, wait).await?;
        match run {
            Some(run) if run.status == RunStatus::Completed => {
                let cache = run.caches.first().copied();
                let cache = cache.ok_or_else(|| Problem::new(Code::Internal, "the captured text has no cache"))?;
                stored(questions, tenant, (cache, "/query/text"), hook, None).await
            }
            Some(run) if run.status.is_final() => {
                let unknown = || Problem::new(Code::WorkerFailed, "the text could not be captured");
                Err(run.error.unwrap_or_else(unknown))
            }
            _ => {
                let detail = "the text was not captured in time: the server is busy or stopping. Allow more time, or capture it by a run";
                Err(Problem::new(Code::Unavailable, detail).retry_after(5))
            }
        }
    }
    .await;
    engine.delete(tenant, id).await?;
    outcome
}

/// Lets a problem of the run point into the question.
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
