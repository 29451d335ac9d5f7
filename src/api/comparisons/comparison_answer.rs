//! The answer to a comparison, as JSON or as arrays.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer, ser::SerializeSeq};
use serde_json::Value;
use utoipa::ToSchema;

use super::comparison_body::{Center, Mode};
use crate::api::{
    dto::position::ComparedPositionSchema,
    tensor::{Arrays, Format, NestedNumbers},
};
use residuum_domain::{CacheId, Code, ComparedPosition, Hook, Problem};
use residuum_engine::questions::{
    comparisons::{ComparedCaches, ComparedGroup, ComparisonAnswer, ComparisonQuestion},
    finite,
    row_reader::RowsOf,
};

/// Values of one metric in a shape, row-major; NaN if undefined, which becomes null in JSON.
#[derive(Debug)]
struct Grid {
    shape: Vec<usize>,
    values: Vec<f64>,
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
            return self.values.first().copied().and_then(finite).serialize(serializer);
        };
        let stride: usize = inner.iter().product();
        let mut sequence = serializer.serialize_seq(Some(*n))?;
        for values in self.values.chunks_exact(stride.max(1)) {
            sequence.serialize_element(&Nested { shape: inner, values })?;
        }
        sequence.end()
    }
}

/// The answer to a comparison. It has `pairs` in mode `pairs`; `caches` and `values` in mode `matrix`; `a`, `b`,
/// `layers_b` and `values` in mode `layers`; `groups` and `values` in mode `sets`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Comparison, example = json!({
    "mode": "pairs", "hook": "resid_post", "position": "last", "center": "none", "normalize": false, "layers": [0, 1],
    "pairs": [{
        "a": "0198c5a0-5b3f-7d51-8a3e-0242ac120002", "b": "0198c5a0-5b3f-7d51-8a3e-0242ac120003",
        "values": {"cosine": [0.9997, 0.9993]}
    }]
}))]
pub struct ComparisonDto {
    /// As requested.
    mode: Mode,
    /// The hook, without its layer.
    hook: String,
    /// As requested; left out if every stored position is a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ComparedPositionSchema>)]
    position: Option<ComparedPosition>,
    /// What was subtracted from the vectors first.
    center: Center,
    /// Whether vectors were then scaled to unit length.
    normalize: bool,
    /// Number of dimensions in each set of `jaccard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    /// Layers, in the order of the values; empty for a hook outside the blocks. In mode `layers` the layers of `a`.
    layers: Vec<usize>,
    /// In mode `layers`, the layers of `b`.
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
    /// For each metric one matrix per layer, `[layer][i][j]`, or in mode `layers` one matrix `[layer of a][layer of
    /// b]`; null if undefined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, NestedNumbers>>)]
    values: Option<BTreeMap<&'static str, Grid>>,
}

/// One pair.
#[derive(Debug, Serialize, ToSchema)]
struct Pair {
    /// Left.
    a: String,
    /// Right.
    b: String,
    /// For each metric one value per layer; null if undefined (a zero vector, NaN).
    values: BTreeMap<&'static str, Vec<Option<f64>>>,
}

/// A group of caches.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ComparisonGroup)]
struct GroupDto {
    /// Name of the group.
    name: String,
    /// Number of its rows.
    n_rows: usize,
    /// Its caches, in the order of their rows.
    caches: Vec<String>,
}

/// Writes the answer in the requested format.
///
/// # Errors
/// [`Code::Internal`] if a header cannot be written.
pub fn respond(question: &ComparisonQuestion, answer: ComparisonAnswer, format: Format) -> Result<Response, Problem> {
    let described = describe(question, &answer);
    if format == Format::Json {
        return Ok(Json(with_values(described, question, answer)).into_response());
    }
    let unwritten = |_| Problem::new(Code::Internal, "the comparison could not be written");
    let mut described = serde_json::to_value(described).map_err(unwritten)?;
    if let (ComparedCaches::Pairs(pairs), Some(described)) = (&answer.sides, described.as_object_mut()) {
        let pairs = Value::from_iter(pairs.iter().map(|(a, b)| vec![a.to_string(), b.to_string()]));
        described.insert("pairs".to_owned(), pairs);
    }
    let names = question.metrics.iter().map(|metric| metric.name());
    let arrays = Arrays {
        shape: &answer.shape,
        axes: axes(&answer.sides),
        arrays: names.zip(answer.values.iter().map(Vec::as_slice)).collect(),
        offsets: None,
        file_name: "comparison",
    };
    arrays.respond(format, &described)
}

const fn axes(sides: &ComparedCaches) -> &'static str {
    match sides {
        ComparedCaches::Pairs(_) => "layer,pair",
        ComparedCaches::Matrix(_) | ComparedCaches::Sets(_) => "layer,i,j",
        ComparedCaches::Layers { .. } => "layer_a,layer_b",
    }
}

/// The answer without its values.
fn describe(question: &ComparisonQuestion, answer: &ComparisonAnswer) -> ComparisonDto {
    let name = answer.hooks[0].site().name();
    let position = match &question.rows {
        RowsOf::Caches(position) => Some(position.clone()),
        RowsOf::Positions => None,
    };
    let mut dto = ComparisonDto {
        mode: (&question.compared).into(),
        hook: name.strip_prefix("hook_").unwrap_or(name).to_owned(),
        position,
        center: if question.center { Center::Mean } else { Center::None },
        normalize: question.normalize,
        k: answer.k,
        layers: layers(&answer.hooks),
        layers_b: None,
        pairs: None,
        caches: None,
        a: None,
        b: None,
        groups: None,
        values: None,
    };
    match &answer.sides {
        ComparedCaches::Pairs(_) => {}
        ComparedCaches::Matrix(caches) => dto.caches = Some(ids(caches)),
        ComparedCaches::Layers { a, b, hooks_b } => {
            (dto.a, dto.b, dto.layers_b) = (Some(ids(a)), Some(ids(b)), Some(layers(hooks_b)));
        }
        ComparedCaches::Sets(groups) => dto.groups = Some(groups.iter().map(Into::into).collect()),
    }
    dto
}

/// The answer with its values, nested.
fn with_values(mut dto: ComparisonDto, question: &ComparisonQuestion, answer: ComparisonAnswer) -> ComparisonDto {
    let ComparisonAnswer { sides, shape, values, .. } = answer;
    let names = question.metrics.iter().map(|metric| metric.name());
    if let ComparedCaches::Pairs(pairs) = sides {
        let n = pairs.len();
        let of_pair = |p: usize, values: &[f64]| values.iter().skip(p).step_by(n).map(|v| finite(*v)).collect();
        let of_metrics =
            |p: usize| names.clone().zip(&values).map(|(name, values)| (name, of_pair(p, values))).collect();
        let pair = |(p, (a, b)): (usize, (CacheId, CacheId))| Pair {
            a: a.to_string(),
            b: b.to_string(),
            values: of_metrics(p),
        };
        dto.pairs = Some(pairs.into_iter().enumerate().map(pair).collect());
    } else {
        let grid = |values| Grid { shape: shape.clone(), values };
        dto.values = Some(names.zip(values.into_iter().map(grid)).collect());
    }
    dto
}

impl From<&ComparedGroup> for GroupDto {
    fn from(group: &ComparedGroup) -> Self {
        Self { name: group.name.clone(), n_rows: group.n_rows, caches: ids(&group.caches) }
    }
}

fn ids(caches: &[CacheId]) -> Vec<String> {
    caches.iter().map(ToString::to_string).collect()
}

fn layers(hooks: &[Hook]) -> Vec<usize> {
    hooks.iter().filter_map(Hook::layer).collect()
}
