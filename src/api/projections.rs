//! `POST /v1/projections`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    directions_ref::{Direction, DirectionRef},
    dto::capture::{LayersSchema, PositionsSchema},
    error::ApiResult,
    extract::{JsonBody, NoQuery, Query, Tenant},
    problems::ProjectionProblems,
    select::{CacheSelector, CacheSelectorSchema, read_rows},
    state::ApiState,
};
use crate::{
    analysis::{Projection, Projector},
    domain::{Code, Hook, Layers, Positions, Problem, Selection},
    store::{Store, StoredCache},
};

/// Caches in one request.
const MAX_CACHES: usize = 10_000;
/// Directions in one request.
const MAX_DIRECTIONS: usize = 1000;
/// Numbers in one answer.
const MAX_VALUES: usize = 2_000_000;
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

/// Activations along directions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projections, example = json!({
    "hook": "resid_post", "layers": [20], "positions": "last", "caches": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"],
    "directions": [{"name": "my direction", "norms": [1.14]}],
    "values": [{"dot": [[3.1]], "cosine": [[0.12]], "scalar": [[2.7]]}]
}))]
pub struct ProjectionsDto {
    /// The hook, without its layer.
    hook: String,
    /// Layers, in the order of the values; empty for a hook outside the blocks.
    layers: Vec<usize>,
    /// As asked.
    #[schema(value_type = PositionsSchema)]
    positions: Positions,
    /// The caches, in the order of the values.
    caches: Vec<String>,
    /// The directions, in the order of the values.
    directions: Vec<DirectionDto>,
    /// For each cache and measure `[layer][direction]`, or `[layer][position][direction]` where the positions keep their
    /// axis; null where undefined.
    #[schema(value_type = Vec<BTreeMap<String, Value>>)]
    values: Vec<BTreeMap<&'static str, Vec<LayerValues>>>,
}

/// A direction that was projected onto.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionDirection)]
struct DirectionDto {
    /// Its name, or its place in the request.
    name: String,
    /// Its length at each layer.
    norms: Vec<f64>,
}

/// The values of one layer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum LayerValues {
    /// `[direction]`.
    One(Vec<Option<f64>>),
    /// `[position][direction]`.
    Many(Vec<Vec<Option<f64>>>),
}

/// Project caches onto directions
///
/// Dot product, cosine and scalar projection of stored activations with directions: given as numbers, or taken from stored
/// caches. Sums are accumulated in float64. A hook with several axes behind the position (heads) is one long vector.
#[utoipa::path(
    post, path = "/v1/projections", operation_id = "projectCaches", tag = "analysis", request_body = Projections,
    responses((status = 200, description = "The values", body = ProjectionsDto), ProjectionProblems)
)]
pub async fn project(
    State(state): State<ApiState>,
    Tenant(tenant): Tenant,
    Query(NoQuery {}): Query<NoQuery>,
    body: JsonBody<Projections>,
) -> ApiResult<Json<ProjectionsDto>> {
    let request = body.value;
    let measures = measures(request.measures.as_deref())?;
    let store = state.engine.store().clone();
    let n_directions = request.directions.len();
    if n_directions == 0 || n_directions > MAX_DIRECTIONS {
        let detail = format!("give 1 to {MAX_DIRECTIONS} directions, not {n_directions}");
        return Err(Problem::at(Code::InvalidValue, "/directions", detail).into());
    }
    let chosen = request.caches.choose(&store, tenant, "/caches", MAX_CACHES).await?;
    let hooks = chosen.hooks(&request.hook, &request.layers)?;
    let mut selected = Vec::new();
    let (mut width, mut n_rows) = (0, 0usize);
    for hook in &hooks {
        let (selections, own) = chosen.selections(*hook, Some(&request.positions))?;
        (width, n_rows) = (own, n_rows + selections.iter().map(|s| s.n_served() / own.max(1)).sum::<usize>());
        selected.push(selections);
    }
    let n_values = n_rows.saturating_mul(n_directions * measures.len());
    if n_values > MAX_VALUES {
        let detail = format!(
            "the answer would hold {n_values} numbers; {MAX_VALUES} are allowed. Project fewer caches, layers or positions"
        );
        return Err(Problem::new(Code::ResultTooLarge, detail).into());
    }
    if n_directions.saturating_mul(hooks.len()).saturating_mul(width) > MAX_DIRECTION_NUMBERS {
        let detail = format!(
            "{n_directions} directions of {width} numbers at {} layers are more than {MAX_DIRECTION_NUMBERS} numbers",
            hooks.len()
        );
        return Err(Problem::at(Code::ResultTooLarge, "/directions", detail).into());
    }
    let mut directions = Vec::new();
    for (i, direction) in request.directions.iter().enumerate() {
        let place = format!("/directions/{i}");
        directions.push(direction.resolve(&store, tenant, &hooks, width, (i, &place)).await?);
    }
    let caches = chosen.caches.iter().map(|c| c.cache.id.to_string()).collect();
    let job = Job {
        store,
        caches: chosen.caches,
        selected,
        directions,
        measures,
        width,
        keep: request.positions.keeps_axis(),
    };
    let (directions, values) = state.analyse(move || job.run()).await?;
    let name = hooks[0].site().name();
    Ok(Json(ProjectionsDto {
        hook: name.strip_prefix("hook_").unwrap_or(name).to_owned(),
        layers: hooks.iter().filter_map(Hook::layer).collect(),
        positions: request.positions,
        caches,
        directions,
        values,
    }))
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
    directions: Vec<Direction>,
    measures: Vec<Projection>,
    width: usize,
    /// Whether the values keep a position axis.
    keep: bool,
}

type CacheValues = BTreeMap<&'static str, Vec<LayerValues>>;

impl Job {
    /// The directions, and the values of each cache.
    fn run(self) -> Result<(Vec<DirectionDto>, Vec<CacheValues>), Problem> {
        let onto: Vec<Vec<Projector<'_>>> = (0..self.selected.len())
            .map(|hook| self.directions.iter().map(|d| Projector::onto(&d.vectors[hook])).collect())
            .collect();
        let values = (0..self.caches.len()).into_par_iter().map(|cache| self.of_cache(cache, &onto));
        let values = values.collect::<Result<_, Problem>>()?;
        let describe = |(i, d): (usize, &Direction)| {
            let norms = onto.iter().map(|layer| layer[i].norm()).collect();
            DirectionDto { name: d.name.clone(), norms }
        };
        let directions = self.directions.iter().enumerate().map(describe).collect();
        Ok((directions, values))
    }

    fn of_cache(&self, cache: usize, onto: &[Vec<Projector<'_>>]) -> Result<CacheValues, Problem> {
        let mut values = CacheValues::new();
        for (selections, onto) in self.selected.iter().zip(onto) {
            let rows = read_rows(&self.store, &self.caches[cache], &selections[cache])?;
            for measure in &self.measures {
                let of_row = |row: &[f32]| onto.iter().map(|d| d.of(*measure, row)).collect::<Vec<Option<f64>>>();
                let layer = if self.keep {
                    LayerValues::Many(rows.chunks_exact(self.width).map(of_row).collect())
                } else {
                    LayerValues::One(of_row(&rows))
                };
                values.entry(measure.name()).or_default().push(layer);
            }
        }
        Ok(values)
    }
}
