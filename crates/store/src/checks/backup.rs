//! A consistent copy of the data folder, made beside a running server.
//!
//! Blobs never change, so a hard link to one is a copy that stays right; SQLite copies the index as it is at one
//! moment. Blobs may be deleted and merged meanwhile, so the order is this:
//!
//! 1. Every blob that is there is copied.
//! 2. The index is copied.
//! 3. Blobs that this index knows and that have no copy yet, because they are younger than step 1, are copied. If one
//!    is gone already, merged with others or deleted since step 2, the index is older than the folder: continue with
//!    step 2. Each round copies only what was made since the one before, so it takes moments.
//! 4. Copies that the index does not know are removed, and the index gets its name. An interrupted copy has no index,
//!    and cannot be mistaken for a complete one.

use std::{collections::HashSet, fmt, path::Path, sync::Arc};

use serde::Serialize;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use crate::{
    VerifyReport,
    blobs::{self, LocalBlobs},
    blocking::blocking,
    checks::verify::Verifier,
    error::StoreError,
    fault,
    index::{
        SqliteIndex,
        rows::{Fields, pack_id},
    },
};
use residuum_domain::PackId;

/// Name of the index's copy until everything it knows is there.
const UNFINISHED: &str = "index.sqlite.unfinished";

/// How often the index is copied. A round takes moments, in which few blobs are merged: if the copy never matches the folder,
/// the index is damaged.
const MAX_ROUNDS: u32 = 100;

/// What [`crate::Store::backup`] copied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BackupReport {
    /// Blobs in the copy.
    pub n_packs: u64,
    /// How often the index was copied.
    pub n_rounds: u32,
    /// What [`crate::Store::verify`] says of the copy.
    pub verified: VerifyReport,
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_packs, n_rounds, verified } = self;
        writeln!(f, "{verified}")?;
        write!(f, "copied {n_packs} blobs and the index (in {n_rounds} rounds)")
    }
}

/// Copies the store to the folder `target`, which must be empty or not exist, and verifies the copy. Works beside a server
/// on a store that was opened to read only. Blobs get a second name where `link` and the file system allow; else their bytes
/// are copied.
pub(crate) async fn backup(
    index: &SqliteIndex,
    blobs: &Arc<LocalBlobs>,
    target: &Path,
    link: bool,
) -> Result<BackupReport, StoreError> {
    let dir = target.to_owned();
    let copy = blocking(move || blobs::open_new(&dir)).await?;
    let own = Arc::clone(blobs);
    let here = blocking(move || Ok(own.list()?.into_iter().map(|(pack, _)| pack).collect::<Vec<_>>())).await?;
    let mut copied = HashSet::new();
    copy_blobs(blobs, &copy, here, link, &mut copied).await?;
    blobs.faults.hit(fault::COPIED)?;
    let (mut n_rounds, mut gone) = (0, Vec::new());
    let known = loop {
        n_rounds += 1;
        let known = copy_index(index, &copy).await?;
        // what was gone before this copy of the index was made, and is in it, was not merged or deleted
        if let Some(pack) = gone.iter().find(|pack| known.contains(*pack)) {
            let what = format!("the index knows pack {pack}, whose file is missing; see residuum verify");
            return Err(StoreError::damaged(what));
        }
        blobs.faults.hit(fault::INDEXED)?;
        let missing: Vec<PackId> = known.difference(&copied).copied().collect();
        gone = copy_blobs(blobs, &copy, missing, link, &mut copied).await?;
        if gone.is_empty() {
            break known;
        }
        if n_rounds >= MAX_ROUNDS {
            let what = format!("after {n_rounds} copies of the index {} of its blobs are missing", gone.len());
            return Err(StoreError::damaged(what));
        }
    };
    let unneeded: Vec<PackId> = copied.difference(&known).copied().collect();
    let own = Arc::clone(&copy);
    blocking(move || {
        unneeded.into_iter().try_for_each(|pack| own.delete(pack))?;
        own.sync_names()?;
        own.rename(UNFINISHED, "index.sqlite")
    })
    .await?;
    drop(copy);
    let blobs = Arc::new(LocalBlobs::open_read_only(target));
    let index = SqliteIndex::open_read_only(&blobs).await?;
    let verified = Verifier { index: &index, blobs: &blobs }.verify().await?;
    index.close().await;
    Ok(BackupReport { n_packs: known.len() as u64, n_rounds, verified })
}

/// Copies blobs, and gives those that are not there.
async fn copy_blobs(
    from: &Arc<LocalBlobs>,
    copy: &Arc<LocalBlobs>,
    packs: Vec<PackId>,
    link: bool,
    copied: &mut HashSet<PackId>,
) -> Result<Vec<PackId>, StoreError> {
    let (from, to) = (Arc::clone(from), Arc::clone(copy));
    let (done, gone) = blocking(move || {
        let (mut done, mut gone) = (Vec::new(), Vec::new());
        for pack in packs {
            if from.copy_to(&to, pack, link)? { done.push(pack) } else { gone.push(pack) }
        }
        Ok((done, gone))
    })
    .await?;
    copied.extend(done);
    Ok(gone)
}

/// Copies the index as it is now, and gives the packs it knows.
async fn copy_index(index: &SqliteIndex, copy: &Arc<LocalBlobs>) -> Result<HashSet<PackId>, StoreError> {
    let own = Arc::clone(copy);
    let path = blocking(move || own.scratch(UNFINISHED)).await?;
    let name = path.to_str().ok_or_else(|| StoreError::Misuse("the folder's name is no text".to_owned()))?;
    index.copy_to(name).await?;
    let mut conn = SqliteConnectOptions::new().filename(&path).read_only(true).connect().await?;
    let rows = sqlx::query("SELECT id FROM packs").fetch_all(&mut conn).await?;
    conn.close().await?;
    rows.iter().map(|row| pack_id(&Fields::of("packs", row), "id")).collect()
}

impl SqliteIndex {
    /// Copies the index as it is now to a file that does not exist.
    async fn copy_to(&self, path: &str) -> Result<(), StoreError> {
        sqlx::query("VACUUM INTO ?").bind(path).persistent(false).execute(&mut *self.reader().await?).await?;
        Ok(())
    }
}
