//! Writes tensors as nested JSON arrays, directly as text: a `serde_json::Value` would take twenty times the memory.

use std::io::Write;

use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, schema::SchemaType},
};

/// Numbers in the shape of the tensor, as numpy's `tolist` nests them; null where a number is not finite.
#[derive(Serialize)]
pub struct NestedNumbers;

impl PartialSchema for NestedNumbers {
    // a schema that is recursive, or nested for each number of axes, makes generators of clients drop the whole tensor
    fn schema() -> RefOr<Schema> {
        let described = "Numbers, nested as the axes; null where a number is not finite.";
        ArrayBuilder::new()
            .items(ObjectBuilder::new().schema_type(SchemaType::AnyValue))
            .description(Some(described))
            .into()
    }
}

impl ToSchema for NestedNumbers {}

/// The values of a tensor: nested numbers, or their little-endian bytes in base64.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only describes the values of a tensor for the specification")]
pub enum TensorValues {
    /// Numbers.
    Nested(NestedNumbers),
    /// Base64.
    Base64(String),
}

/// Values as JSON text, with counts of those that JSON cannot represent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct JsonValues {
    /// Nested arrays in the shape of the tensor; NaN and infinities are null.
    pub text: String,
    /// Number of NaN values.
    pub n_nan: u64,
    /// Number of infinite values.
    pub n_inf: u64,
}

/// Nests `values` like numpy's `tolist` for an array of `shape`. Each number has the fewest digits that parse to the
/// same float32.
pub fn nested(values: &[f32], shape: &[usize]) -> JsonValues {
    let mut out = Vec::with_capacity(values.len() * 12 + 16);
    let mut counts = JsonValues::default();
    write_axis(values, shape, &mut out, &mut counts);
    JsonValues { text: String::from_utf8(out).unwrap_or_default(), ..counts }
}

fn write_axis(values: &[f32], shape: &[usize], out: &mut Vec<u8>, counts: &mut JsonValues) {
    let Some((n, inner)) = shape.split_first() else {
        return write_number(values.first().copied().unwrap_or(f32::NAN), out, counts);
    };
    let stride = inner.iter().product::<usize>();
    out.push(b'[');
    for i in 0..*n {
        if i > 0 {
            out.push(b',');
        }
        write_axis(&values[i * stride..(i + 1) * stride], inner, out, counts);
    }
    out.push(b']');
}

fn write_number(v: f32, out: &mut Vec<u8>, counts: &mut JsonValues) {
    if v.is_finite() {
        // Debug prints the fewest digits that parse to the same value, and 1e-20 instead of twenty zeros
        let _ = write!(out, "{v:?}");
    } else {
        counts.n_nan += u64::from(v.is_nan());
        counts.n_inf += u64::from(v.is_infinite());
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_follows_the_shape() {
        assert_eq!(nested(&[1.0, 2.5, -3.0, 0.1], &[2, 2]).text, "[[1.0,2.5],[-3.0,0.1]]");
        assert_eq!(nested(&[7.0], &[]).text, "7.0");
        assert_eq!(nested(&[1.0, 2.0], &[2, 1]).text, "[[1.0],[2.0]]");
    }

    #[test]
    fn values_that_are_not_finite_are_null_and_counted() {
        let j = nested(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0], &[4]);
        assert_eq!((j.text.as_str(), j.n_nan, j.n_inf), ("[null,null,null,1.0]", 1, 2));
    }

    #[test]
    fn numbers_parse_to_the_same_bits() {
        for bits in (0..u32::MAX).step_by(65_537) {
            let v = f32::from_bits(bits);
            if v.is_finite() {
                let text = nested(&[v], &[]).text;
                let back = serde_json::from_str::<f64>(&text).unwrap() as f32;
                assert_eq!(back.to_bits(), bits, "{text}");
            }
        }
    }
}
