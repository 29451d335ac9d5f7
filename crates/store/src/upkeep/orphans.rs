//! Orphans: files of packs that the index does not know. Every kill leaves some. What the index knows of their inputs
//! tells which can be removed; any other may be the last copy of something (for example after an older index was put
//! back) and is kept.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use crate::{
    blobs::LocalBlobs,
    blocking::blocking,
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, hex, hex_list, pack_id, to_json},
    },
    packs::header::{self, BlobHeader},
};
use residuum_domain::PackId;

/// Packs that are named one by one in a log line.
const NAMED: usize = 10;
/// Packs looked up at a time.
const LOOKED_UP: usize = 10_000;

/// What becomes of a file that the index does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing is lost with it: it was deleted, its inputs will be computed again, or what it holds is stored elsewhere too.
    Garbage,
    /// A whole pack, of which the index lacks something.
    Data,
    /// Not a whole pack, for this reason.
    Broken(String),
}

/// Files that the index does not know, by what they are.
#[derive(Debug, Default)]
pub(crate) struct Unknown {
    /// With their lengths.
    pub(crate) garbage: Vec<(PackId, u64)>,
    pub(crate) data: Vec<PackId>,
    /// With what is wrong with them.
    pub(crate) broken: Vec<(PackId, String)>,
}

/// For each cache of a header, in `j`: what the index says of its input, whether its run was deleted, and where the rows of the
/// cache lie that this input has.
const INPUTS: &str = "SELECT j.key AS entry, i.status, t.id IS NOT NULL AS deleted, e.content_hash, e.pack_id, p.n_bytes \
    FROM json_each(?) j \
    LEFT JOIN run_items i ON i.run_id = unhex(j.value ->> 0) AND i.item_index = j.value ->> 1 \
    LEFT JOIN tombstones t ON t.id = unhex(j.value ->> 0) \
    LEFT JOIN caches c ON c.run_id = unhex(j.value ->> 0) AND c.item_index = j.value ->> 1 \
    LEFT JOIN extents e ON e.id = c.extent_id LEFT JOIN packs p ON p.id = e.pack_id";

/// Which of the files belong to packs of the index.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn known(conn: &mut SqliteConnection, files: &[(PackId, u64)]) -> Result<Vec<bool>, StoreError> {
    let rows = sqlx::query("SELECT j.key FROM json_each(?) j CROSS JOIN packs p ON p.id = unhex(j.value)")
        .bind(hex_list(files.iter().map(|(p, _)| p.as_bytes().as_slice())))
        .fetch_all(conn)
        .await?;
    let mut known = vec![false; files.len()];
    for row in &rows {
        let index: i64 = row.try_get(0)?;
        if let Some(flag) = usize::try_from(index).ok().and_then(|i| known.get_mut(i)) {
            *flag = true;
        }
    }
    Ok(known)
}

/// Looks for files that the index does not know, and tells which of them are needed.
#[derive(Clone, Copy)]
pub(crate) struct Orphans<'a> {
    pub(crate) index: &'a SqliteIndex,
    pub(crate) blobs: &'a Arc<LocalBlobs>,
}

impl SqliteIndex {
    /// Those of the files whose packs have a tombstone of a kind.
    async fn tombstones_among(&self, files: &[(PackId, u64)], kind: &str) -> Result<Vec<PackId>, StoreError> {
        let ids = hex_list(files.iter().map(|(pack, _)| pack.as_bytes().as_slice()));
        let query = sqlx::query(
            "SELECT t.id FROM json_each(?) j CROSS JOIN tombstones t ON t.id = unhex(j.value) WHERE t.kind = ?",
        );
        let rows = self.rows(query.bind(ids).bind(kind)).await?;
        rows.iter().map(|row| pack_id(&Fields::of("tombstones", row), "id")).collect()
    }

    /// Packs with a tombstone: as many as one statement takes well, the next collection has the others.
    async fn deleted_packs(&self) -> Result<Vec<PackId>, StoreError> {
        let sql = format!("SELECT id FROM tombstones WHERE kind = 'pack' LIMIT {LOOKED_UP}");
        let rows = self.rows(sqlx::query(AssertSqlSafe(sql))).await?;
        let packs = rows.iter().map(|row| row.try_get::<Vec<u8>, _>("id").map(|id| PackId::from_slice(&id)));
        let packs: Vec<Option<PackId>> = packs.collect::<Result<_, _>>()?;
        Ok(packs.into_iter().flatten().collect())
    }
}

impl Orphans<'_> {
    /// Files that the index does not know, with their lengths: nobody is writing them.
    pub(crate) async fn unknown_files(&self) -> Result<Vec<(PackId, u64)>, StoreError> {
        let blobs = Arc::clone(self.blobs);
        // before the index is asked: what it learns of meanwhile is not listed
        let files = blocking(move || blobs.list()).await?;
        let mut unknown = Vec::new();
        for page in files.chunks(LOOKED_UP) {
            let known = known(&mut *self.index.reader().await?, page).await?;
            unknown.extend(page.iter().zip(known).filter(|(_, known)| !known).map(|(file, _)| *file));
        }
        Ok(unknown)
    }

    /// Sorts the files that the index does not know and nobody is writing. Where `torn`, the index may have lost changes that it
    /// had acknowledged: then that an input is pending says nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`].
    pub(crate) async fn sort_unknown(&self, files: &[(PackId, u64)], torn: bool) -> Result<Unknown, StoreError> {
        let mut sorted = Unknown::default();
        for page in files.chunks(LOOKED_UP) {
            let deleted = self.index.tombstones_among(page, "pack").await?;
            let copies = self.index.tombstones_among(page, "copy").await?;
            for (pack, n_bytes) in page.iter().copied() {
                let fate = if deleted.contains(&pack) || self.blobs.is_own(pack) {
                    Fate::Garbage
                } else {
                    self.fate(pack, n_bytes, copies.contains(&pack), torn).await?
                };
                match fate {
                    Fate::Garbage => sorted.garbage.push((pack, n_bytes)),
                    Fate::Data => sorted.data.push(pack),
                    Fate::Broken(why) => sorted.broken.push((pack, why)),
                }
            }
        }
        Ok(sorted)
    }

    /// What a file is that is neither deleted nor this process's own. Of a `copy`, the index had everything when it was begun.
    async fn fate(&self, pack: PackId, n_bytes: u64, copy: bool, torn: bool) -> Result<Fate, StoreError> {
        let blobs = Arc::clone(self.blobs);
        let header = match blocking(move || read_whole(&blobs, pack, n_bytes)).await {
            Ok(header) => header,
            Err(StoreError::Damaged { what }) => return Ok(Fate::Broken(what)),
            Err(other) => return Err(other),
        };
        let inputs: Vec<(String, u32)> =
            header.caches.iter().map(|entry| (hex(entry.run.as_bytes()), entry.item_index)).collect();
        let rows = self.index.rows(sqlx::query(INPUTS).bind(to_json(&inputs)?)).await?;
        let mut unneeded = 0;
        for row in &rows {
            let f = Fields::of("run_items", row);
            let entry = header.caches.get(f.uint::<usize>("entry")?);
            let status: Option<&str> = f.get("status")?;
            let stored: Option<&[u8]> = f.get("content_hash")?;
            let elsewhere = match stored.zip(entry.and_then(|entry| entry.content_hash.as_ref())) {
                Some((known, own)) => hex(known) == *own && self.blobs.has(pack_id(&f, "pack_id")?, f.uint("n_bytes")?),
                None => false,
            };
            // an input that was cancelled or failed never had a cache, and never gets one
            let to_come = stored.is_none() && matches!(status, Some("pending" | "cancelled" | "failed")) && !torn;
            let deleted = copy && stored.is_none() || f.get("deleted")?;
            unneeded += usize::from(elsewhere || to_come || deleted);
        }
        Ok(if unneeded == header.caches.len() { Fate::Garbage } else { Fate::Data })
    }

    /// Moves what is not garbage out of the folder of blobs, and logs it. Gives the number of files.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub(crate) async fn keep_unknown(&self, unknown: &Unknown) -> Result<u64, StoreError> {
        let (data, broken) = (unknown.data.clone(), unknown.broken.clone());
        if data.is_empty() && broken.is_empty() {
            return Ok(0);
        }
        let blobs = Arc::clone(self.blobs);
        let moved = blocking(move || {
            let (mut n_data, mut n_broken) = (0u64, 0u64);
            for pack in &data {
                n_data += u64::from(blobs.set_unknown_aside(*pack)?.is_some());
            }
            for (pack, why) in &broken {
                if let Some(path) = blobs.set_pack_aside(*pack)? {
                    n_broken += 1;
                    tracing::warn!(%pack, why, path = %path.display(), "a file among the blobs is no whole blob: moved");
                }
            }
            Ok((n_data, n_broken))
        });
        let (n_data, n_broken) = moved.await?;
        if n_data > 0 {
            let packs: Vec<String> = unknown.data.iter().take(NAMED).map(ToString::to_string).collect();
            tracing::warn!(
                blobs = n_data,
                first = packs.join(" "),
                "the index does not know these blobs, which are whole: it may be an older one, or have lost its log. They were \
                 moved to the folder `unknown`, and nothing of them is lost: stop the server and run `residuum verify \
                 --rebuild-index` to take their caches in, or `residuum gc --unknown` to remove them"
            );
        }
        Ok(n_data + n_broken)
    }

    /// Moves those of the unknown blobs back that the index does know, as where the right index was put back.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`], [`StoreError::Full`].
    pub(crate) async fn take_known_in(&self) -> Result<(), StoreError> {
        let blobs = Arc::clone(self.blobs);
        let files = blocking(move || blobs.list_unknown()).await?;
        let mut n = 0;
        for page in files.chunks(LOOKED_UP) {
            let known = known(&mut *self.index.reader().await?, page).await?;
            let known: Vec<PackId> =
                page.iter().zip(known).filter(|(_, known)| *known).map(|(file, _)| file.0).collect();
            let blobs = Arc::clone(self.blobs);
            n += blocking(move || blobs.take_in(&known)).await?;
        }
        if n > 0 {
            tracing::warn!(
                blobs = n,
                "the index knows these blobs, which lay in the folder `unknown`: they were moved back"
            );
        }
        Ok(())
    }

    /// Packs that were deleted and whose files have gone, which need no tombstone any more.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`].
    pub(crate) async fn done_tombstones(&self) -> Result<Vec<PackId>, StoreError> {
        let packs = self.index.deleted_packs().await?;
        let blobs = Arc::clone(self.blobs);
        blocking(move || {
            let gone: Vec<PackId> = packs.into_iter().filter(|pack| blobs.is_gone(*pack)).collect();
            if !gone.is_empty() {
                // or a power failure could bring them back
                blobs.sync_names()?;
            }
            Ok(gone)
        })
        .await
    }
}

/// Reads the header of a pack whose file has the bytes that it speaks of.
fn read_whole(blobs: &LocalBlobs, pack: PackId, n_bytes: u64) -> Result<BlobHeader, StoreError> {
    let damaged = |what: String| Err(StoreError::damaged(format!("the file of pack {pack} {what}")));
    let header = header::read(&blobs.file(pack)?, pack)?;
    let end = header.data_start + header.tensors.iter().map(|(_, info)| info.data_offsets.1).max().unwrap_or(0);
    if header.front.pack != pack {
        return damaged(format!("has the header of pack {}", header.front.pack));
    }
    if end != n_bytes {
        return damaged(format!("has {n_bytes} bytes and should have {end}"));
    }
    if header.caches.is_empty() {
        return damaged("names no caches".to_owned());
    }
    Ok(header)
}
