//! The projections of a dense MLP, or of one expert, and the activation between them. It knows no norms, and not where in the model
//! it runs.

use crate::{
    ForwardError,
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{Linear, activation::Activation, forward_all},
    sources::LinearSource,
};
use residuum_domain::Site;

/// The projections of a dense MLP or of one expert.
#[derive(Debug)]
pub struct Dense {
    pub(crate) gate: Linear,
    pub(crate) up: Option<Linear>,
    pub(crate) down: Linear,
}

impl Dense {
    /// Reads projections from `d_model` to `d_hidden` neurons and back.
    pub fn load(
        checkpoint: &Checkpoint,
        [d_hidden, d_model]: [usize; 2],
        gate: &LinearSource,
        up: Option<&LinearSource>,
        down: &LinearSource,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            gate: gate.load(checkpoint, d_hidden, d_model)?,
            up: up.map(|s| s.load(checkpoint, d_hidden, d_model)).transpose()?,
            down: down.load(checkpoint, d_model, d_hidden)?,
        })
    }

    /// Computes `out` `[rows, d_model]` from `x` `[rows, d_model]`. `hidden` are two buffers. `tap` is called with the
    /// pre-activations and the neurons, `[rows, d_hidden]`, and may change them.
    pub fn forward(
        &self,
        activation: Activation,
        x: &[f32],
        hidden: [&mut Vec<f32>; 2],
        out: &mut [f32],
        mut tap: impl FnMut(Site, &mut [f32]) -> Result<(), ForwardError>,
    ) -> Result<(), ForwardError> {
        let [gate, up] = hidden;
        gate.resize(x.len() / self.gate.in_features() * self.gate.out_features(), 0.0);
        match &self.up {
            Some(projection) => {
                up.resize(gate.len(), 0.0);
                forward_all(x, [(&self.gate, gate), (projection, up)]);
                tap(Site::MlpPre, gate)?;
                tap(Site::MlpPreLinear, up)?;
                activation.gate(gate, up);
            }
            None => {
                self.gate.forward(x, gate);
                tap(Site::MlpPre, gate)?;
                activation.apply(gate);
            }
        }
        tap(Site::MlpPost, gate)?;
        self.down.forward(gate, out);
        Ok(())
    }
}
