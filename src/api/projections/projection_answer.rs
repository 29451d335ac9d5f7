//! The answer to a projection, as JSON or as arrays.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::{
    dto::capture::PositionsSchema,
    tensor::{Arrays, Format},
};
use residuum_domain::{Code, Hook, Positions, Problem};
use residuum_engine::questions::{
    finite,
    projections::{ProjectedDirection, Projection, ProjectionAnswer, ProjectionQuestion},
};

/// Projections of activations onto directions.
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
    /// As requested.
    #[schema(value_type = PositionsSchema)]
    positions: Positions,
    /// The caches, in the order of the values.
    caches: Vec<String>,
    /// The directions, in the order of the values.
    directions: Vec<DirectionDto>,
    /// For each cache and measure `[layer][direction]`, or `[layer][position][direction]` if the positions keep their
    /// axis; null if undefined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<BTreeMap<String, Value>>, required)]
    values: Option<Vec<BTreeMap<&'static str, Vec<LayerValues>>>>,
}

/// A direction of the request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionDirection)]
struct DirectionDto {
    /// Its name, or its index in the request.
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

/// Writes the answer in the requested format.
///
/// # Errors
/// [`Code::Internal`] if a header cannot be written.
pub fn respond(question: &ProjectionQuestion, answer: ProjectionAnswer, format: Format) -> Result<Response, Problem> {
    let values = Values {
        measures: &question.measures,
        keep: question.positions.keeps_axis(),
        n_layers: answer.hooks.len(),
        n_directions: answer.directions.len(),
        values: answer.values,
    };
    let name = answer.hooks[0].site().name();
    let mut described = ProjectionsDto {
        hook: name.strip_prefix("hook_").unwrap_or(name).to_owned(),
        layers: answer.hooks.iter().filter_map(Hook::layer).collect(),
        positions: question.positions.clone(),
        caches: answer.caches.iter().map(ToString::to_string).collect(),
        directions: answer.directions.into_iter().map(Into::into).collect(),
        values: None,
    };
    if format == Format::Json {
        described.values = Some(values.nested());
        return Ok(Json(described).into_response());
    }
    values.arrays(&described, format)
}

impl From<ProjectedDirection> for DirectionDto {
    fn from(ProjectedDirection { name, norms }: ProjectedDirection) -> Self {
        Self { name, norms }
    }
}

/// The values of all caches, before they are nested for JSON or concatenated for a binary format.
struct Values<'a> {
    /// The measures, in the order of the values.
    measures: &'a [Projection],
    /// Whether the values keep a position axis.
    keep: bool,
    n_layers: usize,
    n_directions: usize,
    /// For each cache and measure `[row, layer, direction]`, NaN if undefined.
    values: Vec<Vec<Vec<f64>>>,
}

impl Values<'_> {
    /// The response in a binary format; safetensors also has the rest of the answer.
    fn arrays(&self, answer: &ProjectionsDto, format: Format) -> Result<Response, Problem> {
        let unwritten = |_| Problem::new(Code::Internal, "the answer could not be described");
        let mut described = serde_json::to_value(answer).map_err(unwritten)?;
        described["directions"] = json!(answer.directions.iter().map(|d| &d.name).collect::<Vec<_>>());
        described["norms"] = json!(answer.directions.iter().map(|d| &d.norms).collect::<Vec<_>>());
        let joined: Vec<Vec<f64>> = (0..self.measures.len()).map(|m| self.of_measure(m)).collect();
        let offsets = self.offsets();
        let shape = [offsets.last().copied().unwrap_or(0), self.n_layers, self.n_directions];
        let names = self.measures.iter().map(|m| m.name());
        let arrays = Arrays {
            shape: &shape,
            axes: if self.keep { "row,layer,direction" } else { "cache,layer,direction" },
            arrays: names.zip(joined.iter().map(Vec::as_slice)).collect(),
            offsets: self.keep.then_some(offsets.as_slice()),
            file_name: "projections",
        };
        arrays.respond(format, &described)
    }

    /// Index of the first row of each cache, and at the end the number of rows.
    fn offsets(&self) -> Vec<usize> {
        let row = (self.n_layers * self.n_directions).max(1);
        let mut offsets = vec![0];
        for cache in &self.values {
            let n_rows = cache.first().map_or(0, |values| values.len() / row);
            offsets.push(offsets[offsets.len() - 1] + n_rows);
        }
        offsets
    }

    /// The values of one measure for all caches, concatenated.
    fn of_measure(&self, measure: usize) -> Vec<f64> {
        self.values.iter().flat_map(|cache| cache[measure].iter().copied()).collect()
    }

    /// The values nested for JSON.
    fn nested(&self) -> Vec<BTreeMap<&'static str, Vec<LayerValues>>> {
        let of_layer = |values: &[f64], layer: usize| -> LayerValues {
            let rows = values.chunks_exact(self.n_directions).skip(layer).step_by(self.n_layers);
            let mut rows = rows.map(|row| row.iter().map(|v| finite(*v)).collect());
            if self.keep {
                LayerValues::Many(rows.collect())
            } else {
                LayerValues::One(rows.next().unwrap_or_default())
            }
        };
        let of_measure = |values: &Vec<f64>| (0..self.n_layers).map(|layer| of_layer(values, layer)).collect();
        let of_cache = |cache: &Vec<Vec<f64>>| {
            self.measures.iter().zip(cache).map(|(m, values)| (m.name(), of_measure(values))).collect()
        };
        self.values.iter().map(of_cache).collect()
    }
}
