//! Repair: dropping what cannot be right and keeping the rest. Damaged files are moved aside, never removed.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::Serialize;

use crate::{
    blobs::LocalBlobs,
    blocking::blocking,
    checks::verify::{PackFaults, Verifier, integrity_check},
    error::StoreError,
    index::{
        SqliteIndex,
        rows::{hex_list, to_json},
        tx::Tx,
        write::Write,
    },
    packs::unused::drop_unused,
    upkeep::{
        Upkeep,
        compaction::{rewrite::Rewritten, throttle::Throttle},
    },
};
use residuum_domain::{CacheId, PackId};

/// What [`crate::Store::repair`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RepairReport {
    /// Caches that were dropped.
    pub n_caches: u64,
    /// Packs that were written anew without what was damaged in them.
    pub n_rewritten: u64,
    /// Packs that were dropped.
    pub n_packs: u64,
    /// Files that were moved to the folder `damaged`.
    pub n_set_aside: u64,
    /// Everything that was done, in order.
    pub actions: Vec<String>,
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "repair: {action}")?;
        }
        let Self { n_caches, n_rewritten, n_packs, n_set_aside, .. } = self;
        write!(
            f,
            "dropped {n_caches} caches and {n_packs} packs, wrote {n_rewritten} packs anew, set {n_set_aside} files aside"
        )
    }
}

/// Rows that refer to what is not there, or contradict it, and the statement that removes them; what others refer to comes
/// after the others. Statements that drop caches come first.
const UNFOUNDED: [(&str, &str); 15] = [
    (
        "caches without run, activations or hooks",
        "DELETE FROM caches WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = run_id AND r.tenant_id = caches.tenant_id) \
           OR NOT EXISTS (SELECT 1 FROM hook_sets s WHERE s.id = hook_set_id) \
           OR NOT EXISTS (SELECT 1 FROM extents e JOIN packs p ON p.id = e.pack_id JOIN layouts l ON l.id = p.layout_id \
                  JOIN hook_sets s ON s.id = l.hook_set_id JOIN provenances v ON v.id = e.provenance_id \
              WHERE e.id = extent_id AND e.tenant_id = caches.tenant_id AND p.tenant_id = e.tenant_id \
                AND e.row_start + e.n_rows <= p.n_rows AND e.map_start + e.n_rows * e.n_tokens <= p.n_map)",
    ),
    (
        "caches missing from the index of terms, which were entered",
        "INSERT OR IGNORE INTO cache_terms_missing (created_at) SELECT created_at FROM caches \
           WHERE NOT EXISTS (SELECT 1 FROM cache_terms_docsize d WHERE d.id = created_at)",
    ),
    (
        "terms of caches that are not there",
        "DELETE FROM cache_terms WHERE rowid IN \
             (SELECT id FROM cache_terms_docsize d WHERE NOT EXISTS (SELECT 1 FROM caches c WHERE c.created_at = d.id))",
    ),
    (
        "tags of runs that are not there",
        "DELETE FROM run_tags WHERE NOT EXISTS \
             (SELECT 1 FROM runs r WHERE r.id = run_id AND r.tenant_id = run_tags.tenant_id)",
    ),
    (
        "inputs of runs that are not there",
        "DELETE FROM run_items WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = run_id)",
    ),
    (
        "vectors of directions that are not there, or of another length than they say",
        "DELETE FROM direction_vectors WHERE NOT EXISTS \
             (SELECT 1 FROM directions d WHERE d.id = direction_id AND 4 * d.d = length(vector))",
    ),
    (
        "activations that no cache uses",
        "DELETE FROM extents WHERE NOT EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = extents.id)",
    ),
    (
        "forward keys of activations that are not there, or have others",
        "DELETE FROM forward_keys WHERE NOT EXISTS \
             (SELECT 1 FROM extents e WHERE e.id = extent_id AND substr(e.forward_key, 1, 6) = prefix)",
    ),
    (
        "new forward keys of activations that are not there, or have others",
        "DELETE FROM forward_keys_new WHERE NOT EXISTS \
             (SELECT 1 FROM extents e WHERE e.id = extent_id AND substr(e.forward_key, 1, 6) = prefix)",
    ),
    (
        "activations missing from the index of forward keys, which were entered",
        "INSERT INTO forward_keys_new (prefix, extent_id) SELECT substr(forward_key, 1, 6), id FROM extents e \
           WHERE forward_key IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM forward_keys k WHERE k.prefix = substr(forward_key, 1, 6) AND k.extent_id = e.id) \
             AND NOT EXISTS \
                 (SELECT 1 FROM forward_keys_new k WHERE k.prefix = substr(forward_key, 1, 6) AND k.extent_id = e.id)",
    ),
    (
        "packs that hold nothing",
        "DELETE FROM packs WHERE NOT EXISTS (SELECT 1 FROM extents e WHERE e.pack_id = packs.id)",
    ),
    (
        "layouts without hooks",
        "DELETE FROM layouts WHERE NOT EXISTS (SELECT 1 FROM hook_sets s WHERE s.id = hook_set_id)",
    ),
    (
        "hooks of sets that are not there",
        "DELETE FROM hook_set_hooks WHERE NOT EXISTS (SELECT 1 FROM hook_sets s WHERE s.id = hook_set_id \
           AND EXISTS (SELECT 1 FROM json_each(s.hooks) j WHERE j.value = hook))",
    ),
    (
        "hooks missing from the index of their sets, which were added",
        "INSERT OR IGNORE INTO hook_set_hooks (hook_set_id, hook) SELECT s.id, j.value FROM hook_sets s, json_each(s.hooks) j \
           WHERE NOT EXISTS (SELECT 1 FROM hook_set_hooks h WHERE h.hook_set_id = s.id AND h.hook = j.value)",
    ),
    (
        "inputs of ended runs that were still to do, which are cancelled",
        "UPDATE run_items SET status = 'cancelled', payload = NULL, hook_set_id = NULL WHERE status = 'pending' AND EXISTS \
             (SELECT 1 FROM runs r WHERE r.id = run_id AND r.finished_at IS NOT NULL)",
    ),
];

/// Repairs a store.
#[derive(Clone, Copy)]
pub(crate) struct Repair<'a> {
    verifier: Verifier<'a>,
    upkeep: Upkeep<'a>,
}

impl<'a> Repair<'a> {
    pub(crate) fn new(verifier: Verifier<'a>, upkeep: Upkeep<'a>) -> Self {
        Self { verifier, upkeep }
    }

    fn index(&self) -> &'a SqliteIndex {
        self.verifier.index
    }

    fn blobs(&self) -> &'a Arc<LocalBlobs> {
        self.verifier.blobs
    }

    /// Drops rows that refer to nothing, caches that make no sense, and activations whose bytes are not what they were, with
    /// their caches. Packs of which something is sound are written anew. The files of damaged packs, and files that are no
    /// packs, are moved to the folder `damaged`. For a store that serves nobody.
    pub(crate) async fn run(&self) -> Result<RepairReport, StoreError> {
        let wrong = integrity_check(&mut *self.index().reader().await?.snapshot().await?).await?;
        if let Some(line) = wrong.into_iter().next() {
            return Err(StoreError::IndexDamaged(line));
        }
        let mut report = RepairReport::default();
        for (what, n) in self.index().write(DropUnfounded).await? {
            report.actions.push(format!("removed {n} rows: {what}"));
        }
        self.drop_unreadable(&mut report).await?;
        self.index().enter_missing_terms().await?;
        let mut last = None;
        loop {
            let page = self.index().packs_after(last).await?;
            let Some(end) = page.last() else { break };
            last = Some(end.id);
            for pack in page {
                let id = pack.id;
                let faults = self.verifier.pack_faults(pack).await?;
                if !faults.is_empty() {
                    self.mend_pack(id, &faults, &mut report).await?;
                }
            }
        }
        let blobs = Arc::clone(self.blobs());
        for path in blocking(move || blobs.strays()).await? {
            let (blobs, own) = (Arc::clone(self.blobs()), path.clone());
            if let Some(target) = blocking(move || blobs.set_aside(&own)).await? {
                report.aside(format!("{} is no blob of this store: moved to {}", path.display(), target.display()));
            }
        }
        // files of packs whose rows are gone by now
        self.upkeep.collector.collect(true).await?;
        Ok(report)
    }

    /// Drops caches whose rows cannot be read.
    async fn drop_unreadable(&self, report: &mut RepairReport) -> Result<(), StoreError> {
        let unreadable = self.verifier.unreadable_caches(&mut 0).await?;
        let ids: BTreeSet<CacheId> = unreadable.iter().map(|(id, _)| *id).collect();
        report.actions.extend(unreadable.iter().map(|(id, why)| format!("dropped cache {id}: {why}")));
        report.n_caches += self.index().write(DropCaches(ids.into_iter().collect())).await?;
        Ok(())
    }

    /// Drops what is damaged in a pack, and writes the rest of it anew.
    async fn mend_pack(&self, id: PackId, faults: &PackFaults, report: &mut RepairReport) -> Result<(), StoreError> {
        let blobs = Arc::clone(self.blobs());
        // a second name: the first goes with the pack's row
        let aside = blocking(move || blobs.keep_aside(id)).await?;
        let (n_caches, n_extents) = self.index().write(DropExtents(faults.lost.clone())).await?;
        report.n_caches += n_caches;
        let rewritten = match self.index().rewrite(self.blobs().enter(), &[id], &faults.lost).await? {
            Some(rewrite) => {
                match self.upkeep.compactor.write_anew(rewrite, Throttle::new(None, Arc::default())).await? {
                    Rewritten::Pack(change) | Rewritten::Nothing(change) => {
                        self.upkeep.compactor.switch_to(*change).await?.n_new > 0
                    }
                    Rewritten::Damaged(_, what) => return Err(StoreError::damaged(what)),
                    Rewritten::Deleted => return Err(StoreError::Gone),
                }
            }
            None => false,
        };
        let fate = if rewritten { "the rest was written anew" } else { "nothing of it is left" };
        if rewritten {
            report.n_rewritten += 1;
        } else {
            report.n_packs += 1;
        }
        let why = faults.issues.join("; ");
        let place = aside.map_or("it had no file".to_owned(), |path| {
            report.n_set_aside += 1;
            format!("the damaged file is {}", path.display())
        });
        report
            .actions
            .push(format!("pack {id} ({why}): dropped {n_extents} extents with {n_caches} caches, {fate}; {place}"));
        Ok(())
    }
}

impl RepairReport {
    fn aside(&mut self, action: String) {
        self.n_set_aside += 1;
        self.actions.push(action);
    }
}

struct DropUnfounded;

impl Write for DropUnfounded {
    type Output = Vec<(&'static str, u64)>;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        // rows may refer to each other in any order until all are seen to
        sqlx::query("PRAGMA defer_foreign_keys = ON").execute(tx.conn().await?).await?;
        let mut removed = Vec::new();
        for (what, statement) in UNFOUNDED {
            let n = sqlx::query(statement).execute(tx.conn().await?).await?.rows_affected();
            if n > 0 {
                removed.push((what, n));
            }
        }
        tx.ids.forget();
        Ok(removed)
    }
}

struct DropCaches(Vec<CacheId>);

impl Write for DropCaches {
    type Output = u64;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let extents: Vec<i64> = sqlx::query_scalar(
            "DELETE FROM caches WHERE id IN (SELECT unhex(value) FROM json_each(?)) RETURNING extent_id",
        )
        .bind(hex_list(self.0.iter().map(|id| id.as_bytes().as_slice())))
        .fetch_all(tx.conn().await?)
        .await?;
        drop_unused(tx, &extents).await?;
        Ok(extents.len() as u64)
    }
}

/// Drops extents with their caches, and their pack where nothing else is in it.
struct DropExtents(Vec<i64>);

impl Write for DropExtents {
    /// Caches and extents.
    type Output = (u64, u64);

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(u64, u64), StoreError> {
        let caches = sqlx::query("DELETE FROM caches WHERE extent_id IN (SELECT value FROM json_each(?))")
            .bind(to_json(&self.0)?)
            .execute(tx.conn().await?)
            .await?;
        let dropped = drop_unused(tx, &self.0).await?;
        Ok((caches.rows_affected(), dropped.n_extents))
    }
}
