//! Formats of tensors, their headers, and content negotiation.

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use residuum_domain::{Code, Dtype, Problem};

/// How a tensor is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object with nested values.
    Json,
    /// A NumPy file, version 1.0.
    Npy,
    /// A safetensors file.
    Safetensors,
    /// Only the elements, little-endian; HTTP headers have the rest.
    Raw,
}

impl Format {
    const ALL: [Self; 4] = [Self::Json, Self::Npy, Self::Safetensors, Self::Raw];

    /// Media type of the format.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Npy => "application/x-npy",
            Self::Safetensors => "application/vnd.safetensors",
            Self::Raw => "application/octet-stream",
        }
    }

    /// File extension for downloads; `None` for JSON, which browsers show instead of saving.
    pub const fn extension(self) -> Option<&'static str> {
        match self {
            Self::Json => None,
            Self::Npy => Some("npy"),
            Self::Safetensors => Some("safetensors"),
            Self::Raw => Some("bin"),
        }
    }

    /// The requested format: `?format=` if given, else by `Accept`, else JSON.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`] if `Accept` allows none of the formats.
    pub fn negotiate(wanted: Option<Self>, headers: &HeaderMap) -> Result<Self, Problem> {
        if let Some(format) = wanted {
            return Ok(format);
        }
        if !headers.contains_key(header::ACCEPT) {
            return Ok(Self::Json);
        }
        let matching = |range: &str| match range {
            "*/*" | "application/*" => Some(Self::Json),
            _ => Self::ALL.into_iter().find(|f| f.media_type() == range),
        };
        accepted(headers).into_iter().find_map(matching).ok_or_else(|| {
            let offered: Vec<&str> = Self::ALL.iter().map(|f| f.media_type()).collect();
            Problem::new(Code::NotAcceptable, format!("available media types are {}", offered.join(", ")))
        })
    }
}

/// The media ranges that a client accepts, the most wanted first; equally wanted ones in the order given.
pub fn accepted(headers: &HeaderMap) -> Vec<&str> {
    let given = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut ranges: Vec<(f32, &str)> = given.flat_map(|v| v.split(',')).filter_map(weighed).collect();
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranges.into_iter().map(|(_, range)| range).collect()
}

/// A media range of an `Accept` header with its weight; `None` for weight 0.
fn weighed(range: &str) -> Option<(f32, &str)> {
    let mut parts = range.split(';').map(str::trim);
    let essence = parts.next().filter(|e| !e.is_empty())?;
    let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok())?;
    (weight > 0.0).then_some((weight, essence))
}

/// The header of a NumPy file of stored values. NumPy has no bfloat16.
pub fn npy_header(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let descr = match dtype {
        Dtype::Float32 | Dtype::BFloat16 => "<f4",
        Dtype::Float16 => "<f2",
    };
    npy_header_of(descr, shape)
}

/// The header of a NumPy file, version 1.0: magic, length, a Python dict, padded so that the data begins at a
/// multiple of 64 bytes. `descr` is the element type as NumPy spells it.
pub fn npy_header_of(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let tuple = if dims.len() == 1 { format!("({},)", dims[0]) } else { format!("({})", dims.join(", ")) };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple}, }}");
    let len = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&u16::try_from(len).expect("a shape has few axes").to_le_bytes());
    out.extend_from_slice(dict.as_bytes());
    out.resize(10 + len - 1, b' ');
    out.push(b'\n');
    out
}

/// One tensor of a safetensors header: name, type, shape, bytes.
pub struct HeaderEntry {
    /// Key of the tensor.
    pub name: String,
    /// Type as safetensors spells it.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Bytes of its data.
    pub n_bytes: u64,
}

/// Length and JSON header of a safetensors file whose tensors follow in this order without gaps.
pub fn safetensors_header(entries: &[HeaderEntry], metadata: &Map<String, Value>) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), Value::Object(metadata.clone()));
    let mut offset = 0;
    for HeaderEntry { name, dtype, shape, n_bytes } in entries {
        let end = offset + n_bytes;
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &str) -> Result<Format, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Format::negotiate(None, &headers)
    }

    #[test]
    fn accept_is_ordered_by_weight_and_format_takes_precedence() {
        assert_eq!(negotiate("*/*").unwrap(), Format::Json);
        assert_eq!(negotiate("text/html, application/x-npy;q=0.5, application/json;q=0.1").unwrap(), Format::Npy);
        assert_eq!(negotiate("application/octet-stream").unwrap(), Format::Raw);
        assert_eq!(negotiate("text/html").unwrap_err().code, Code::NotAcceptable);
        assert_eq!(negotiate("application/json;q=0").unwrap_err().code, Code::NotAcceptable);
        assert_eq!(Format::negotiate(Some(Format::Raw), &HeaderMap::new()).unwrap(), Format::Raw);
        assert_eq!(Format::negotiate(None, &HeaderMap::new()).unwrap(), Format::Json);
    }

    #[test]
    fn npy_headers_align_the_data() {
        for shape in [&[][..], &[5][..], &[30, 576][..], &[1, 2, 3, 4][..]] {
            let header = npy_header(Dtype::Float16, shape);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
        }
        assert!(npy_header(Dtype::Float32, &[5]).windows(4).any(|w| w == b"(5,)"));
    }
}
