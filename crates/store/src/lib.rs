//! The store: an SQLite index of runs, items and caches, and a folder of blobs that holds their numbers.
//!
//! It owns every SQL statement and every file below the data folder, and knows nothing of HTTP or of models. One task
//! writes (`index::writer`), a pool of read-only connections reads. What a method acknowledges is durable, except claims,
//! which survive the end of the process only.
//!
//! A cache is stored in two steps: a [`PackWriter`] makes a blob durable under its final name, then one transaction
//! ([`Store::complete`]) makes the index know it. A crash in between leaves a file nobody refers to, which the next
//! start removes if its inputs still wait (`upkeep::orphans`); only the holder of the folder's lock removes files. Rows may move to other blobs ([`Store::merge`]) while
//! they are read: what a reader was told of stays until it has read it (`blobs::epoch`).

mod blobs;
mod blocking;
mod checks;
mod clock;
mod directions;
mod error;
mod fault;
mod find;
mod index;
mod keys;
mod options;
mod packs;
mod runs;
mod scan;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod upkeep;

pub use self::{
    blobs::{epoch::KeepDeleted, quota::Quota},
    checks::{
        backup::BackupReport,
        rebuild::RebuildReport,
        repair::RepairReport,
        verify::{Issue, VerifyReport},
    },
    clock::Clock,
    error::StoreError,
    find::{caches::CachePage, survey::Kind},
    keys::KeyStore,
    options::StoreOptions,
    packs::{
        contents::{PackHeader, PackedCache},
        lane::PackLane,
        location::ExtentId,
        pack_writer::{FinishedPack, PackWriter},
        stored_cache::StoredCache,
    },
    runs::{
        accept::Inserted,
        answered::AnsweredRun,
        complete::{Completion, ReusedCache},
        import::{Imported, NewImport, Spool},
        listing::RunFilter,
        queue::PendingRun,
        reuse::{Reusable, StoredRows, Wanted},
    },
    scan::{RowKey, ScanPlan, ScanReport, Take, TokenPlaces},
    store::{
        Store,
        maintainer::{Maintainer, Maintenance},
    },
    upkeep::{
        collect::GcReport,
        compaction::{CompactReport, Compaction},
        stats::StoreStats,
    },
};
