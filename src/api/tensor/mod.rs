//! Sends tensors over HTTP: parameters, formats, byte ranges and streaming.
//!
//! An [`Assembly`] is a header and a list of parts of blobs. Its length is known before anything is read, so the same
//! code sends a full response, a byte range of it, or only its headers.

mod arrays;
mod assembly;
mod format;
mod json;
mod respond;
mod tensor_query;

pub use arrays::Arrays;
pub use assembly::{Assembly, Part, convert, log_early_end};
pub use format::{Format, HeaderEntry, accepted, npy_header, npy_header_of, safetensors_header};

pub use json::NestedNumbers;
#[cfg(feature = "ui")]
pub use respond::knows_tag;
pub use respond::{
    CONVERTED_FROM, DTYPE, EXPOSED, POSITIONS, TensorAnswer, TensorDto, binary, respond, respond_to_post,
};
pub use tensor_query::{DtypeParam, Encoding, TensorQuery, TensorSpec, WantedPositions};
