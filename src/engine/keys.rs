//! What decides a forward pass's numbers, as a hash; and the receipt that says it in words.

use crate::{
    domain::{Edits, NewItem, Provenance, TenantId, intervention},
    model::{Model, NUMERICS_VERSION},
};

/// The key under which activations may be reused: equal keys mean bit-equal numbers on one device class. The tenant is
/// part of it, so tenants never share.
#[must_use]
pub fn forward_key(tenant: TenantId, model: &Model, item: &NewItem, edits: Option<&Edits>) -> [u8; 32] {
    let info = model.info();
    let mut hasher = blake3::Hasher::new();
    for part in [&info.fingerprint, &info.compute_dtype, device_class(&info.device)] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&tenant.0.to_le_bytes());
    hasher.update(&NUMERICS_VERSION.to_le_bytes());
    item.token_ids.iter().for_each(|id| {
        hasher.update(&id.to_le_bytes());
    });
    if let Some(edits) = edits {
        hasher.update(b"interventions").update(&intervention::key(edits, &item.interventions));
    }
    *hasher.finalize().as_bytes()
}

/// The receipt of what this model computes now.
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
        numerics_version: NUMERICS_VERSION,
    }
}

/// `cuda:1` computes what `cuda:0` does.
fn device_class(device: &str) -> &str {
    device.split(':').next().unwrap_or(device)
}
