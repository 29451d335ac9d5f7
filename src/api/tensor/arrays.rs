//! Computed float64 arrays of one shape as a file: the answer of an analysis in a binary format.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    format::{Format, HeaderEntry, npy_header_of, safetensors_header},
    respond::{AXES, DTYPE, SHAPE},
};
use residuum_domain::{Code, Problem};

/// Named arrays; undefined values are NaN.
pub struct Arrays<'a> {
    /// Sizes of the axes, the same for all.
    pub shape: &'a [usize],
    /// Names of the axes, separated by commas.
    pub axes: &'static str,
    /// Name and values, row-major. `npy` and `raw` hold only the first; the caller has refused more.
    pub arrays: Vec<(&'a str, &'a [f64])>,
    /// If the first axis is a concatenation of parts of different lengths: index of the first row of each part, and the
    /// total.
    pub offsets: Option<&'a [usize]>,
    /// Name of the file, without extension.
    pub file_name: &'static str,
}

impl Arrays<'_> {
    /// The response with the file in a binary format. `described` is an object that describes the arrays; in
    /// safetensors its fields become metadata, each as a string.
    ///
    /// # Errors
    /// [`Code::Internal`] if a header cannot be written.
    pub fn respond(&self, format: Format, described: &Value) -> Result<Response, Problem> {
        let internal = |_| Problem::new(Code::Internal, "the answer could not be written");
        let mut body = match format {
            Format::Npy => npy_header_of("<f8", self.shape),
            Format::Safetensors => self.safetensors(described),
            Format::Raw | Format::Json => Vec::new(),
        };
        body.reserve(self.arrays.iter().map(|(_, values)| size_of_val(*values)).sum());
        for (_, values) in &self.arrays {
            body.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        let dims: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        headers.insert(SHAPE, HeaderValue::from_str(&dims.join(",")).map_err(internal)?);
        headers.insert(DTYPE, HeaderValue::from_static("float64"));
        headers.insert(AXES, HeaderValue::from_static(self.axes));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        let name = format!("attachment; filename=\"{}.{}\"", self.file_name, format.extension().unwrap_or("bin"));
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_str(&name).map_err(internal)?);
        Ok((headers, Body::from(Bytes::from(body))).into_response())
    }

    /// The header of a safetensors file, followed by the offsets.
    fn safetensors(&self, described: &Value) -> Vec<u8> {
        let mut metadata = Map::new();
        for (key, value) in described.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            metadata.insert(key.clone(), Value::String(text));
        }
        metadata.insert("axes".to_owned(), Value::from(self.axes));
        let offsets: Option<Vec<u8>> =
            self.offsets.map(|offsets| offsets.iter().flat_map(|o| (*o as u64).to_le_bytes()).collect());
        let mut entries = Vec::new();
        if let Some(bytes) = &offsets {
            let (shape, n_bytes) = (vec![bytes.len() / size_of::<u64>()], bytes.len() as u64);
            entries.push(HeaderEntry { name: "offsets".to_owned(), dtype: "I64", shape, n_bytes });
        }
        entries.extend(self.arrays.iter().map(|(name, values)| HeaderEntry {
            name: (*name).to_owned(),
            dtype: "F64",
            shape: self.shape.to_vec(),
            n_bytes: size_of_val(*values) as u64,
        }));
        let mut file = safetensors_header(&entries, &metadata);
        file.extend(offsets.unwrap_or_default());
        file
    }
}
