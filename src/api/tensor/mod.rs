//! Serving tensors: which part of which blobs, in which format, and as a stream.
//!
//! An [`Assembly`] is a header and a list of stored parts, of known length before anything is read; the same bytes serve
//! a full answer, a range of it, or only its headers.

mod arrays;
mod assembly;
mod format;
mod json;
mod respond;
mod tensor_query;

pub use arrays::Arrays;
pub use assembly::{Assembly, Part, broke_off, convert};
pub use format::{Format, HeaderEntry, npy_header, npy_header_of, safetensors_header};

pub use respond::{
    CONVERTED_FROM, DTYPE, EXPOSED, POSITIONS, TensorAnswer, TensorDto, binary, respond, respond_to_post,
};
pub use tensor_query::{DtypeParam, Encoding, TensorQuery, TensorSpec};
