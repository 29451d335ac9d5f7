//! One block on the CPU: attention, MLP, and how their outputs are added to the residual stream.

use super::{
    attention::Attention,
    mlp::Mlp,
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

/// The weights of one block.
#[derive(Debug)]
pub struct Block {
    pub(crate) attention: Attention,
    pub(crate) mlp: Mlp,
    /// In post-norm blocks, the norms of the residual stream after each addition.
    pub(crate) joined: Option<[Norm; 2]>,
}

impl Block {
    /// Reads the weights.
    pub fn load(
        a: &Architecture,
        layer: Layer,
        sources: &LayerSources,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LoadError> {
        let attention = Attention::load(a, layer, sources, checkpoint)?;
        let mlp = Mlp::load(a, layer, sources, checkpoint)?;
        let norm = |name: &str| load_norm(checkpoint, a.norm, name, a.d_model);
        let joined = match a.residual {
            Residual::PostNorm => Some([norm(&sources.ln1)?, norm(&sources.ln2)?]),
            Residual::Sequential | Residual::Parallel => None,
        };
        Ok(Self { attention, mlp, joined })
    }

    /// Runs the block on the residual stream. In the `last` block that is needed, only the wanted rows are computed after
    /// attention. Returns early once nothing further was asked for.
    pub fn forward(
        &self,
        a: &Architecture,
        l: usize,
        last: bool,
        stream: &mut Stream<'_>,
        taps: &mut Taps<'_>,
    ) -> Result<(), ForwardError> {
        let fewer = stream.packing.wanted_tokens.len() < stream.packing.n_tokens();
        let place = Place { a, l, set: if last && fewer { RowSet::Wanted } else { RowSet::All } };
        taps.tap(place.hook(Site::ResidPre), &mut stream.x, RowSet::All)?;
        if taps.done() {
            return Ok(());
        }
        self.attention.forward(&place, stream, taps)?;
        if taps.done() {
            return Ok(());
        }
        if place.set == RowSet::Wanted {
            let mut kept = vec![0.0; stream.packing.wanted_tokens.len() * a.d_model];
            elementwise::gather_rows(&stream.x, a.d_model, &stream.packing.wanted_tokens, &mut kept);
            (stream.x, stream.set) = (kept, RowSet::Wanted);
        }
        if a.residual != Residual::Parallel {
            elementwise::add_assign(&mut stream.x, &stream.scratch.attn_out);
            taps.tap(place.hook(Site::ResidMid), &mut stream.x, place.set)?;
            if taps.done() {
                return Ok(());
            }
        }
        if let Some([norm, _]) = &self.joined {
            normalise(norm, &place, [Site::Ln1Scale, Site::Ln1Normalized], stream, taps)?;
            if taps.done() {
                return Ok(());
            }
        }
        self.mlp.forward(&place, stream, taps)?;
        let Scratch { attn_out, mlp_out, .. } = &mut stream.scratch;
        if a.residual == Residual::Parallel {
            elementwise::add_assign(mlp_out, attn_out);
        }
        elementwise::add_assign(&mut stream.x, mlp_out);
        if let Some([_, norm]) = &self.joined {
            normalise(norm, &place, [Site::Ln2Scale, Site::Ln2Normalized], stream, taps)?;
        }
        taps.tap(place.hook(Site::ResidPost), &mut stream.x, place.set)
    }
}

/// Normalises the residual stream itself; `sites` are those of the norm's hook points.
fn normalise(
    norm: &Norm,
    place: &Place<'_>,
    sites: [Site; 2],
    stream: &mut Stream<'_>,
    taps: &mut Taps<'_>,
) -> Result<(), ForwardError> {
    let Scratch { gathered, spare, .. } = &mut stream.scratch;
    gathered.resize(stream.x.len(), 0.0);
    let hooks = sites.map(|site| place.hook(site));
    tapped_norm(norm, place.a.d_model, &stream.x, gathered, spare, hooks, place.set, taps)?;
    std::mem::swap(&mut stream.x, gathered);
    Ok(())
}
