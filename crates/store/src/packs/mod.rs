//! Packs: the files that hold activations, and the rows that say where in them the activations of a cache lie.

pub(crate) mod contents;
pub(crate) mod header;
pub(crate) mod insert;
pub(crate) mod item;
pub(crate) mod lane;
pub(crate) mod location;
pub(crate) mod pack_writer;
pub(crate) mod stored_cache;
pub(crate) mod unused;
