//! `POST /v1/projections`: projects stored activations onto directions.

mod projection_answer;

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::projection_answer::ProjectionsDto;
use super::{
    dto::{
        capture::{LayersSchema, PositionsSchema},
        direction_ref::DirectionRef,
        selector::{CacheSelector, CacheSelectorSchema},
    },
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::ProjectionProblems,
    state::ApiState,
    tensor::Format,
};
use residuum_domain::{Code, Layers, Positions, Problem};
use residuum_engine::questions::{
    answer_limit::AnswerLimit,
    projections::{Projection, ProjectionQuestion},
};

/// Maximum number of values in a JSON response.
const MAX_VALUES: usize = 2_000_000;
/// Maximum number of values in a binary response: 256 MiB.
const MAX_BINARY: usize = 32 << 20;

/// What to project, and onto what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProjectionRequest, example = json!({
    "caches": {"tags": ["demo"]}, "hook": "resid_post", "layers": [20], "positions": "last",
    "directions": [{"name": "my direction", "vector": [0.5, -0.25, 1.0]}, {"cache": "0198c5a0-5b3f-7d51-8a3e-0242ac120002"}]
}))]
pub struct Projections {
    /// The caches.
    #[schema(value_type = CacheSelectorSchema)]
    caches: CacheSelector,
    /// Hook, short or full.
    #[serde(default = "resid_post")]
    #[schema(default = "resid_post")]
    hook: String,
    /// Layers, if the hook is a short name.
    #[schema(value_type = Option<LayersSchema>)]
    #[serde(default)]
    layers: Layers,
    /// Positions; the last if left out.
    #[schema(value_type = Option<PositionsSchema>)]
    #[serde(default)]
    positions: Positions,
    /// Directions, at most 1000.
    directions: Vec<DirectionRef>,
    /// Measures; all if left out.
    measures: Option<Vec<Measure>>,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

/// A measure of a vector along a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[schema(as = ProjectionMeasure)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Inner product.
    Dot,
    /// Cosine of the angle; null with a zero vector.
    Cosine,
    /// Inner product divided by the length of the direction; null for a direction of zeros.
    Scalar,
}

/// Query parameters of a projection.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProjectionQuery {
    /// `json`, `npy`, `safetensors` or `raw`; takes precedence over the `Accept` header. `npy` and `raw` can hold only
    /// one measure.
    pub format: Option<Format>,
}

/// Project caches onto directions
///
/// Dot product, cosine and scalar projection of stored activations and directions. A direction is given as numbers,
/// stored, a vector of a stored cache, or a feature of a sparse autoencoder. Sums are accumulated in float64. If a hook
/// has several axes after the position (heads), they are flattened to one vector. In binary formats the values are
/// float64, NaN if undefined: `[cache, layer, direction]`, or `[row, layer, direction]` with the rows of the caches
/// concatenated if the positions keep their axis. safetensors has one tensor per measure, `offsets` of the caches'
/// rows, and the rest of the answer in its metadata.
#[utoipa::path(
    post, path = "/v1/projections", operation_id = "projectCaches", tag = "analysis", request_body = Projections,
    params(ProjectionQuery),
    responses((status = 200, description = "The values", content((ProjectionsDto = "application/json"), (Vec<u8> = "application/x-npy"),
        (Vec<u8> = "application/vnd.safetensors"), (Vec<u8> = "application/octet-stream"))), ProjectionProblems)
)]
pub async fn project(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(query): Query<ProjectionQuery>,
    headers: HeaderMap,
    body: JsonBody<Projections>,
) -> ApiResult<Response> {
    let request = body.value;
    let format = Format::negotiate(query.format, &headers)?;
    let question = request.question(limit(format))?;
    if matches!(format, Format::Npy | Format::Raw) && question.measures.len() > 1 {
        let detail = "npy and raw can hold only one array; request one measure, or format=safetensors";
        return Err(Problem::at(Code::InvalidValue, "/measures", detail).into());
    }
    let answer = state.questions.projections(tenant, &question).await?;
    Ok(projection_answer::respond(&question, answer, format)?)
}

/// Maximum number of values of a response in this format.
fn limit(format: Format) -> AnswerLimit {
    let (n_numbers, instead) = match format {
        Format::Json => (MAX_VALUES, "Ask for format=npy or safetensors, or project fewer caches, layers or positions"),
        _ => (MAX_BINARY, "Project fewer caches, layers or positions"),
    };
    AnswerLimit { n_numbers, instead }
}

impl Projections {
    /// Converts the body to a question, with each measure once, in the order of [`Measure`].
    ///
    /// # Errors
    /// Errors of the selector, pointing into `/caches`, and of the directions, pointing into `/directions`.
    fn question(self, limit: AnswerLimit) -> Result<ProjectionQuestion, Problem> {
        let mut measures = self.measures.unwrap_or_else(|| vec![Measure::Dot, Measure::Cosine, Measure::Scalar]);
        measures.sort_unstable();
        measures.dedup();
        let directions = self.directions.iter().enumerate();
        let directions = directions.map(|(i, direction)| direction.direction(&format!("/directions/{i}")));
        Ok(ProjectionQuestion {
            caches: self.caches.selector("/caches")?,
            hook: self.hook,
            layers: self.layers,
            positions: self.positions,
            directions: directions.collect::<Result<_, _>>()?,
            measures: measures.into_iter().map(Into::into).collect(),
            limit,
        })
    }
}

impl From<Measure> for Projection {
    fn from(measure: Measure) -> Self {
        match measure {
            Measure::Dot => Self::Dot,
            Measure::Cosine => Self::Cosine,
            Measure::Scalar => Self::Scalar,
        }
    }
}
