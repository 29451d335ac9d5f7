//! The MLP sublayer on the device: norm, a dense MLP or a mixture of experts, and their hook points.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::{sigmoid, softmax_last_dim};

use super::{
    copies::whole,
    device_taps::DeviceTaps,
    pass::Pass,
    tapped_norm::{sublayer_output, tapped_norm},
    weights::{DeviceLinear, DeviceNorm, activate, gated},
};
use crate::{
    ForwardError,
    architecture::{Experts, Residual},
    cpu::{
        dense_mlp::Dense,
        mlp::{Kind, Mlp},
        sparse_mlp::{Choice, Route, Sparse},
        stream::Place,
    },
    ops::activation::Activation,
    packing::{RowSet, index},
};
use residuum_domain::Site;

/// The weights of one MLP sublayer.
#[derive(Debug)]
pub struct DeviceMlp {
    ln: Option<DeviceNorm>,
    kind: DeviceKind,
    ln_post: Option<DeviceNorm>,
}

#[derive(Debug)]
enum DeviceKind {
    Dense(DeviceDense),
    Sparse(DeviceSparse),
}

impl DeviceKind {
    /// The compute type of the first products.
    fn dtype(&self) -> DType {
        match self {
            Self::Dense(dense) => dense.gate.dtype(),
            // The router runs in float32.
            Self::Sparse(_) => DType::F32,
        }
    }
}

impl DeviceMlp {
    /// Copies the weights to the device.
    pub fn upload(mlp: &Mlp, d_model: usize, to: (DType, &Device)) -> candle_core::Result<Self> {
        let norm = |n: &Option<_>| n.as_ref().map(|n| DeviceNorm::upload(n, d_model, to.1)).transpose();
        let kind = match &mlp.kind {
            Kind::Dense(dense) => DeviceKind::Dense(DeviceDense::upload(dense, to)?),
            Kind::Sparse(sparse) => DeviceKind::Sparse(DeviceSparse::upload(sparse, to)?),
        };
        Ok(Self { ln: norm(&mlp.ln)?, kind, ln_post: norm(&mlp.ln_post)? })
    }

    /// What the MLP adds to the residual stream `x`, which has the rows of `place.set`. `received` is the input of attention, for
    /// every token.
    pub fn forward(
        &self,
        place: &Place<'_>,
        x: &Tensor,
        received: &Tensor,
        pass: &Pass<'_>,
        taps: &mut DeviceTaps<'_, '_>,
    ) -> Result<Tensor, ForwardError> {
        let set = place.set;
        let mut mlp_in = match (&self.ln, place.a.residual, set) {
            (Some(norm), ..) => {
                let hooks = [place.hook(Site::Ln2Scale), place.hook(Site::Ln2Normalized)];
                // If it is not captured, compute it in the type of the products that it goes into.
                let dtype = if taps.wants(place.hook(Site::MlpIn)) { DType::F32 } else { self.kind.dtype() };
                tapped_norm(norm, x, hooks, set, dtype, taps)?
            }
            (None, Residual::Sequential | Residual::PostNorm, _) => x.clone(),
            (None, Residual::Parallel, RowSet::All) => received.clone(),
            (None, Residual::Parallel, RowSet::Wanted) => received.index_select(&pass.wanted_tokens, 0)?,
        };
        taps.tap(place.hook(Site::MlpIn), &mut mlp_in, set)?;
        let out = match &self.kind {
            DeviceKind::Sparse(sparse) => sparse.forward(place, &mlp_in, taps)?,
            DeviceKind::Dense(dense) => {
                let dtype = if taps.wants(place.hook(Site::MlpPost)) { DType::F32 } else { self.kind.dtype() };
                dense.forward(place.a.activation, &mlp_in, dtype, |site, values| {
                    taps.tap(place.hook(site), values, set)
                })?
            }
        };
        let sites = [Site::MlpRawOut, Site::Ln2PostScale, Site::Ln2PostNormalized, Site::MlpOut];
        sublayer_output(place, sites, self.ln_post.as_ref(), out, taps)
    }
}

/// The projections of a dense MLP or of one expert.
#[derive(Debug)]
struct DeviceDense {
    gate: DeviceLinear,
    up: Option<DeviceLinear>,
    down: DeviceLinear,
}

impl DeviceDense {
    fn upload(dense: &Dense, to: (DType, &Device)) -> candle_core::Result<Self> {
        let linear = |l| DeviceLinear::upload(l, to.0, to.1);
        Ok(Self {
            gate: linear(&dense.gate)?,
            up: dense.up.as_ref().map(linear).transpose()?,
            down: linear(&dense.down)?,
        })
    }

    /// Computes `[rows, d_model]` from `x` `[rows, d_model]`. `tap` is called with the pre-activations and the neurons,
    /// `[rows, d_hidden]`; the neurons may be rounded to `dtype`.
    fn forward(
        &self,
        activation: Activation,
        x: &Tensor,
        dtype: DType,
        mut tap: impl FnMut(Site, &mut Tensor) -> Result<(), ForwardError>,
    ) -> Result<Tensor, ForwardError> {
        let x = self.gate.round(x)?;
        let mut gate = self.gate.forward(&x)?;
        tap(Site::MlpPre, &mut gate)?;
        let mut hidden = match &self.up {
            Some(up) => {
                let mut up = up.forward(&x)?;
                tap(Site::MlpPreLinear, &mut up)?;
                gated(activation, &gate, &up, dtype)?
            }
            None => activate(activation, &gate)?,
        };
        tap(Site::MlpPost, &mut hidden)?;
        Ok(self.down.forward(&hidden)?)
    }
}

/// The weights of one mixture of experts. The router's probabilities are copied to the CPU, where the experts are chosen.
#[derive(Debug)]
struct DeviceSparse {
    spec: Experts,
    router: DeviceLinear,
    experts: Vec<DeviceDense>,
    shared: Option<(DeviceDense, DeviceLinear)>,
}

impl DeviceSparse {
    fn upload(sparse: &Sparse, to: (DType, &Device)) -> candle_core::Result<Self> {
        let shared = match &sparse.shared {
            Some((expert, gate)) => Some((DeviceDense::upload(expert, to)?, DeviceLinear::upload(gate, to.0, to.1)?)),
            None => None,
        };
        Ok(Self {
            spec: sparse.spec,
            // float32, so that rounding does not decide which expert a token goes to
            router: DeviceLinear::upload(&sparse.router, DType::F32, to.1)?,
            experts: sparse.experts.iter().map(|e| DeviceDense::upload(e, to)).collect::<candle_core::Result<_>>()?,
            shared,
        })
    }

    fn forward(&self, place: &Place<'_>, x: &Tensor, taps: &mut DeviceTaps<'_, '_>) -> Result<Tensor, ForwardError> {
        let activation = place.a.activation;
        let routes = self.route(place, x, taps)?;
        let (n_rows, d) = x.dims2()?;
        // The outputs of all experts, concatenated; and for each row of `x`, the places of its `top_k` outputs among them.
        let (mut parts, mut weights, mut places) = (Vec::new(), Vec::new(), vec![Vec::new(); n_rows]);
        for (expert, route) in self.experts.iter().zip(&routes).filter(|(_, route)| !route.rows.is_empty()) {
            let rows = Tensor::from_slice(&route.rows, route.rows.len(), x.device())?;
            parts.push(expert.forward(activation, &x.index_select(&rows, 0)?, expert.gate.dtype(), |_, _| Ok(()))?);
            route.rows.iter().zip(index(weights.len())..).for_each(|(row, at)| places[*row as usize].push(at));
            weights.extend_from_slice(&route.weights);
        }
        let weights = Tensor::from_slice(&weights, (weights.len(), 1), x.device())?;
        let places = Tensor::from_vec(places.concat(), n_rows * self.spec.top_k, x.device())?;
        let weighted = Tensor::cat(&parts, 0)?.broadcast_mul(&weights)?.index_select(&places, 0)?;
        let mut out = weighted.reshape((n_rows, self.spec.top_k, d))?.sum(1)?;
        if let Some((expert, gate)) = &self.shared {
            let weights = sigmoid(&gate.forward(x)?)?;
            out =
                (out + expert.forward(activation, x, expert.gate.dtype(), |_, _| Ok(()))?.broadcast_mul(&weights)?)?;
        }
        Ok(out)
    }

    /// Chooses the experts of each row of `x` `[rows, d_model]`, and returns the rows of each expert.
    fn route(&self, place: &Place<'_>, x: &Tensor, taps: &mut DeviceTaps<'_, '_>) -> Result<Vec<Route>, ForwardError> {
        let Experts { n_experts, top_k, renormalise, .. } = self.spec;
        let mut logits = self.router.forward(x)?;
        taps.tap(place.hook(Site::RouterLogits), &mut logits, place.set)?;
        let probabilities = whole(&softmax_last_dim(&logits)?)?;
        let mut chosen: Vec<Choice> =
            probabilities.chunks_exact(n_experts).map(|p| Choice::of(p, top_k, renormalise)).collect();
        let shape = (chosen.len(), top_k);
        let weights: Vec<f32> = chosen.iter().flat_map(|c| &c.weights).copied().collect();
        let mut weights = Tensor::from_vec(weights, shape, x.device())?;
        taps.tap(place.hook(Site::ExpertWeights), &mut weights, place.set)?;
        if taps.edits(place.hook(Site::ExpertWeights)) {
            let changed = whole(&weights)?;
            chosen.iter_mut().zip(changed.chunks_exact(top_k)).for_each(|(c, new)| c.weights.copy_from_slice(new));
        }
        #[expect(clippy::cast_precision_loss, reason = "a mixture has fewer than 2^24 experts")]
        let indices: Vec<f32> = chosen.iter().flat_map(|c| &c.experts).map(|e| *e as f32).collect();
        let mut indices = Tensor::from_vec(indices, shape, x.device())?;
        taps.tap(place.hook(Site::ExpertIndices), &mut indices, place.set)?;
        Ok(Route::of_choices(&chosen, n_experts))
    }
}
