//! The forward pass on the CPU: the transformer, its blocks, and the sub-batches that run in parallel.
//!
//! It turns an [`Architecture`](crate::architecture::Architecture) and its weights into calls of [`ops`](crate::ops), and shows
//! every intermediate tensor to [`capture`](crate::capture). It knows nothing of devices, files of a checkpoint or requests.

pub mod attention;
pub mod block;
pub mod dense_mlp;
pub mod kv_cache;
pub mod mlp;
pub mod rotary;
pub mod sparse_mlp;
pub mod stream;
pub mod sub_batches;
pub mod transform;
pub mod transformer;
