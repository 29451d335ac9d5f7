//! The forward key: a hash of everything that decides the numbers of a forward pass; and the receipt, which states it
//! readably.

use residuum_domain::{Edits, NewItem, Provenance, TenantId, intervention};
use residuum_model::Model;

/// The key under which activations may be reused. Equal keys mean equal numbers; on the CPU, bit for bit. The tenant is
/// part of the key, so tenants never share activations.
#[must_use]
pub fn forward_key(tenant: TenantId, model: &Model, item: &NewItem, edits: Option<&Edits>) -> [u8; 32] {
    let info = model.info();
    let origin = Origin {
        fingerprint: &info.fingerprint,
        compute_dtype: &info.compute_dtype,
        device_class: device_class(&info.device),
        numerics: model.numerics_version(),
    };
    origin.key(tenant, item, edits)
}

/// The properties of a model and its device that decide its numbers.
#[derive(Clone, Copy)]
struct Origin<'a> {
    fingerprint: &'a str,
    compute_dtype: &'a str,
    device_class: &'a str,
    numerics: u32,
}

impl Origin<'_> {
    fn key(&self, tenant: TenantId, item: &NewItem, edits: Option<&Edits>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for part in [self.fingerprint, self.compute_dtype, self.device_class] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&tenant.0.to_le_bytes());
        hasher.update(&self.numerics.to_le_bytes());
        item.token_ids.iter().for_each(|id| {
            hasher.update(&id.to_le_bytes());
        });
        if let Some(edits) = edits.filter(|_| !item.interventions.is_empty()) {
            // the 2: other keys than those of 0.1.0, where a changed attention map moved the last bits of all its rows
            hasher.update(b"interventions 2").update(&intervention::key(edits, &item.interventions));
        }
        *hasher.finalize().as_bytes()
    }
}

/// The receipt of activations that this model computes now.
#[must_use]
pub fn provenance(model: &Model) -> Provenance {
    let info = model.info();
    Provenance {
        model_fingerprint: info.fingerprint.clone(),
        architecture: info.architecture.clone(),
        weights_dtype: info.weights_dtype.clone(),
        compute_dtype: info.compute_dtype.clone(),
        device: info.device.clone(),
        residuum_version: env!("CARGO_PKG_VERSION").to_owned(),
        numerics_version: model.numerics_version(),
    }
}

/// The device without its number: `cuda:1` computes the same as `cuda:0`.
fn device_class(device: &str) -> &str {
    device.split([':', ',']).next().unwrap_or(device)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use super::*;
    use residuum_domain::{BosDecision, Capture, Dtype, Positions};

    fn item(token_ids: &[u32]) -> NewItem {
        NewItem {
            token_ids: token_ids.to_vec(),
            tokens: Vec::new(),
            text: None,
            capture: Capture { hooks: Arc::new([]), positions: Positions::Last, dtype: Dtype::Float32 },
            bos: BosDecision { requested: None, present: false, added: false, token_id: None },
            n_truncated: 0,
            tags: Vec::new(),
            metadata: serde_json::Map::new(),
            label: None,
            generation: None,
            unsettled: None,
            completion: None,
            origin: None,
            interventions: Vec::new(),
        }
    }

    /// Activations of another version, model, type, device or tenant have another key.
    #[test]
    fn the_key_covers_everything_that_decides_the_numbers_and_the_tenant() {
        let base = Origin { fingerprint: "f", compute_dtype: "float32", device_class: "cpu", numerics: 1 };
        let (own, ids) = (TenantId(1), [1, 2, 3]);
        let keys = [
            base.key(own, &item(&ids), None),
            Origin { numerics: 2, ..base }.key(own, &item(&ids), None),
            Origin { fingerprint: "g", ..base }.key(own, &item(&ids), None),
            Origin { compute_dtype: "bfloat16", ..base }.key(own, &item(&ids), None),
            Origin { device_class: "cuda", ..base }.key(own, &item(&ids), None),
            base.key(TenantId(2), &item(&ids), None),
            base.key(own, &item(&[1, 2]), None),
            base.key(own, &item(&[1, 3, 2]), None),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        let tagged = NewItem { label: Some("l".to_owned()), text: Some("t".to_owned()), ..item(&ids) };
        assert_eq!(base.key(own, &tagged, None), keys[0], "tags and metadata are not part of the key");
        assert_eq!(device_class("cuda:1"), device_class("cuda:0"));
        assert_eq!(device_class("cuda:0,cuda:1"), "cuda");
        assert_eq!(device_class("candle-cpu,candle-cpu"), "candle-cpu");
    }
}
