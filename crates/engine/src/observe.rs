//! Sets the engine's gauges when metrics are requested. Counters are incremented where things happen.

use super::Engine;
use residuum_domain::Priority;

impl Engine {
    /// Sets the gauges of queue, workers and store.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    pub async fn observe(&self) {
        let inner = &self.inner;
        for (priority, depth) in Priority::ALL.into_iter().zip(inner.depths()) {
            let age = depth.oldest.and_then(|run| run.made_at().elapsed().ok()).unwrap_or_default();
            metrics::gauge!("residuum_queue_items", "priority" => priority.name()).set(depth.items as f64);
            metrics::gauge!("residuum_queue_oldest_seconds", "priority" => priority.name()).set(age.as_secs_f64());
        }
        let (queue, to_continue) = (inner.queue().loads().total(), inner.to_continue().loads().total());
        let followers = inner.dedup().loads().total();
        metrics::gauge!("residuum_queue_bytes").set((queue.bytes + to_continue.bytes + followers.bytes) as f64);
        metrics::gauge!("residuum_queue_followers").set(followers.items as f64);
        let in_flight: usize = inner.in_flight().values().map(|batch| batch.units.len()).sum();
        metrics::gauge!("residuum_in_flight_items").set(in_flight as f64);
        let [running, waiting] = self.experiments();
        metrics::gauge!("residuum_experiments_running").set(running as f64);
        metrics::gauge!("residuum_experiments_waiting").set(waiting as f64);
        metrics::gauge!("residuum_tokens_per_second").set(inner.speed.get());
        metrics::gauge!("residuum_ready").set(if self.is_ready() { 1.0 } else { 0.0 });
        if let Ok(stats) = inner.store.stats().await {
            metrics::gauge!("residuum_store_runs").set(stats.n_runs as f64);
            metrics::gauge!("residuum_store_pending_items").set(stats.n_pending_items as f64);
            metrics::gauge!("residuum_store_caches").set(stats.n_caches as f64);
            metrics::gauge!("residuum_store_extents").set(stats.n_extents as f64);
            metrics::gauge!("residuum_store_packs").set(stats.n_packs as f64);
            metrics::gauge!("residuum_store_blob_bytes").set(stats.blob_bytes as f64);
        }
        metrics::gauge!("residuum_store_unknown_blobs").set(inner.store.n_unknown_blobs() as f64);
        metrics::gauge!("residuum_store_disk_bytes").set(inner.store.bytes_on_disk() as f64);
        let most = inner.store.quota().map_or(f64::INFINITY, |quota| quota.max_bytes as f64);
        metrics::gauge!("residuum_store_max_bytes").set(most);
    }
}
