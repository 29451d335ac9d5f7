//! Removing extents that no cache uses, and packs that hold no extents.

use crate::{
    error::StoreError,
    index::{
        rows::{Fields, hex_list, pack_id, to_json},
        tx::Tx,
    },
};
use residuum_domain::PackId;

/// What was removed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dropped {
    /// Extents.
    pub(crate) n_extents: u64,
    /// Packs.
    pub(crate) n_packs: u64,
    /// Bytes of these packs.
    pub(crate) freed_bytes: u64,
}

/// Removes the extents among `extents` that no cache uses, then packs without extents, whose files go after the commit.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn drop_unused(tx: &mut Tx<'_>, extents: &[i64]) -> Result<Dropped, StoreError> {
    if extents.is_empty() {
        return Ok(Dropped::default());
    }
    let rows = sqlx::query(
        "DELETE FROM extents WHERE id IN (SELECT value FROM json_each(?)) \
           AND NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = extents.id) RETURNING pack_id",
    )
    .bind(to_json(extents)?)
    .fetch_all(tx.conn().await?)
    .await?;
    let mut packs =
        rows.iter().map(|r| pack_id(&Fields::of("extents", r), "pack_id")).collect::<Result<Vec<_>, _>>()?;
    packs.sort_unstable();
    packs.dedup();
    let mut report = drop_empty_packs(tx, &packs).await?;
    report.n_extents = rows.len() as u64;
    Ok(report)
}

/// Removes the packs among `packs` that hold no extents; their files go after the commit.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn drop_empty_packs(tx: &mut Tx<'_>, packs: &[PackId]) -> Result<Dropped, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM packs WHERE id IN (SELECT unhex(value) FROM json_each(?)) \
           AND NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = packs.id) RETURNING id, n_bytes",
    )
    .bind(hex_list(packs.iter().map(|p| p.as_bytes().as_slice())))
    .fetch_all(tx.conn().await?)
    .await?;
    let mut report = Dropped { n_packs: rows.len() as u64, ..Dropped::default() };
    for row in &rows {
        let f = Fields::of("packs", row);
        tx.unlink.push(pack_id(&f, "id")?);
        report.freed_bytes += f.uint::<u64>("n_bytes")?;
    }
    Ok(report)
}
