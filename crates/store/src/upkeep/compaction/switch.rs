//! The transaction that points the index at a new pack.

use crate::{
    blobs::InFlight,
    error::StoreError,
    fault,
    index::{
        rows::{Fields, hex, hex_list, int, now, pack_id, to_json},
        tx::Tx,
        write::Write,
    },
    packs::location::PackDims,
};
use residuum_domain::{Dtype, PackId, TenantId};

/// Points the index at a new pack.
pub(crate) struct Move {
    /// `None`: nothing is alive in the old ones.
    pub(crate) new: Option<NewPack>,
    pub(crate) old: Vec<PackId>,
    /// Extent, its old pack, and its first row and map cell in the new one.
    pub(crate) moves: Vec<(i64, PackId, usize, usize)>,
}

/// Notes that a pack is being made of others.
pub(crate) struct Copying(pub(crate) PackId);

impl Write for Copying {
    type Output = ();

    // without it a file is kept that could go
    const DURABLE: bool = false;
    const CHANGES: bool = false;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later("INSERT OR REPLACE INTO tombstones (id, kind) VALUES (?, 'copy')").bind(self.0.as_bytes().as_slice());
        Ok(())
    }
}

/// A pack whose file is durable.
pub(crate) struct NewPack {
    pub(crate) in_flight: InFlight,
    pub(crate) tenant: TenantId,
    pub(crate) layout_id: i64,
    pub(crate) dtype: Dtype,
    pub(crate) data_start: u64,
    pub(crate) dims: PackDims,
    pub(crate) n_bytes: u64,
}

/// What a [`Move`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moved {
    /// Packs that are no longer there.
    pub(crate) n_old: u64,
    /// Their bytes.
    pub(crate) old_bytes: u64,
    /// Packs that are new.
    pub(crate) n_new: u64,
    /// Their bytes.
    pub(crate) new_bytes: u64,
    /// Extents that moved.
    pub(crate) n_extents: u64,
}

impl Write for Move {
    type Output = Moved;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Moved, StoreError> {
        let mut moved = Moved::default();
        if let Some(new) = &self.new {
            new.insert(tx)?;
            let id = new.in_flight.pack;
            tx.later("DELETE FROM tombstones WHERE id = ?").bind(id.as_bytes().as_slice());
            // what was deleted meanwhile stays deleted: its rows are dead in the new pack
            moved.n_extents = self.extents(tx, new.in_flight.pack).await?;
            if moved.n_extents > 0 {
                (moved.n_new, moved.new_bytes) = (1, new.n_bytes);
            } else {
                tx.later("DELETE FROM packs WHERE id = ?").bind(id.as_bytes().as_slice());
                tx.unlink.push(id);
            }
        }
        let retired = self.forget_old(tx).await?;
        moved.n_old = retired.len() as u64;
        moved.old_bytes = retired.iter().map(|(_, n_bytes)| n_bytes).sum();
        tx.retire.extend(retired);
        tx.faults.hit(fault::MOVED)?;
        Ok(moved)
    }
}

impl Move {
    async fn extents(&self, tx: &mut Tx<'_>, new: PackId) -> Result<u64, StoreError> {
        let moves: Vec<(i64, String, usize, usize)> =
            self.moves.iter().map(|(id, old, row, map)| (*id, hex(old.as_bytes()), *row, *map)).collect();
        let done = sqlx::query(
            "UPDATE extents SET pack_id = ?, row_start = j.value ->> 2, map_start = j.value ->> 3 FROM json_each(?) j \
             WHERE extents.id = j.value ->> 0 AND extents.pack_id = unhex(j.value ->> 1)",
        )
        .bind(new.as_bytes().as_slice())
        .bind(to_json(&moves)?)
        .execute(tx.conn().await?)
        .await?;
        Ok(done.rows_affected())
    }

    /// Removes the old packs with what nobody uses in them, and gives their ids and bytes. A pack in which something is left,
    /// such as a row that a repair leaves out, stays.
    async fn forget_old(&self, tx: &mut Tx<'_>) -> Result<Vec<(PackId, u64)>, StoreError> {
        let old = hex_list(self.old.iter().map(|p| p.as_bytes().as_slice()));
        tx.later(
            "DELETE FROM extents WHERE pack_id IN (SELECT unhex(value) FROM json_each(?)) \
               AND NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = extents.id)",
        )
        .bind(&old);
        tx.later(
            "DELETE FROM packs WHERE id IN (SELECT unhex(value) FROM json_each(?)) \
               AND NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = packs.id) RETURNING id, n_bytes",
        )
        .bind(&old);
        let rows = tx.rows().await?;
        rows.iter()
            .map(|row| {
                let f = Fields::of("packs", row);
                Ok((pack_id(&f, "id")?, f.uint("n_bytes")?))
            })
            .collect()
    }
}

impl NewPack {
    fn insert(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later(
            "INSERT INTO packs (id, tenant_id, layout_id, dtype, data_start, n_rows, n_map, n_bytes, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.in_flight.pack.as_bytes().as_slice())
        .bind(self.tenant.0)
        .bind(self.layout_id)
        .bind(self.dtype.name())
        .bind(int(self.data_start)?)
        .bind(int(self.dims.n_rows)?)
        .bind(int(self.dims.n_map)?)
        .bind(int(self.n_bytes)?)
        .bind(now());
        Ok(())
    }
}
