//! What the caches that a filter finds have in common, counted in the index without reading them one by one.

use std::sync::Arc;

use sqlx::QueryBuilder;

use crate::{
    error::StoreError,
    find::{described::JOINED, search::Search},
    index::{SqliteIndex, rows::Fields},
};
use residuum_domain::{CacheFilter, Dtype, Hook, Positions, TenantId};

/// Caches that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Kind {
    /// What they captured, in execution order.
    pub hooks: Arc<[Hook]>,
    /// Shape of one position's row of each hook.
    pub row_shapes: Vec<Vec<usize>>,
    /// Stored type.
    pub dtype: Dtype,
    /// Positions they captured.
    pub positions: Positions,
    /// Tokens of the input.
    pub n_tokens: usize,
    /// Blocks of the model.
    pub n_layers: usize,
    /// How many there are.
    pub n_caches: u64,
}

impl SqliteIndex {
    /// The kinds of caches of a tenant that a filter finds.
    pub(crate) async fn survey(&self, tenant: TenantId, filter: &CacheFilter) -> Result<Vec<Kind>, StoreError> {
        let mut query = QueryBuilder::new(
            "SELECT c.hook_set_id, p.layout_id, p.dtype, e.provenance_id, c.positions, e.n_tokens, count(*) AS n_caches",
        );
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let search = Search::new(&mut snapshot, tenant, filter, None, self.now()).await?;
        search.push_found(&mut query, &format!(" CROSS JOIN caches c ON c.created_at = d.at{JOINED}"));
        query.push(" GROUP BY c.hook_set_id, p.layout_id, p.dtype, e.provenance_id, c.positions, e.n_tokens");
        let rows = query.build().persistent(false).fetch_all(&mut *snapshot).await?;
        let mut kinds = Vec::with_capacity(rows.len());
        for row in &rows {
            let f = Fields::of("caches", row);
            let hooks = self.memo().hooks(&mut snapshot, f.get("hook_set_id")?).await?;
            let layout = self.memo().layout(&mut snapshot, f.get("layout_id")?).await?;
            let origin = self.memo().origin(&mut snapshot, f.get("provenance_id")?).await?;
            let lacking = |_| StoreError::damaged("a pack lacks a hook of a cache of it");
            let shape = |hook| layout.hooks.binary_search(hook).map(|i| layout.row_shapes[i].clone()).map_err(lacking);
            kinds.push(Kind {
                row_shapes: hooks.iter().map(shape).collect::<Result<_, _>>()?,
                hooks,
                dtype: f.read("dtype", |d: &str| d.parse().ok())?,
                positions: f.json("positions")?,
                n_tokens: f.uint("n_tokens")?,
                n_layers: origin.n_layers,
                n_caches: f.uint("n_caches")?,
            });
        }
        Ok(kinds)
    }
}
