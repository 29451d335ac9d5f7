//! Upkeep: removing what nobody needs, and compaction.

pub(crate) mod collect;
pub(crate) mod compaction;
pub(crate) mod maintain;
pub(crate) mod orphans;
pub(crate) mod retention;
