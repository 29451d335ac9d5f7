//! Means over stored positions.

use std::sync::Arc;

use super::blocking;
use residuum_domain::{Problem, Selection};
use residuum_store::{Store, StoreError, StoredCache};

/// The means that selections ask for, accumulated in float64. Reads on a blocking thread.
///
/// # Errors
/// Those of the store.
pub async fn read_means(
    store: &Store,
    caches: &[Arc<StoredCache>],
    selected: &[Selection],
) -> Result<Vec<Option<Vec<f32>>>, Problem> {
    if selected.iter().all(|s| s.mean_of.is_none()) {
        return Ok(vec![None; selected.len()]);
    }
    let (store, caches, selected) = (store.clone(), caches.to_vec(), selected.to_vec());
    blocking(move || {
        caches
            .iter()
            .zip(&selected)
            .map(|(cache, s)| s.mean_of.map(|n| mean(&store, cache, s, n)).transpose())
            .collect()
    })
    .await
}

/// The mean over `n` rows that a selection asks for, accumulated in float64. Blocks.
///
/// # Errors
/// Those of the store.
pub fn mean(store: &Store, cache: &StoredCache, selection: &Selection, n: usize) -> Result<Vec<f32>, StoreError> {
    let width = selection.n_served();
    let mut sums = vec![0f64; width];
    for bytes in cache.read_many_blocking(store, &selection.reads())? {
        let values = cache.cache.capture.dtype.decode(&bytes);
        values.iter().enumerate().for_each(|(i, v)| sums[i % width] += f64::from(*v));
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a mean of float32 values is one")]
    let means = sums.iter().map(|s| (s / n as f64) as f32).collect();
    Ok(means)
}
