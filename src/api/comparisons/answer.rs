//! The answer to a comparison, as JSON or as arrays.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Context,
    request::{Center, Mode},
};
use crate::api::{
    dto::position::ComparedPositionSchema,
    tensor::{Arrays, Format},
};
use residuum_domain::ComparedPosition;
use residuum_domain::{Code, Problem};
use residuum_engine::questions::row_reader::RowsOf;

/// What was compared, with the values of each metric asked for.
pub struct Outcome {
    pub subject: Subject,
    /// The hook, without its layer.
    pub hook: String,
    /// Layers, those of `a` in mode `layers`.
    pub layers: Vec<usize>,
    /// One a metric, in the order they were asked for.
    pub grids: Vec<Grid>,
}

/// Whose values they are.
pub enum Subject {
    /// Ids of each pair.
    Pairs(Vec<(String, String)>),
    /// Ids of a matrix.
    Caches(Vec<String>),
    /// Ids of both sides, and the layers of `b`.
    Layers { a: Vec<String>, b: Vec<String>, layers_b: Vec<usize> },
    /// The groups of mode `sets`.
    Groups(Vec<GroupDto>),
}

impl Subject {
    const fn axes(&self) -> &'static str {
        match self {
            Self::Pairs(_) => "layer,pair",
            Self::Caches(_) | Self::Groups(_) => "layer,i,j",
            Self::Layers { .. } => "layer_a,layer_b",
        }
    }
}

/// Values of one metric in a shape, row-major; NaN where undefined, which JSON says as null.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Grid {
    /// Grids of a shape that have no values yet.
    pub fn empty(n: usize, shape: Vec<usize>) -> Vec<Self> {
        vec![Self { shape, values: Vec::new() }; n]
    }

    /// Appends to each of `grids` its stretch of values.
    pub fn append(grids: &mut [Self], values: Vec<Vec<f64>>) {
        grids.iter_mut().zip(values).for_each(|(grid, values)| grid.values.extend(values));
    }
}

impl Serialize for Grid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Nested { shape: &self.shape, values: &self.values }.serialize(serializer)
    }
}

struct Nested<'a> {
    shape: &'a [usize],
    values: &'a [f64],
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((n, inner)) = self.shape.split_first() else {
            return self.values.first().filter(|v| v.is_finite()).serialize(serializer);
        };
        let stride: usize = inner.iter().product();
        let mut sequence = serializer.serialize_seq(Some(*n))?;
        for values in self.values.chunks_exact(stride.max(1)) {
            sequence.serialize_element(&Nested { shape: inner, values })?;
        }
        sequence.end()
    }
}

/// The answer to a comparison. `pairs` in that mode; `caches` and `values` in mode `matrix`; `a`, `b`, `layers_b` and `values`
/// in mode `layers`; `groups` and `values` in mode `sets`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Comparison, example = json!({
    "mode": "pairs", "hook": "resid_post", "position": "last", "center": "none", "normalize": false, "layers": [0, 1],
    "pairs": [{
        "a": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "b": "0198c5a0-5b3f-7d51-8a3e-0242ac120003",
        "values": {"cosine": [0.9997, 0.9993]}
    }]
}))]
pub struct ComparisonDto {
    /// As asked.
    mode: Mode,
    /// The hook, without its layer.
    hook: String,
    /// As asked; left out where every stored position is a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ComparedPositionSchema>)]
    position: Option<ComparedPosition>,
    /// What was subtracted first.
    center: Center,
    /// Whether vectors were then scaled to unit length.
    normalize: bool,
    /// Places that `jaccard` took.
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    /// Layers compared, in the order of the values; empty for a hook outside the blocks. In mode `layers` those of `a`.
    layers: Vec<usize>,
    /// In mode `layers`, those of `b`.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers_b: Option<Vec<usize>>,
    /// The pairs, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pairs: Option<Vec<Pair>>,
    /// The caches of the matrix, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    caches: Option<Vec<String>>,
    /// In mode `layers`, the caches on the left, in the order of their rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Vec<String>>,
    /// In mode `layers`, the caches on the right.
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<Vec<String>>,
    /// The groups, in the order of the values.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupDto>>,
    /// For each metric a matrix per layer, `[layer][i][j]`, or in mode `layers` one matrix `[layer of a][layer of b]`; null
    /// where undefined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, ValuesSchema>>)]
    values: Option<BTreeMap<&'static str, Grid>>,
}

/// Values of one metric.
#[derive(Serialize, ToSchema)]
#[schema(as = ComparisonValues)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes Grid for the specification")]
enum ValuesSchema {
    /// `[layer][i][j]`.
    PerLayer(Vec<Vec<Vec<Option<f64>>>>),
    /// `[layer of a][layer of b]`.
    Layers(Vec<Vec<Option<f64>>>),
}

/// One pair.
#[derive(Debug, Serialize, ToSchema)]
struct Pair {
    /// Left.
    a: String,
    /// Right.
    b: String,
    /// For each metric one value per layer; null where undefined (a zero vector, NaN).
    values: BTreeMap<&'static str, Vec<Option<f64>>>,
}

/// A group of caches.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ComparisonGroup)]
pub struct GroupDto {
    /// As named.
    pub name: String,
    /// Rows it gave.
    pub n_rows: usize,
    /// Its caches, in the order of their rows.
    pub caches: Vec<String>,
}

/// Writes the answer in the format asked for.
///
/// # Errors
/// [`Code::Internal`] when a header cannot be written.
pub fn respond(context: &Context<'_>, outcome: Outcome) -> Result<Response, Problem> {
    if context.format == Format::Json {
        return Ok(Json(json(context, outcome)).into_response());
    }
    let shape = &outcome.grids.first().ok_or_else(unwritten)?.shape;
    let mut described = serde_json::to_value(describe(context, &outcome)).map_err(|_| unwritten())?;
    if let (Subject::Pairs(pairs), Some(described)) = (&outcome.subject, described.as_object_mut()) {
        let pairs = Value::from_iter(pairs.iter().map(|(a, b)| vec![a.as_str(), b]));
        described.insert("pairs".to_owned(), pairs);
    }
    let names = context.asked.names.iter().map(|name| name.name());
    let arrays = Arrays {
        shape,
        axes: outcome.subject.axes(),
        arrays: names.zip(&outcome.grids).map(|(name, grid)| (name, grid.values.as_slice())).collect(),
        offsets: None,
        file_name: "comparison",
    };
    arrays.respond(context.format, &described)
}

fn unwritten() -> Problem {
    Problem::new(Code::Internal, "the comparison could not be written")
}

/// The answer without its values.
fn describe(context: &Context<'_>, outcome: &Outcome) -> ComparisonDto {
    let (request, asked) = (context.request, context.asked);
    let position = match &asked.rows {
        RowsOf::Caches(position) => Some(position.clone()),
        RowsOf::Positions => None,
    };
    let mut dto = ComparisonDto {
        mode: request.mode,
        hook: outcome.hook.clone(),
        position,
        center: request.center,
        normalize: request.normalize,
        k: asked.k,
        layers: outcome.layers.clone(),
        layers_b: None,
        pairs: None,
        caches: None,
        a: None,
        b: None,
        groups: None,
        values: None,
    };
    match &outcome.subject {
        Subject::Pairs(_) => {}
        Subject::Caches(ids) => dto.caches = Some(ids.clone()),
        Subject::Layers { a, b, layers_b } => {
            (dto.a, dto.b, dto.layers_b) = (Some(a.clone()), Some(b.clone()), Some(layers_b.clone()));
        }
        Subject::Groups(groups) => dto.groups = Some(groups.clone()),
    }
    dto
}

fn json(context: &Context<'_>, outcome: Outcome) -> ComparisonDto {
    let mut dto = describe(context, &outcome);
    let names = context.asked.names.iter().map(|name| name.name());
    if let Subject::Pairs(pairs) = outcome.subject {
        let n = pairs.len();
        let of_pair = |p: usize, grid: &Grid| -> Vec<Option<f64>> {
            grid.values.iter().skip(p).step_by(n).map(|v| Some(*v).filter(|v| v.is_finite())).collect()
        };
        let values =
            |p: usize| names.clone().zip(&outcome.grids).map(|(name, grid)| (name, of_pair(p, grid))).collect();
        dto.pairs = Some(pairs.into_iter().enumerate().map(|(p, (a, b))| Pair { a, b, values: values(p) }).collect());
    } else {
        dto.values = Some(names.zip(outcome.grids).collect());
    }
    dto
}
