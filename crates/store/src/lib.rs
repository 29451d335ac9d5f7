//! The store: an SQLite index of runs, items and caches, and a folder of blobs that holds their activations.
//!
//! It owns every SQL statement and every file below the data folder. It knows nothing of HTTP or of models. The map:
//!
//! - `blobs`: the data folder. `LocalBlobs` owns names, locks, reading and removing files; no other module knows a
//!   path in it.
//! - `index`: the database. `SqliteIndex` owns the writer task (group commit), the pool of readers and the terms of
//!   the full-text index.
//! - `packs`: the format of a blob, writing one, and the rows that say which part of it belongs to which cache.
//! - `runs`: accepting, queueing, completing and importing runs, and reusing what is stored.
//! - `served`: which models and autoencoders the next start loads again.
//! - `find`: searching, describing, editing and reading caches.
//! - `scan`: reading one hook of many caches in the order of their bytes.
//! - `upkeep`: garbage collection, expiry and compaction.
//! - `checks`: verifying, repairing, rebuilding and copying a whole store.
//! - `store`: the handle, [`Store`], which delegates to the other modules. None of them knows it.
//!
//! What a method acknowledges is durable, except claims, which survive the end of the process but not a power failure.
//!
//! A cache is stored in two steps: a [`PackWriter`] makes a blob durable under its final name, then one transaction
//! ([`Store::complete`]) enters it in the index. A crash in between leaves a file that nobody refers to, which the
//! next start removes if its inputs are still pending (`upkeep::orphans`). Only the holder of the folder's lock
//! removes files. Compaction ([`Store::merge`]) moves rows to other blobs while they are read: a file stays until
//! everyone who may still read it has finished (`blobs::epoch`).

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
mod served;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod upkeep;

pub use self::{
    blobs::{
        epoch::KeepDeleted,
        quota::Quota,
        sae_folders::{SaeUpload, UploadedFile},
    },
    checks::{
        backup::BackupReport,
        rebuild::RebuildReport,
        repair::RepairReport,
        verify::{Issue, VerifyReport},
    },
    clock::Clock,
    error::StoreError,
    find::{
        caches::{CachePage, PageRequest},
        edit::DeletedCaches,
        survey::Kind,
    },
    keys::KeyStore,
    options::StoreOptions,
    packs::{
        contents::{PackHeader, PackedCache},
        location::ExtentId,
        pack_writer::{FinishedPack, PackWriter},
        stored_cache::StoredCache,
        sub_batch::SubBatchWriter,
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
    served::ServedRecord,
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
