//! Norms with hook points on the device.

use candle_core::{DType, Tensor};

use super::{device_taps::DeviceTaps, weights::DeviceNorm};
use crate::{ForwardError, cpu::stream::Place, packing::RowSet};
use residuum_domain::{Hook, Site};

/// Normalises `x` `[rows, d]`; the denominators and the normalised rows pass the two `hooks`. If interventions change them there,
/// the output is computed from the changed ones. The result may be rounded to `dtype`.
pub fn tapped_norm(
    norm: &DeviceNorm,
    x: &Tensor,
    hooks: [Hook; 2],
    set: RowSet,
    dtype: DType,
    taps: &mut DeviceTaps<'_, '_>,
) -> Result<Tensor, ForwardError> {
    if !hooks.iter().any(|hook| taps.edits(*hook)) {
        if hooks.iter().any(|hook| taps.wants(*hook)) {
            let (mut scale, mut normalized) = norm.parts(x)?;
            taps.tap(hooks[0], &mut scale, set)?;
            taps.tap(hooks[1], &mut normalized, set)?;
        }
        return Ok(norm.forward_rounded(x, dtype)?);
    }
    let out = norm.forward(x)?;
    let (mut scale, mut normalized) = norm.parts(x)?;
    let touched = taps.editor().map(|e| e.touched(&hooks, set)).unwrap_or_default();
    let before = taps.pull(&scale, &touched)?;
    taps.tap(hooks[0], &mut scale, set)?;
    if touched.is_empty() {
        taps.tap(hooks[1], &mut normalized, set)?;
        return Ok(out);
    }
    let d = x.dim(1)?;
    let after = taps.pull(&scale, &touched)?;
    let mut rows = taps.pull(&normalized, &touched)?;
    for (row, (before, after)) in rows.chunks_exact_mut(d).zip(before.iter().zip(&after)) {
        row.iter_mut().for_each(|x| *x *= before / after);
    }
    normalized = taps.replace(&normalized, &touched, rows)?;
    taps.tap(hooks[1], &mut normalized, set)?;
    let rows = taps.pull(&normalized, &touched)?;
    let mut changed = vec![0.0; rows.len()];
    for (row, changed) in rows.chunks_exact(d).zip(changed.chunks_exact_mut(d)) {
        norm.host.apply_gain(row, changed);
    }
    taps.replace(&out, &touched, changed)
}

/// Computes what is added to the residual stream from the raw output of a sublayer: applies the norm after it and the residual
/// multiplier, if the model has them. `sites` are the hook points of the raw output, the norm's two, and what is added.
pub fn sublayer_output(
    place: &Place<'_>,
    sites: [Site; 4],
    norm: Option<&DeviceNorm>,
    mut out: Tensor,
    taps: &mut DeviceTaps<'_, '_>,
) -> Result<Tensor, ForwardError> {
    let [given, scale, normalized, added] = sites.map(|site| place.hook(site));
    taps.tap(given, &mut out, place.set)?;
    if let Some(norm) = norm {
        out = tapped_norm(norm, &out, [scale, normalized], place.set, DType::F32, taps)?;
    }
    if let Some(factor) = place.a.residual_multiplier {
        out = (out * f64::from(factor))?;
    }
    taps.tap(added, &mut out, place.set)?;
    Ok(out)
}
