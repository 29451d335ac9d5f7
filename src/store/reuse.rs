//! Finding stored activations that answer an input, so that nothing is computed twice.

use super::{
    Store,
    error::StoreError,
    rows::{Fields, hex_list},
};
use crate::domain::{Capture, Dtype, Hook, Positions, TenantId};

/// An extent: the immutable rows of a pack that hold one input's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtentId(pub(super) i64);

/// What an input needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Identifies the forward pass.
    pub forward_key: [u8; 32],
    /// What the input captures.
    pub capture: Capture,
    /// Tokens of the input.
    pub n_tokens: usize,
}

impl Store {
    /// For each of `wanted` the newest extent of the tenant that answers it: the same forward key and dtype, the same
    /// rows once positions are resolved, and its hooks or more.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Damaged`].
    pub async fn find_reusable(
        &self,
        tenant: TenantId,
        wanted: &[Wanted],
    ) -> Result<Vec<Option<ExtentId>>, StoreError> {
        let mut found = vec![None; wanted.len()];
        if wanted.is_empty() {
            return Ok(found);
        }
        let mut snapshot = self.readers().begin().await?;
        let rows = sqlx::query(
            "SELECT j.key AS wanted, max(e.id) AS id, p.layout_id, p.dtype, e.positions, e.n_tokens \
             FROM json_each(?) j \
             CROSS JOIN extents e ON e.tenant_id = ? AND e.forward_key = unhex(j.value) \
             CROSS JOIN packs p ON p.id = e.pack_id \
             WHERE EXISTS (SELECT 1 FROM caches c WHERE c.extent_id = e.id AND (c.ends_at IS NULL OR c.ends_at > ?)) \
             GROUP BY j.key, p.layout_id, p.dtype, e.positions, e.n_tokens",
        )
        .bind(hex_list(wanted.iter().map(|w| w.forward_key.as_slice())))
        .bind(tenant.0)
        .bind(self.now())
        .fetch_all(&mut *snapshot)
        .await?;
        for row in &rows {
            let f = Fields::of("extents", row);
            let index: usize = f.uint("wanted")?;
            let Some(want) = wanted.get(index) else { continue };
            let layout = self.memo().layout(&mut snapshot, f.get("layout_id")?).await?;
            let dtype: Dtype = f.read("dtype", |d: &str| d.parse().ok())?;
            let covers = dtype == want.capture.dtype
                && f.uint::<usize>("n_tokens")? == want.n_tokens
                && same_rows(&f.json("positions")?, &want.capture.positions, want.n_tokens)
                && contains(&layout.hooks, &want.capture.hooks);
            let id = ExtentId(f.get("id")?);
            if covers && found[index].is_none_or(|known: ExtentId| known.0 < id.0) {
                found[index] = Some(id);
            }
        }
        Ok(found)
    }
}

/// Whether both mean the same rows: `last` is also `-1`, and the whole range is also `all`.
fn same_rows(a: &Positions, b: &Positions, n_tokens: usize) -> bool {
    a == b || matches!((a.resolve(n_tokens), b.resolve(n_tokens)), (Ok(a), Ok(b)) if a == b)
}

/// Whether `all` has every one of `some`; both are in execution order.
fn contains(all: &[Hook], some: &[Hook]) -> bool {
    let mut all = all.iter();
    some.iter().all(|hook| all.by_ref().any(|h| h == hook))
}
