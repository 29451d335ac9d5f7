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
use residuum_analysis::Projection;
use residuum_domain::{Code, Positions, Problem};

/// Activations along directions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projections, example = json!({
    "hook": "resid_post", "layers": [20], "positions": "last", "caches": ["0198c5a0-5b3f-7d51-8a3e-0242ac120002"],
    "directions": [{"name": "my direction", "norms": [1.14]}],
    "values": [{"dot": [[3.1]], "cosine": [[0.12]], "scalar": [[2.7]]}]
}))]
pub struct ProjectionsDto {
    /// The hook, without its layer.
    pub hook: String,
    /// Layers, in the order of the values; empty for a hook outside the blocks.
    pub layers: Vec<usize>,
    /// As asked.
    #[schema(value_type = PositionsSchema)]
    pub positions: Positions,
    /// The caches, in the order of the values.
    pub caches: Vec<String>,
    /// The directions, in the order of the values.
    pub directions: Vec<DirectionDto>,
    /// For each cache and measure `[layer][direction]`, or `[layer][position][direction]` where the positions keep their
    /// axis; null where undefined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Vec<BTreeMap<String, Value>>, required)]
    pub values: Option<Vec<BTreeMap<&'static str, Vec<LayerValues>>>>,
}

/// A direction that was projected onto.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionDirection)]
pub struct DirectionDto {
    /// Its name, or its place in the request.
    pub name: String,
    /// Its length at each layer.
    pub norms: Vec<f64>,
}

/// The values of one layer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum LayerValues {
    /// `[direction]`.
    One(Vec<Option<f64>>),
    /// `[position][direction]`.
    Many(Vec<Vec<Option<f64>>>),
}

/// The values of every cache.
pub struct Values {
    /// The measures, in the order of the values.
    pub measures: Vec<Projection>,
    /// Whether the values keep a position axis.
    pub keep: bool,
    /// Layers.
    pub n_layers: usize,
    /// Directions.
    pub n_directions: usize,
    /// For each cache and measure `[row, layer, direction]`, NaN where undefined.
    pub values: Vec<Vec<Vec<f64>>>,
}

/// Writes the answer, whose values are not in it yet, in the format asked for.
///
/// # Errors
/// [`Code::Internal`] when a header cannot be written.
pub fn respond(mut answer: ProjectionsDto, values: &Values, format: Format) -> Result<Response, Problem> {
    if format == Format::Json {
        answer.values = Some(values.nested());
        return Ok(Json(answer).into_response());
    }
    let unwritten = |_| Problem::new(Code::Internal, "the answer could not be described");
    let mut described = serde_json::to_value(&answer).map_err(unwritten)?;
    described["directions"] = json!(answer.directions.iter().map(|d| &d.name).collect::<Vec<_>>());
    described["norms"] = json!(answer.directions.iter().map(|d| &d.norms).collect::<Vec<_>>());
    let joined: Vec<Vec<f64>> = (0..values.measures.len()).map(|m| values.of_measure(m)).collect();
    let offsets = values.offsets();
    let shape = [offsets.last().copied().unwrap_or(0), values.n_layers, values.n_directions];
    let names = values.measures.iter().map(|m| m.name());
    let arrays = Arrays {
        shape: &shape,
        axes: if values.keep { "row,layer,direction" } else { "cache,layer,direction" },
        arrays: names.zip(joined.iter().map(Vec::as_slice)).collect(),
        offsets: values.keep.then_some(offsets.as_slice()),
        file_name: "projections",
    };
    arrays.respond(format, &described)
}

impl Values {
    /// Where the rows of each cache begin, and how many there are.
    fn offsets(&self) -> Vec<usize> {
        let row = (self.n_layers * self.n_directions).max(1);
        let mut offsets = vec![0];
        for cache in &self.values {
            let n_rows = cache.first().map_or(0, |values| values.len() / row);
            offsets.push(offsets[offsets.len() - 1] + n_rows);
        }
        offsets
    }

    /// The values of one measure, of all caches.
    fn of_measure(&self, measure: usize) -> Vec<f64> {
        self.values.iter().flat_map(|cache| cache[measure].iter().copied()).collect()
    }

    /// As JSON nests them.
    fn nested(&self) -> Vec<BTreeMap<&'static str, Vec<LayerValues>>> {
        let of_layer = |values: &[f64], layer: usize| -> LayerValues {
            let rows = values.chunks_exact(self.n_directions).skip(layer).step_by(self.n_layers);
            let mut rows = rows.map(|row| row.iter().map(|v| Some(*v).filter(|v| v.is_finite())).collect());
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
