//! The MLP sublayer on the CPU: norm, a dense MLP or a mixture of experts, and their hook points.

use super::{
    dense_mlp::Dense,
    sparse_mlp::Sparse,
    stream::{Place, Scratch, Stream, tapped_norm},
};
use crate::{
    ForwardError,
    architecture::{Architecture, Layer, Residual},
    capture::taps::Taps,
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{elementwise, norm::Norm},
    packing::RowSet,
    sources::{LayerSources, load_norm},
};
use residuum_domain::Site;

/// The weights of one MLP sublayer.
#[derive(Debug)]
pub struct Mlp {
    pub(crate) ln: Option<Norm>,
    pub(crate) kind: Kind,
    pub(crate) ln_post: Option<Norm>,
}

/// The MLP itself.
#[derive(Debug)]
pub enum Kind {
    Dense(Dense),
    Sparse(Sparse),
}

impl Mlp {
    /// Reads the weights.
    pub fn load(
        a: &Architecture,
        layer: Layer,
        sources: &LayerSources,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LoadError> {
        let d = a.d_model;
        let norm = |name: &str| load_norm(checkpoint, a.norm, name, d);
        let ln = (layer.ln2 && a.residual != Residual::PostNorm).then(|| norm(&sources.ln2)).transpose()?;
        let kind = match (a.experts_of(layer), &sources.experts) {
            (Some(spec), Some(experts)) => Kind::Sparse(Sparse::load(a, spec, experts, checkpoint)?),
            _ => {
                let LayerSources { gate, up, down, .. } = sources;
                Kind::Dense(Dense::load(checkpoint, [a.d_mlp, d], gate, up.as_ref(), down)?)
            }
        };
        Ok(Self { ln, kind, ln_post: layer.ln2_post.then(|| norm(&sources.ln2_post)).transpose()? })
    }

    /// Writes to `scratch.mlp_out` what the MLP adds to the residual stream, for the rows of `place.set`.
    pub fn forward(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        self.input(place, stream, taps)?;
        stream.scratch.mlp_out.resize(stream.x.len(), 0.0);
        match &self.kind {
            Kind::Sparse(sparse) => sparse.forward(place, &mut stream.scratch, taps)?,
            Kind::Dense(dense) => {
                let Scratch { mlp_in, gate, up, mlp_out, .. } = &mut stream.scratch;
                dense.forward(place.a.activation, mlp_in, [gate, up], mlp_out, |site, values| {
                    taps.tap(place.hook(site), values, place.set)
                })?;
            }
        }
        self.output(place, stream, taps)
    }

    /// The input of the MLP: `scratch.mlp_in` `[rows, d_model]`. A parallel MLP without a norm of its own has the same input as
    /// attention.
    fn input(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let (d, set) = (place.a.d_model, place.set);
        let Scratch { normed, received, mlp_in, spare, .. } = &mut stream.scratch;
        let normed: &[f32] = received.as_ref().unwrap_or(normed);
        mlp_in.resize(stream.x.len(), 0.0);
        match (&self.ln, place.a.residual, set) {
            (Some(norm), ..) => {
                let hooks = [place.hook(Site::Ln2Scale), place.hook(Site::Ln2Normalized)];
                tapped_norm(norm, d, &stream.x, mlp_in, spare, hooks, set, taps)?;
            }
            (None, Residual::Sequential | Residual::PostNorm, _) => mlp_in.copy_from_slice(&stream.x),
            (None, Residual::Parallel, RowSet::All) => mlp_in.copy_from_slice(normed),
            (None, Residual::Parallel, RowSet::Wanted) => {
                elementwise::gather_rows(normed, d, &stream.packing.wanted_tokens, mlp_in);
            }
        }
        taps.tap(place.hook(Site::MlpIn), mlp_in, set)
    }

    /// Applies the norm after the MLP and the residual multiplier to `scratch.mlp_out`.
    fn output(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let set = place.set;
        let Scratch { mlp_out, gathered, spare, .. } = &mut stream.scratch;
        taps.tap(place.hook(Site::MlpRawOut), mlp_out, set)?;
        if let Some(norm) = &self.ln_post {
            let hooks = [place.hook(Site::Ln2PostScale), place.hook(Site::Ln2PostNormalized)];
            gathered.resize(mlp_out.len(), 0.0);
            tapped_norm(norm, place.a.d_model, mlp_out, gathered, spare, hooks, set, taps)?;
            std::mem::swap(mlp_out, gathered);
        }
        if let Some(factor) = place.a.residual_multiplier {
            elementwise::scale(mlp_out, factor);
        }
        taps.tap(place.hook(Site::MlpOut), mlp_out, set)
    }
}
