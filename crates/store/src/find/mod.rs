//! Finding, describing and editing caches.

pub(crate) mod caches;
pub(crate) mod described;
pub(crate) mod edit;
pub(crate) mod reading;
pub(crate) mod search;
pub(crate) mod survey;
