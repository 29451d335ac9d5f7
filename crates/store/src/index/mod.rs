//! The index: an SQLite database, the one task that writes it and the connections that read it.

pub(crate) mod checkpoint;
pub(crate) mod checksum;
pub(crate) mod forward_keys;
pub(crate) mod ids;
pub(crate) mod intern;
pub(crate) mod json;
pub(crate) mod readers;
pub(crate) mod rows;
pub(crate) mod terms;
pub(crate) mod tx;
pub(crate) mod wal;
pub(crate) mod write;
pub(crate) mod writer;
