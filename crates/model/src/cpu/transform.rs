//! The layer before the unembedding in the head of a masked language model: a projection, an activation and a norm.

use crate::{
    architecture::Architecture,
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{Linear, activation::Activation, norm::Norm},
    sources::{TransformSources, load_norm},
};

/// The weights of this layer.
#[derive(Debug)]
pub struct Transform {
    pub(crate) dense: Linear,
    pub(crate) activation: Activation,
    pub(crate) norm: Norm,
}

impl Transform {
    /// Reads the weights.
    pub fn load(
        a: &Architecture,
        activation: Activation,
        sources: &TransformSources,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LoadError> {
        let d = a.d_model;
        let dense = sources.dense.load(checkpoint, d, d)?;
        Ok(Self { dense, activation, norm: load_norm(checkpoint, a.norm, &sources.norm, d)? })
    }

    /// Applies it to the rows of `x` `[rows, d_model]`, in place.
    pub fn apply(&self, x: &mut [f32]) {
        let mut projected = vec![0.0; x.len()];
        self.dense.forward(x, &mut projected);
        self.activation.apply(&mut projected);
        self.norm.forward(&projected, self.dense.out_features(), x);
    }
}
