//! What can go wrong in the store, and what clients are told of it.

use std::{fmt, io, sync::Arc};

use residuum_domain::{Code, Problem};

/// A failure of the store. Cloning is cheap, so that everyone waiting for one commit can be told of its failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process has the data folder.
    #[error("the data folder is in use: another process holds its lock; stop that one, or choose another folder")]
    Locked,
    /// The disk, the quota or the database is at its limit.
    #[error("the store is full: no room is left for the index or for blobs")]
    Full,
    /// The data folder can be read and not written.
    #[error("the data folder cannot be written: {what}")]
    ReadOnly {
        /// The operation that was refused.
        what: String,
    },
    /// Something stored is missing or is not what it was.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// The file, or the table and column, and what is wrong with it.
        what: String,
    },
    /// SQLite cannot read the index.
    #[error(
        "the index is damaged ({0}); stop the server and run `residuum verify --rebuild-index`, which makes a new one from \
         the blobs"
    )]
    IndexDamaged(String),
    /// Blobs lie in the data folder, and the index that knows them is missing.
    #[error(
        "the data folder has blobs and no index: put index.sqlite back, or make a new one from the blobs with `residuum \
         verify --rebuild-index`"
    )]
    IndexLost,
    /// A folder for a copy has something in it.
    #[error("the folder for the copy is not empty; name one that is, or that does not exist")]
    NotEmpty,
    /// What was to be read has been deleted meanwhile.
    #[error("the cache was deleted while it was read")]
    Gone,
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A statement failed.
    #[error("the index failed: {0}")]
    Database(Arc<sqlx::Error>),
    /// A newer version of Residuum wrote the index.
    #[error("the index has version {found}; this version of Residuum knows up to {known}: use a newer one")]
    Newer {
        /// Version of the index.
        found: i64,
        /// Newest version this program can read.
        known: i64,
    },
    /// The index must be brought up to date, which a read-only store does not do.
    #[error("the index has version {found}, older than {known}: start the server once to bring it up to date")]
    Older {
        /// Version of the index.
        found: i64,
        /// Version this program reads.
        known: i64,
    },
    /// The store has been closed, or was opened to read only.
    #[error("the store takes no changes: it is closed or was opened to read only")]
    Closed,
    /// The calling code broke a rule of this module.
    #[error("the store was misused: {0}")]
    Misuse(String),
}

impl StoreError {
    /// Something stored is not what it should be.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    /// Whether one change alone may be the cause, so that the others of its group can be committed without it. Otherwise it is
    /// the disk or the whole index.
    pub(crate) fn is_of_one_change(&self) -> bool {
        match self {
            Self::Full | Self::ReadOnly { .. } | Self::IndexDamaged(_) | Self::Io { .. } | Self::Closed => false,
            Self::Database(error) => code_of(error).is_none_or(|code| !SQLITE_OF_ALL.contains(&(code & 0xff))),
            _ => true,
        }
    }

    /// Says what its caller did wrong.
    pub(crate) fn misuse(why: &str) -> Self {
        Self::Misuse(why.to_owned())
    }

    /// Says which file operation failed; a full disk or quota becomes [`Self::Full`].
    pub(crate) fn io(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { what: format!("{what}: {source}") }
            }
            _ => Self::Io { what: what.to_string(), source: Arc::new(source) },
        }
    }
}

/// Primary result codes of SQLite: a database that cannot be written, and one that cannot grow.
const SQLITE_READONLY: i32 = 8;
const SQLITE_FULL: i32 = 13;
/// Extended result code: the memory shared by readers and the writer found no room on the disk.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;
/// Primary result codes of SQLite for a file that is not what it should be.
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;

/// Primary result codes of SQLite that say nothing of the statement: busy, no memory, an operation on the file failed, the file
/// cannot be opened, the locks make no sense.
const SQLITE_OF_ALL: [i32; 5] = [5, 7, 10, 14, 15];

/// SQLite's result code, the extended one.
pub(crate) fn code_of(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match (code_of(&error), &error) {
            // the low byte of an extended code is the primary one
            (Some(code), _) if code & 0xff == SQLITE_FULL || code == SQLITE_IOERR_SHMSIZE => Self::Full,
            (Some(code), _) if [SQLITE_CORRUPT, SQLITE_NOTADB].contains(&(code & 0xff)) => {
                Self::IndexDamaged(error.to_string())
            }
            (Some(code), _) if code & 0xff == SQLITE_READONLY => {
                Self::ReadOnly { what: "writing the index".to_owned() }
            }
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<StoreError> for Problem {
    /// Clients learn the kind of failure; paths and statements go to the log.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::new(Code::StoreFull, "the store has no room left; delete runs or caches first"),
            StoreError::ReadOnly { what } => {
                tracing::error!(%what, "the data folder cannot be written");
                Self::new(Code::Unavailable, "the store takes no changes now; what is stored can be read")
            }
            StoreError::Damaged { what } => {
                tracing::error!(%what, "stored data is damaged");
                Self::new(Code::BlobDamaged, "the stored activations are damaged; the server's log says where")
            }
            StoreError::IndexDamaged(what) => {
                tracing::error!(%what, "the index is damaged; residuum verify --rebuild-index makes a new one");
                Self::new(Code::BlobDamaged, "the index of the store is damaged; the server's log says how")
            }
            StoreError::Gone => Self::new(Code::CacheNotFound, "the cache was deleted while it was read"),
            StoreError::Closed => Self::new(Code::Unavailable, "the server is stopping"),
            other => {
                tracing::error!(error = %other, "the store failed");
                Self::new(Code::Internal, "the store failed; the server's log says why")
            }
        }
    }
}
