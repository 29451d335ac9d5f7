//! The positions of some tokens in the caches that a filter finds. Rows of a scan carry positions, but not tokens.

use futures::TryStreamExt as _;
use sqlx::QueryBuilder;

use crate::{
    error::StoreError,
    find::search::Search,
    index::{SqliteIndex, rows::Fields},
};
use residuum_domain::{CacheFilter, CacheId, TenantId, import::UNKNOWN_TOKEN};

/// Positions of some tokens in caches.
#[derive(Debug, Default)]
pub struct TokenPlaces {
    /// Sorted.
    places: Vec<(CacheId, u32)>,
    n_unknown: u64,
}

impl TokenPlaces {
    /// Whether one of the tokens stands there.
    #[must_use]
    pub fn contains(&self, cache: CacheId, position: u32) -> bool {
        self.places.binary_search(&(cache, position)).is_ok()
    }

    /// Caches that do not know their token ids.
    #[must_use]
    pub fn n_unknown(&self) -> u64 {
        self.n_unknown
    }
}

impl SqliteIndex {
    /// Where the tokens that are `wanted` stand in the caches of a tenant that `filter` finds. Takes 24 bytes for each such
    /// position, whatever the number of tokens.
    pub(crate) async fn token_places(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        wanted: impl Fn(u32) -> bool + Send,
    ) -> Result<TokenPlaces, StoreError> {
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let search = Search::new(&mut snapshot, tenant, filter, None, self.now()).await?;
        let mut query = QueryBuilder::new("SELECT c.id, c.token_ids");
        search.push_found(&mut query, " CROSS JOIN caches c ON c.created_at = d.at");
        let mut found = TokenPlaces::default();
        {
            let mut rows = query.build().persistent(false).fetch(&mut *snapshot);
            while let Some(row) = rows.try_next().await? {
                let f = Fields::of("caches", &row);
                let cache: CacheId = f.read("id", |id: &[u8]| CacheId::from_slice(id))?;
                found.add(cache, f.get("token_ids")?, &wanted);
            }
        }
        drop(snapshot);
        reader.done();
        found.places.sort_unstable();
        Ok(found)
    }
}

impl TokenPlaces {
    /// Looks at the tokens of one cache, u32 in little-endian.
    fn add(&mut self, cache: CacheId, token_ids: &[u8], wanted: impl Fn(u32) -> bool) {
        let ids = token_ids.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let mut positions = 0u32..;
        for (id, position) in ids.zip(&mut positions) {
            if id == UNKNOWN_TOKEN {
                self.n_unknown += 1;
                return;
            }
            if wanted(id) {
                self.places.push((cache, position));
            }
        }
    }
}
