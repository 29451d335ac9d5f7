//! `POST /v1/projections`.

mod answer;

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    dto::capture::{LayersSchema, PositionsSchema},
    error::ApiResult,
    extract::{JsonBody, Query, Tenant},
    problems::ProjectionProblems,
    state::ApiState,
    tensor::Format,
};
use crate::api::dto::{
    direction_ref::DirectionRef,
    selector::{CacheSelector, CacheSelectorSchema},
};
use answer::{DirectionDto, ProjectionsDto, Values};
use residuum_analysis::{Projection, Projector};
use residuum_domain::{Code, Hook, Layers, Positions, Problem, Selection, TenantId};
use residuum_engine::questions::{deleted_caches::again, direction::NamedVectors, row_reader::read_rows};
use residuum_store::{Store, StoredCache};

/// Caches in one request.
const MAX_CACHES: usize = 10_000;
/// Directions in one request.
const MAX_DIRECTIONS: usize = 1000;
/// Numbers in one JSON answer.
const MAX_VALUES: usize = 2_000_000;
/// Numbers in one binary answer: 256 MiB.
const MAX_BINARY: usize = 32 << 20;
/// Numbers of all directions at all layers, which are held in memory.
const MAX_DIRECTION_NUMBERS: usize = 1 << 26;

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
    /// Layers, for short names.
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
    #[schema(value_type = Option<Vec<ProjectionSchema>>)]
    measures: Option<Vec<Projection>>,
}

fn resid_post() -> String {
    "resid_post".to_owned()
}

/// How far a vector goes along a direction.
#[derive(Serialize, ToSchema)]
#[schema(as = ProjectionMeasure)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only describes Projection for the specification")]
pub enum ProjectionSchema {
    /// Inner product.
    Dot,
    /// Cosine of the angle; null with a zero vector.
    Cosine,
    /// Inner product by the length of the direction; null for a direction of zeros.
    Scalar,
}

/// Parameters of a projection.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProjectionQuery {
    /// `json`, `npy`, `safetensors` or `raw`; beats the `Accept` header. `npy` and `raw` hold one measure.
    pub format: Option<Format>,
}

/// Project caches onto directions
///
/// Dot product, cosine and scalar projection of stored activations with directions: given as numbers, stored, taken from
/// stored caches, or features of a sparse autoencoder. Sums are accumulated in float64. A hook with several axes behind the
/// position (heads) is one long vector. In the binary formats the values are float64, NaN where undefined: `[cache, layer,
/// direction]`, or `[row, layer, direction]` where the positions keep their axis, the rows of the caches one after the other;
/// safetensors holds a tensor a measure, with `offsets` into the rows, and the rest of the answer in its metadata.
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
    let measures = measures(request.measures.as_deref())?;
    if matches!(format, Format::Npy | Format::Raw) && measures.len() != 1 {
        let detail = "npy and raw hold one array; name one measure, or ask for format=safetensors";
        return Err(Problem::at(Code::InvalidValue, "/measures", detail).into());
    }
    let n_directions = request.directions.len();
    if n_directions == 0 || n_directions > MAX_DIRECTIONS {
        let detail = format!("give 1 to {MAX_DIRECTIONS} directions, not {n_directions}");
        return Err(Problem::at(Code::InvalidValue, "/directions", detail).into());
    }
    let (answer, values) =
        again(Code::UnknownCache, || projections(&state, tenant, &request, format, &measures)).await?;
    Ok(answer::respond(answer, &values, format)?)
}

async fn projections(
    state: &ApiState,
    tenant: TenantId,
    request: &Projections,
    format: Format,
    measures: &[Projection],
) -> Result<(ProjectionsDto, Values), Problem> {
    let store = state.engine.store().clone();
    let n_directions = request.directions.len();
    let chosen = request.caches.selector("/caches")?.choose(&store, tenant, "/caches", MAX_CACHES).await?;
    let hooks = chosen.hooks(&request.hook, &request.layers)?;
    let mut selected = Vec::new();
    let (mut width, mut n_rows) = (0, 0usize);
    for hook in &hooks {
        let (selections, own) = chosen.selections(*hook, Some(&request.positions))?;
        (width, n_rows) = (own, n_rows + selections.iter().map(|s| s.n_served() / own.max(1)).sum::<usize>());
        selected.push(selections);
    }
    let n_values = n_rows.saturating_mul(n_directions * measures.len());
    let (max, instead) = match format {
        Format::Json => (MAX_VALUES, "Ask for format=npy or safetensors, or project fewer caches, layers or positions"),
        _ => (MAX_BINARY, "Project fewer caches, layers or positions"),
    };
    if n_values > max {
        let detail = format!("the answer would hold {n_values} numbers; {max} are allowed. {instead}");
        return Err(Problem::new(Code::ResultTooLarge, detail));
    }
    if n_directions.saturating_mul(hooks.len()).saturating_mul(width) > MAX_DIRECTION_NUMBERS {
        let detail = format!(
            "{n_directions} directions of {width} numbers at {} layers are more than {MAX_DIRECTION_NUMBERS} numbers",
            hooks.len()
        );
        return Err(Problem::at(Code::ResultTooLarge, "/directions", detail));
    }
    let mut directions = Vec::new();
    for (i, direction) in request.directions.iter().enumerate() {
        let place = format!("/directions/{i}");
        directions
            .push(direction.direction(&place)?.resolve(&state.questions, tenant, &hooks, width, (i, &place)).await?);
    }
    let name = hooks[0].site().name();
    let mut answer = ProjectionsDto {
        hook: name.strip_prefix("hook_").unwrap_or(name).to_owned(),
        layers: hooks.iter().filter_map(Hook::layer).collect(),
        positions: request.positions.clone(),
        caches: chosen.caches.iter().map(|c| c.cache.id.to_string()).collect(),
        directions: Vec::new(),
        values: None,
    };
    let job = Job { store, caches: chosen.caches, selected, directions, measures: measures.to_vec(), width };
    let (described, values) = state.questions.analyse(move || job.run()).await?;
    answer.directions = described;
    let measures = measures.to_vec();
    let values = Values { measures, keep: request.positions.keeps_axis(), n_layers: hooks.len(), n_directions, values };
    Ok((answer, values))
}

fn measures(wanted: Option<&[Projection]>) -> Result<Vec<Projection>, Problem> {
    let wanted = wanted.unwrap_or(&Projection::ALL);
    let distinct: Vec<Projection> = Projection::ALL.into_iter().filter(|m| wanted.contains(m)).collect();
    if distinct.is_empty() {
        return Err(Problem::at(Code::InvalidValue, "/measures", "name at least one measure: dot, cosine or scalar"));
    }
    Ok(distinct)
}

/// A request, checked.
struct Job {
    store: Store,
    caches: Vec<Arc<StoredCache>>,
    /// For each hook the rows of each cache.
    selected: Vec<Vec<Selection>>,
    directions: Vec<NamedVectors>,
    measures: Vec<Projection>,
    width: usize,
}

/// For each measure the values `[row, layer, direction]` of one cache.
type CacheValues = Vec<Vec<f64>>;

impl Job {
    /// The directions, and for each cache and measure the values `[row, layer, direction]`, NaN where undefined.
    fn run(self) -> Result<(Vec<DirectionDto>, Vec<CacheValues>), Problem> {
        let onto: Vec<Vec<Projector<'_>>> = (0..self.selected.len())
            .map(|hook| self.directions.iter().map(|d| Projector::onto(&d.vectors[hook])).collect())
            .collect();
        let values = (0..self.caches.len()).into_par_iter().map(|cache| self.of_cache(cache, &onto));
        let values = values.collect::<Result<_, Problem>>()?;
        let describe = |(i, d): (usize, &NamedVectors)| {
            let norms = onto.iter().map(|layer| layer[i].norm()).collect();
            DirectionDto { name: d.name.clone(), norms }
        };
        let directions = self.directions.iter().enumerate().map(describe).collect();
        Ok((directions, values))
    }

    fn of_cache(&self, cache: usize, onto: &[Vec<Projector<'_>>]) -> Result<CacheValues, Problem> {
        let (n_layers, n_directions) = (onto.len(), self.directions.len());
        let mut values = vec![Vec::new(); self.measures.len()];
        for (layer, (selections, onto)) in self.selected.iter().zip(onto).enumerate() {
            let rows = read_rows(&self.store, &self.caches[cache], &selections[cache])?;
            for (measure, values) in self.measures.iter().zip(&mut values) {
                values.resize(rows.len() / self.width * n_layers * n_directions, f64::NAN);
                let places = values.chunks_exact_mut(n_directions).skip(layer).step_by(n_layers);
                for (row, place) in rows.chunks_exact(self.width).zip(places) {
                    place.iter_mut().zip(onto).for_each(|(v, d)| *v = d.of(*measure, row).unwrap_or(f64::NAN));
                }
            }
        }
        Ok(values)
    }
}
