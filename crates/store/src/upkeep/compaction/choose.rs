//! Choosing the packs that are worth rewriting.

use std::collections::HashMap;

use super::Compaction;
use crate::{
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{Fields, int, pack_id},
    },
};
use residuum_domain::PackId;

/// Packs looked at for one merge.
const LOOKED_AT: i64 = 4096;

impl SqliteIndex {
    /// Packs that are worth a merge, if any are; none that is `left_alone`.
    pub(super) async fn small_packs(
        &self,
        when: &Compaction,
        left_alone: impl Fn(&PackId) -> bool,
    ) -> Result<Option<Vec<PackId>>, StoreError> {
        let small = int(when.target_bytes / 2)?;
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let kinds = sqlx::query(
            "SELECT tenant_id, layout_id, dtype FROM packs WHERE n_bytes < ? GROUP BY tenant_id, layout_id, dtype \
             HAVING count(*) >= ? ORDER BY count(*) DESC",
        )
        .bind(small)
        .bind(int(when.fan_in)?)
        .fetch_all(&mut *snapshot)
        .await?;
        for kind in &kinds {
            let f = Fields::of("packs", kind);
            let rows = sqlx::query(
                "SELECT id, n_bytes, (SELECT provenance_id FROM extents e WHERE e.pack_id = p.id LIMIT 1) AS provenance_id \
                 FROM packs p WHERE tenant_id = ? AND layout_id = ? AND dtype = ? AND n_bytes < ? \
                 ORDER BY n_bytes LIMIT +?",
            )
            .bind(f.get::<i64>("tenant_id")?)
            .bind(f.get::<i64>("layout_id")?)
            .bind(f.get::<&str>("dtype")?)
            .bind(small)
            .bind(LOOKED_AT)
            .fetch_all(&mut *snapshot)
            .await?;
            let mut packs = Vec::with_capacity(rows.len());
            for row in &rows {
                let f = Fields::of("packs", row);
                packs.push(Candidate {
                    id: pack_id(&f, "id")?,
                    n_bytes: f.uint("n_bytes")?,
                    provenance: f.get("provenance_id")?,
                });
            }
            packs.retain(|p| !left_alone(&p.id));
            if let Some(chosen) = choose(&packs, when) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// Packs of which less than half is alive.
    pub(super) async fn mostly_dead(&self) -> Result<Vec<PackId>, StoreError> {
        let query = sqlx::query(
            "SELECT p.id FROM packs p CROSS JOIN (SELECT pack_id, sum(n_rows) AS n_rows, sum(n_rows * n_tokens) AS n_map \
                 FROM extents GROUP BY pack_id) e ON e.pack_id = p.id \
             WHERE e.n_rows * 2 <= p.n_rows OR e.n_map * 2 <= p.n_map",
        );
        let rows = self.rows(query).await?;
        rows.iter().map(|row| pack_id(&Fields::of("packs", row), "id")).collect()
    }
}

/// A small pack.
struct Candidate {
    id: PackId,
    n_bytes: u64,
    /// `None`: nothing lies in it.
    provenance: Option<i64>,
}

/// The first class with enough packs: the smallest of it, as many as fit one.
fn choose(packs: &[Candidate], when: &Compaction) -> Option<Vec<PackId>> {
    let mut classes: HashMap<(i64, u32), (u64, Vec<PackId>)> = HashMap::new();
    let mut order = Vec::new();
    for pack in packs {
        // three bits: a factor of eight
        let size = if when.by_size { pack.n_bytes.max(1).ilog2() / 3 } else { 0 };
        let Some(provenance) = pack.provenance else { continue };
        let key = (provenance, size);
        let (n_bytes, chosen) = classes.entry(key).or_insert_with(|| {
            order.push(key);
            (0, Vec::new())
        });
        if *n_bytes + pack.n_bytes <= when.target_bytes {
            *n_bytes += pack.n_bytes;
            chosen.push(pack.id);
        }
    }
    let enough = |key: &(i64, u32)| classes.get(key).is_some_and(|(_, packs)| packs.len() >= when.fan_in.max(2));
    let key = order.into_iter().find(enough)?;
    classes.remove(&key).map(|(_, packs)| packs)
}
