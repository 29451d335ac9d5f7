//! Packs: the format of the files that hold activations, writing them, and the rows that say which part of a pack
//! belongs to which cache.
//!
//! A pack is one safetensors file with the tensors of one or more caches. An extent is the part of a pack that holds
//! one input; several caches may share it.

pub(crate) mod contents;
pub(crate) mod header;
pub(crate) mod insert;
pub(crate) mod item;
pub(crate) mod location;
pub(crate) mod pack_writer;
pub(crate) mod stored_cache;
pub(crate) mod sub_batch;
pub(crate) mod unused;
