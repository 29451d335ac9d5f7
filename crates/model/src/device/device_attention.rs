//! The attention sublayer on the device: norm, projections, rotary positions, attention, output projection, and their hook points.

use candle_core::{DType, Device, Tensor};
use candle_nn::{ops::softmax_last_dim, rotary_emb::rope_thd};

#[cfg(feature = "cuda")]
use super::nvidia;
use super::{
    attention_scores::{attend_tile, of_whole_groups, scores_of_heads},
    copies::whole,
    device_taps::DeviceTaps,
    pass::Pass,
    tapped_norm::{sublayer_output, tapped_norm},
    tiles::hide,
    weights::{DeviceLinear, DeviceNorm},
};
use crate::{
    ForwardError,
    architecture::QkNorm,
    cpu::{
        attention::{Attention, attention_map},
        stream::Place,
    },
    ops::attention::AttentionSpec,
    packing::RowSet,
};
use residuum_domain::Site;

/// The weights of one attention sublayer.
#[derive(Debug)]
pub struct DeviceAttention {
    ln: Option<DeviceNorm>,
    q: DeviceLinear,
    k: DeviceLinear,
    v: DeviceLinear,
    o: DeviceLinear,
    qk_norm: Option<(DeviceNorm, DeviceNorm)>,
    ln_post: Option<DeviceNorm>,
}

/// Queries of the rows of a set, and keys and values of every token, each `[rows, heads · d_head]`.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

/// The output of the attention sublayer.
pub struct Attended {
    /// What is added to the residual stream, `[rows, d_model]`, for the rows of the place's set.
    pub out: Tensor,
    /// The input of attention before interventions, `[tokens, d_model]`.
    pub received: Tensor,
}

impl DeviceAttention {
    /// Copies the weights to the device.
    pub fn upload(
        attention: &Attention,
        kind: Option<QkNorm>,
        d_head: usize,
        to: (DType, &Device),
    ) -> candle_core::Result<Self> {
        let linear = |l| DeviceLinear::upload(l, to.0, to.1);
        let d_model = attention.q.in_features();
        let norm = |n: &Option<_>| n.as_ref().map(|n| DeviceNorm::upload(n, d_model, to.1)).transpose();
        let widths = match kind {
            Some(QkNorm::AllHeads) => (attention.q.out_features(), attention.k.out_features()),
            _ => (d_head, d_head),
        };
        let qk_norm = match &attention.qk_norm {
            Some((q, k)) => Some((DeviceNorm::upload(q, widths.0, to.1)?, DeviceNorm::upload(k, widths.1, to.1)?)),
            None => None,
        };
        Ok(Self {
            ln: norm(&attention.ln)?,
            q: linear(&attention.q)?,
            k: linear(&attention.k)?,
            v: linear(&attention.v)?,
            o: linear(&attention.o)?,
            qk_norm,
            ln_post: norm(&attention.ln_post)?,
        })
    }

    /// Runs the sublayer on the residual stream `x` `[tokens, d_model]`; `None` once nothing further was asked for. `host` has the
    /// same weights on the CPU.
    pub fn forward(
        &self,
        host: &Attention,
        place: &Place<'_>,
        x: &Tensor,
        pass: &mut Pass<'_>,
        taps: &mut DeviceTaps<'_, '_>,
    ) -> Result<Option<Attended>, ForwardError> {
        let mut normed = match &self.ln {
            Some(norm) => {
                let hooks = [place.hook(Site::Ln1Scale), place.hook(Site::Ln1Normalized)];
                // If it is not captured, compute it in the type of the products that it goes into.
                let seen = [Site::AttnIn, Site::MlpIn].into_iter().any(|site| taps.wants(place.hook(site)));
                let dtype = if seen { DType::F32 } else { self.q.dtype() };
                tapped_norm(norm, x, hooks, RowSet::All, dtype, taps)?
            }
            None => x.clone(),
        };
        let received = normed.clone();
        taps.tap(place.hook(Site::AttnIn), &mut normed, RowSet::All)?;
        if taps.done() {
            return Ok(None);
        }
        let mut projected = self.project(place, &normed, pass, taps)?;
        self.rotate(host, place, &mut projected, pass, taps)?;
        if taps.done() {
            return Ok(None);
        }
        let tf32 = self.q.dtype() != DType::F32;
        let Some(z) = attend(host, place, &projected, tf32, pass, taps)? else { return Ok(None) };
        let out = self.output(place, &z, taps)?;
        Ok(Some(Attended { out, received }))
    }

    fn project(
        &self,
        place: &Place<'_>,
        normed: &Tensor,
        pass: &Pass<'_>,
        taps: &mut DeviceTaps<'_, '_>,
    ) -> Result<Projected, ForwardError> {
        let normed = self.k.round(normed)?;
        let queried = match place.set {
            RowSet::All => normed.clone(),
            RowSet::Wanted => normed.index_select(&pass.wanted_tokens, 0)?,
        };
        let (mut q, mut k, mut v) = (self.q.forward(&queried)?, self.k.forward(&normed)?, self.v.forward(&normed)?);
        taps.tap(place.hook(Site::Q), &mut q, place.set)?;
        taps.tap(place.hook(Site::K), &mut k, RowSet::All)?;
        taps.tap(place.hook(Site::V), &mut v, RowSet::All)?;
        Ok(Projected { q, k, v })
    }

    /// Applies QK-norm, clipping and rotary positions.
    fn rotate(
        &self,
        host: &Attention,
        place: &Place<'_>,
        projected: &mut Projected,
        pass: &mut Pass<'_>,
        taps: &mut DeviceTaps<'_, '_>,
    ) -> Result<(), ForwardError> {
        let a = place.a;
        let Projected { q, k, v } = projected;
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (*q, *k) = (q_norm.forward(q)?, k_norm.forward(k)?);
        }
        if let Some(limit) = a.qkv_clip {
            for values in [&mut *q, &mut *k, &mut *v] {
                *values = values.clamp(-limit, limit)?;
            }
        }
        if let Some(rope) = host.layer.rope {
            *q = rotated(q, a.n_heads, &pass.angles(rope, place.set)?, a.rope_interleaved)?;
            *k = rotated(k, a.n_kv_heads, &pass.angles(rope, RowSet::All)?, a.rope_interleaved)?;
        }
        taps.tap(place.hook(Site::RotQ), q, place.set)?;
        taps.tap(place.hook(Site::RotK), k, RowSet::All)
    }

    /// Computes what is added to the residual stream from the heads' outputs `z`.
    fn output(&self, place: &Place<'_>, z: &Tensor, taps: &mut DeviceTaps<'_, '_>) -> Result<Tensor, ForwardError> {
        let (n_heads, d, set) = (place.a.n_heads, place.a.d_model, place.set);
        let hook = place.hook(Site::AttnResult);
        let results = |rows: &Tensor| {
            let z = z.index_select(rows, 0)?;
            self.o.forward_ranges(n_heads, &z)?.reshape(((), n_heads * d))
        };
        taps.compute(hook, n_heads * d, set, &mut |rows| results(rows))?;
        let mut out = self.o.forward(z)?;
        let touched = taps.editor().map(|e| e.touched(&[hook], set)).unwrap_or_default();
        if !touched.is_empty() {
            let index = Tensor::from_slice(&touched, touched.len(), z.device())?;
            let before = whole(&results(&index)?)?;
            let mut after = before.clone();
            taps.editor().into_iter().for_each(|e| e.some_rows(hook, &touched, &mut after, set));
            let mut changed = taps.pull(&out, &touched)?;
            let heads = before.chunks_exact(n_heads * d).zip(after.chunks_exact(n_heads * d));
            for ((before, after), out) in heads.zip(changed.chunks_exact_mut(d)) {
                for (before, after) in before.chunks_exact(d).zip(after.chunks_exact(d)) {
                    out.iter_mut().zip(before.iter().zip(after)).for_each(|(x, (b, a))| *x += a - b);
                }
            }
            out = taps.replace(&out, &touched, changed)?;
        }
        let sites = [Site::AttnRawOut, Site::Ln1PostScale, Site::Ln1PostNormalized, Site::AttnOut];
        sublayer_output(place, sites, self.ln_post.as_ref(), out, taps)
    }
}

/// The heads' outputs `z`, `[rows, heads · d_head]`; `None` once nothing further was asked for. With `tf32` a device may round
/// the factors of attention's products to 11 bits.
fn attend(
    host: &Attention,
    place: &Place<'_>,
    projected: &Projected,
    tf32: bool,
    pass: &mut Pass<'_>,
    taps: &mut DeviceTaps<'_, '_>,
) -> Result<Option<Tensor>, ForwardError> {
    let key_biases = pass.key_biases.clone();
    let spec = host.spec(place.a, key_biases.as_deref());
    let changed = taps.editor().map(|e| e.mapped(place.l)).unwrap_or_default();
    record_maps(&spec, place, projected, &changed, pass, taps)?;
    if taps.done() {
        return Ok(None);
    }
    let mut z = attend_tiles(&spec, place.set, projected, tf32, pass)?;
    if let Some(editor) = taps.editor().filter(|_| !changed.is_empty()) {
        // Inputs whose attention maps are changed are recomputed through the maps, on the CPU.
        let Projected { q, k, v } = projected;
        let (queries, keys, values, mut on_cpu) = (whole(q)?, whole(k)?, whole(v)?, whole(&z)?);
        let width = host.k.out_features();
        for input in changed {
            let own = pass.packing.all.offsets[input] * width..pass.packing.all.offsets[input + 1] * width;
            let qkv = [&queries[..], &keys[own.clone()], &values[own]];
            host.attend_changed(place, &spec, editor, input, pass.packing, qkv, &mut on_cpu);
        }
        z = Tensor::from_vec(on_cpu, z.shape(), z.device())?;
    }
    taps.tap(place.hook(Site::Z), &mut z, place.set)?;
    Ok(Some(z))
}

/// Records scores and patterns where they are asked for. Maps of the inputs in `changed` are computed on the CPU.
fn record_maps(
    spec: &AttentionSpec<'_>,
    place: &Place<'_>,
    projected: &Projected,
    changed: &[usize],
    pass: &Pass<'_>,
    taps: &mut DeviceTaps<'_, '_>,
) -> Result<(), ForwardError> {
    let offsets = &pass.packing.all.offsets;
    let Projected { q, k, .. } = projected;
    for site in [Site::AttnScores, Site::Pattern] {
        taps.map(place.hook(site), spec.n_heads, place.set, &mut |editor, part, rows| {
            let (input, n_keys) = (part.input, part.n_keys);
            // Copy the rows first: a view would be copied to the CPU with the whole tensor around it.
            let keys = k.narrow(0, offsets[input], n_keys)?.force_contiguous()?;
            let queries = q.index_select(&Tensor::from_slice(rows, rows.len(), q.device())?, 0)?;
            if let Some(editor) = editor.filter(|_| changed.contains(&input)) {
                let mut out = vec![0.0; part.n_cells()];
                attention_map(place, site, Some(editor), spec, part, &whole(&queries)?, &whole(&keys)?, &mut out);
                return Ok(out);
            }
            let mut hidden = vec![0.0; rows.len() * n_keys];
            hide(spec, part.positions, n_keys, n_keys, &mut hidden);
            let mask = Tensor::from_vec(hidden, (1, 1, rows.len(), n_keys), q.device())?;
            let mut out = Vec::with_capacity(part.n_cells());
            for heads in of_whole_groups(spec, &part.heads) {
                let map = scores_of_heads(spec, heads, part, [&queries, &keys], pass.biases.as_ref(), &mask)?;
                out.extend(whole(&if site == Site::Pattern { softmax_last_dim(&map)? } else { map })?);
            }
            Ok(out)
        })?;
    }
    Ok(())
}

/// Attention within each input, tile by tile: `z` `[rows, heads · d_head]`.
fn attend_tiles(
    spec: &AttentionSpec<'_>,
    set: RowSet,
    projected: &Projected,
    tf32: bool,
    pass: &mut Pass<'_>,
) -> candle_core::Result<Tensor> {
    let Projected { q, k, v } = projected;
    let (packing, biases) = (pass.packing, pass.biases.clone());
    let tiles = pass.tiles(set, spec)?;
    let mut parts = Vec::with_capacity(tiles.tiles.len());
    for tile in &mut tiles.tiles {
        #[cfg(feature = "cuda")]
        if q.device().is_cuda() {
            let seen = tile.seen(spec, packing, set, q.device())?;
            parts.push(nvidia::tile_attention::attend(spec, tile, [q, k, v], biases.as_ref(), &seen, tf32)?);
            continue;
        }
        let _ = tf32;
        let mask = tile.mask(spec, packing, set, q.device())?;
        parts.push(attend_tile(spec, tile, [q, k, v], biases.as_ref(), mask.as_ref())?);
    }
    let all = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? };
    if tiles.in_order { Ok(all) } else { all.index_select(&tiles.restore, 0) }
}

/// Rotates the first `2 · pairs` dimensions of each head of `x` `[rows, heads · d_head]`, by the angles whose cosines and sines
/// `[rows, pairs]` are given.
fn rotated(x: &Tensor, heads: usize, (cos, sin): &(Tensor, Tensor), interleaved: bool) -> candle_core::Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let (d_head, half) = (width / heads, cos.dim(1)?);
    if half == 0 {
        return Ok(x.clone());
    }
    if !interleaved && 2 * half == d_head {
        let x = x.reshape((1, rows, heads, d_head))?.contiguous()?;
        return rope_thd(&x, cos, sin)?.reshape((rows, width));
    }
    let x = x.reshape((rows, heads, d_head))?;
    let rotated = x.narrow(2, 0, 2 * half)?;
    let (a, b) = if interleaved {
        let pairs = rotated.contiguous()?.reshape((rows, heads, half, 2))?;
        (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
    } else {
        (rotated.narrow(2, 0, half)?, rotated.narrow(2, half, half)?)
    };
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let rotated = if interleaved {
        Tensor::stack(&[first, second], 3)?.reshape((rows, heads, 2 * half))?
    } else {
        Tensor::cat(&[first, second], 2)?
    };
    let rest = x.narrow(2, 2 * half, d_head - 2 * half)?;
    Tensor::cat(&[rotated, rest], 2)?.reshape((rows, width))
}
