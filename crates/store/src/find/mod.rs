//! Finding, describing, reading and editing caches.
//!
//! A search gives rows of the index; a row gives a description of the cache and the place of its tensors. Whoever
//! reads them enters an epoch first, and passes the session in.

pub(crate) mod caches;
pub(crate) mod described;
pub(crate) mod edit;
pub(crate) mod reading;
pub(crate) mod search;
pub(crate) mod survey;
