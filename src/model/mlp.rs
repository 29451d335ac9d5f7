//! The MLP sublayer with its norms and taps.

use super::{
    ForwardError,
    architecture::{Architecture, Layer, Residual},
    block::Place,
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{Linear, elementwise, norm::Norm},
    packing::RowSet,
    recorder::Recorder,
    sources::{LayerSources, load_norm},
    transformer::{Scratch, Stream, tapped_norm},
};
use crate::domain::Site;

/// The weights of one MLP sublayer.
#[derive(Debug)]
pub struct Mlp {
    ln: Option<Norm>,
    gate: Linear,
    up: Option<Linear>,
    down: Linear,
    ln_post: Option<Norm>,
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
        Ok(Self {
            ln: (layer.ln2 && a.residual != Residual::PostNorm).then(|| norm(&sources.ln2)).transpose()?,
            gate: sources.gate.load(checkpoint, a.d_mlp, d)?,
            up: sources.up.as_ref().map(|s| s.load(checkpoint, a.d_mlp, d)).transpose()?,
            down: sources.down.load(checkpoint, d, a.d_mlp)?,
            ln_post: layer.ln2_post.then(|| norm(&sources.ln2_post)).transpose()?,
        })
    }

    /// Leaves in `scratch.mlp_out` what the MLP adds to the residual stream, for the rows of `place.set`.
    pub fn forward(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        self.receive(place, stream, recorder)?;
        let (a, set) = (place.a, place.set);
        let rows = stream.x.len() / a.d_model;
        let Scratch { mlp_in, gate, up, mlp_out, gathered, spare, .. } = &mut stream.scratch;
        gate.resize(rows * a.d_mlp, 0.0);
        self.gate.forward(mlp_in, gate);
        recorder.tap(place.hook(Site::MlpPre), gate, set)?;
        match &self.up {
            Some(projection) => {
                up.resize(gate.len(), 0.0);
                projection.forward(mlp_in, up);
                recorder.tap(place.hook(Site::MlpPreLinear), up, set)?;
                a.activation.gate(gate, up);
            }
            None => a.activation.apply(gate),
        }
        recorder.tap(place.hook(Site::MlpPost), gate, set)?;
        mlp_out.resize(stream.x.len(), 0.0);
        self.down.forward(gate, mlp_out);
        recorder.tap(place.hook(Site::MlpRawOut), mlp_out, set)?;
        if let Some(norm) = &self.ln_post {
            let taps = [place.hook(Site::Ln2PostScale), place.hook(Site::Ln2PostNormalized)];
            gathered.resize(mlp_out.len(), 0.0);
            tapped_norm(norm, a.d_model, mlp_out, gathered, spare, taps, set, recorder)?;
            std::mem::swap(mlp_out, gathered);
        }
        if let Some(factor) = a.residual_multiplier {
            elementwise::scale(mlp_out, factor);
        }
        recorder.tap(place.hook(Site::MlpOut), mlp_out, set)
    }

    /// What the MLP receives: `scratch.mlp_in` `[rows, d_model]`. A parallel MLP without a norm of its own receives
    /// what attention received.
    fn receive(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        let (d, set) = (place.a.d_model, place.set);
        let Scratch { normed, mlp_in, spare, .. } = &mut stream.scratch;
        mlp_in.resize(stream.x.len(), 0.0);
        match (&self.ln, place.a.residual, set) {
            (Some(norm), ..) => {
                let taps = [place.hook(Site::Ln2Scale), place.hook(Site::Ln2Normalized)];
                tapped_norm(norm, d, &stream.x, mlp_in, spare, taps, set, recorder)?;
            }
            (None, Residual::Sequential | Residual::PostNorm, _) => mlp_in.copy_from_slice(&stream.x),
            (None, Residual::Parallel, RowSet::All) => mlp_in.copy_from_slice(normed),
            (None, Residual::Parallel, RowSet::Wanted) => {
                elementwise::gather_rows(normed, d, &stream.packing.wanted_tokens, mlp_in);
            }
        }
        recorder.tap(place.hook(Site::MlpIn), mlp_in, set)
    }
}
