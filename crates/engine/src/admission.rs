//! Decides whether the queue has room for a run: bounds on items and bytes, for each client and in total.

use std::sync::Arc;

use super::{Engine, Inner, queue::Load};
use residuum_domain::{Code, Problem, TenantId};

/// Reserved room in the queue, released once the run is queued.
pub(super) struct Admission {
    inner: Arc<Inner>,
    tenant: TenantId,
    load: Load,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.inner.admitted().sub(self.tenant, self.load);
    }
}

impl Engine {
    /// Reserves room in the queue for a run.
    pub(super) fn admit(&self, tenant: TenantId, item_bytes: &[u64]) -> Result<Admission, Problem> {
        let limits = &self.inner.limits;
        let load = Load { items: item_bytes.len(), bytes: item_bytes.iter().sum() };
        // The lock is held until the room is reserved: two concurrent runs must not both get the last place.
        let mut admitted = self.inner.admitted();
        let (mut own, mut all) = self.inner.waiting(tenant);
        own += admitted.of(tenant);
        all += admitted.total();
        let client = (Code::ClientQueueFull, "client", own, limits.max_client_items, limits.max_client_bytes);
        let total = (Code::QueueFull, "total", all, limits.max_queued_items, limits.max_queued_bytes);
        for (code, bound, waiting, items, bytes) in [client, total] {
            // An empty queue takes any run that its own limits allow.
            let fits = waiting.items == 0
                || (waiting.items + load.items <= items && waiting.bytes.saturating_add(load.bytes) <= bytes);
            if !fits {
                metrics::counter!("residuum_queue_refused_total", "bound" => bound).increment(1);
                let whose = if bound == "client" { "yours" } else { "all clients'" };
                let detail = format!(
                    "{} items with {} bytes to capture are waiting, {whose} together, and the run has {} with {}; at \
                     most {items} items with {bytes} bytes may wait. Try again later",
                    waiting.items, waiting.bytes, load.items, load.bytes
                );
                return Err(Problem::new(code, detail).retry_after(self.seconds_to_room(waiting.items)));
            }
        }
        admitted.add(tenant, load);
        Ok(Admission { inner: Arc::clone(&self.inner), tenant, load })
    }

    /// Estimates the seconds until half of the queue is done.
    fn seconds_to_room(&self, items_waiting: usize) -> u32 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped"
        )]
        let guess = (items_waiting as f64 * 16.0 / self.inner.speed.get().max(1.0)) as u32;
        guess.clamp(1, 60)
    }
}
