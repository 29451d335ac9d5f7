//! Reading the tensors of a cache that was found some time ago: its rows may have moved since, or it may have been
//! deleted.

use std::{ops::Range, sync::Arc};

use crate::{
    blobs::LocalBlobs,
    blocking::blocking,
    error::StoreError,
    index::SqliteIndex,
    packs::stored_cache::{Checked, StoredCache},
};

/// Bytes of activations that are hashed before they are first served; more would make the first answer wait too long.
const CHECKED_BYTES: u64 = 16 << 20;

/// Makes sure, once in the life of a process, that the bytes of a cache are those that were stored, unless there are too many.
///
/// # Errors
/// [`StoreError::Damaged`] when they are not, or the blob is missing or short, [`StoreError::Gone`] when the cache was
/// deleted meanwhile, [`StoreError::Io`].
pub(crate) async fn check(
    index: &SqliteIndex,
    blobs: &Arc<LocalBlobs>,
    checked: &Checked,
    stored: &StoredCache,
) -> Result<(), StoreError> {
    let location = stored.location();
    if location.whole_bytes() > CHECKED_BYTES || checked.contains(location) {
        return Ok(());
    }
    let (own_blobs, own) = (Arc::clone(blobs), Arc::clone(location));
    let found = match blocking(move || own.hash(&own_blobs)).await {
        Ok(hash) if hash.to_hex().as_str() == stored.cache.content_hash => Ok(()),
        Ok(_) => Err(format!("the bytes of cache {} in pack {} have changed", stored.cache.id, location.pack())),
        Err(StoreError::Damaged { what }) => Err(what),
        Err(other) => return Err(other),
    };
    if let Err(what) = found {
        let there = index.stored(&blobs.enter(), stored.cache.tenant, &[stored.cache.id]).await?.pop().flatten();
        return Err(if there.is_some() { StoreError::damaged(what) } else { StoreError::Gone });
    }
    checked.insert(location);
    Ok(())
}

/// Reads several parts of a cache, each a hook's index and elements of its tensor, in one task.
///
/// # Errors
/// [`StoreError::Damaged`] when the blob is missing or short, [`StoreError::Gone`] when the cache was deleted
/// meanwhile, [`StoreError::Misuse`] for a hook or elements that the cache lacks, [`StoreError::Io`].
pub(crate) async fn read_many(
    index: &SqliteIndex,
    blobs: &Arc<LocalBlobs>,
    stored: &StoredCache,
    parts: &[(usize, Range<usize>)],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let failed = match stored.location().read(blobs, parts).await {
        Err(StoreError::Damaged { what }) => what,
        result => return result,
    };
    // A store of another process may have moved the rows since; the index says where they are.
    match index.stored(&blobs.enter(), stored.cache.tenant, &[stored.cache.id]).await?.pop().flatten() {
        None => {
            tracing::debug!(what = failed, "a cache was deleted while it was read");
            Err(StoreError::Gone)
        }
        Some(now) if now.location() != stored.location() => now.location().read(blobs, parts).await,
        Some(_) => Err(StoreError::damaged(failed)),
    }
}
