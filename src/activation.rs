//! Activations as tensors: what [`crate::Archive`] returns for a stored cache. Knows no store and no model.

use candle_core::{DType, Device, Tensor};

/// Why tensors cannot be the layers of a cache.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// A layer has another shape than the layers before it.
    #[error("layer {layer} has shape {found:?}, the layers before it {expected:?}")]
    Shape {
        /// The layer at fault.
        layer: usize,
        /// Its shape.
        found: Vec<usize>,
        /// The shape of layer 0.
        expected: Vec<usize>,
    },
    /// A layer has the wrong number of axes.
    #[error("layer {layer} has {found} axes; a {kind} has {expected}")]
    Rank {
        /// The layer at fault.
        layer: usize,
        /// Its number of axes.
        found: usize,
        /// The number of axes it should have.
        expected: usize,
        /// What a layer of this cache is, for the message.
        kind: &'static str,
    },
    /// A layer is not of a float type.
    #[error("layer {layer} holds {dtype}, not floats")]
    NotFloat {
        /// The layer at fault.
        layer: usize,
        /// Its type.
        dtype: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// One tensor per layer, all of one shape.
#[derive(Debug, Clone)]
struct Layers {
    tensors: Vec<Tensor>,
    rank: usize,
    kind: &'static str,
}

impl Layers {
    fn with_capacity(n_layers: usize, rank: usize, kind: &'static str) -> Self {
        Self { tensors: Vec::with_capacity(n_layers), rank, kind }
    }

    fn fill(mut self, tensors: Vec<Tensor>) -> Result<Self, ActivationError> {
        tensors.into_iter().try_for_each(|t| self.push(t))?;
        Ok(self)
    }

    fn push(&mut self, tensor: Tensor) -> Result<(), ActivationError> {
        let layer = self.tensors.len();
        if tensor.rank() != self.rank {
            return Err(ActivationError::Rank { layer, found: tensor.rank(), expected: self.rank, kind: self.kind });
        }
        if !tensor.dtype().is_float() {
            return Err(ActivationError::NotFloat { layer, dtype: tensor.dtype().as_str() });
        }
        if let Some(first) = self.tensors.first()
            && first.dims() != tensor.dims()
        {
            return Err(ActivationError::Shape {
                layer,
                found: tensor.dims().to_vec(),
                expected: first.dims().to_vec(),
            });
        }
        self.tensors.push(tensor);
        Ok(())
    }
}

fn to_f32(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// The residual stream at the final position, one `[d_model]` tensor per layer. Layer `l` is the residual stream after
/// block `l` (`blocks.l.hook_resid_post`).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use residuum::ActivationCache;
///
/// let mut cache = ActivationCache::with_capacity(2);
/// cache.push(Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu)?)?;
/// cache.push(Tensor::new(&[4f32, 5.0, 6.0], &Device::Cpu)?)?;
/// assert_eq!(cache.n_layers(), 2);
/// assert_eq!(cache.get_layer(1).unwrap().dims(), [3]);
/// assert!(cache.get_layer(2).is_none());
/// assert_eq!(cache.to_f32_vecs()?[0], [1.0, 2.0, 3.0]);
///
/// // Pushing a layer of another width fails and does not change the cache.
/// assert!(cache.push(Tensor::new(&[1f32], &Device::Cpu)?).is_err());
/// assert_eq!(cache.n_layers(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ActivationCache {
    layers: Layers,
}

impl ActivationCache {
    const KIND: &'static str = "layer at one position, [d_model],";

    /// A cache of these layers, in order.
    ///
    /// # Errors
    /// [`ActivationError`] unless all are float tensors of one shape `[d_model]`.
    pub fn new(activations: Vec<Tensor>) -> Result<Self, ActivationError> {
        Ok(Self { layers: Self::with_capacity(activations.len()).layers.fill(activations)? })
    }

    /// An empty cache with room for `n_layers`.
    #[must_use]
    pub fn with_capacity(n_layers: usize) -> Self {
        Self { layers: Layers::with_capacity(n_layers, 1, Self::KIND) }
    }

    /// Appends the next layer, `[d_model]`.
    ///
    /// # Errors
    /// [`ActivationError`] if it is not a float tensor of the shape of the layers before; the cache is not changed.
    pub fn push(&mut self, activation: Tensor) -> Result<(), ActivationError> {
        self.layers.push(activation)
    }

    /// The residual stream after block `layer`, `[d_model]`.
    #[must_use]
    pub fn get_layer(&self, layer: usize) -> Option<&Tensor> {
        self.layers.tensors.get(layer)
    }

    /// Every layer, `[d_model]` each.
    #[must_use]
    pub fn activations(&self) -> &[Tensor] {
        &self.layers.tensors
    }

    /// Every layer as float32 values, whatever float type the tensors have.
    ///
    /// # Errors
    /// If a tensor cannot be copied from its device.
    pub fn to_f32_vecs(&self) -> Result<Vec<Vec<f32>>, ActivationError> {
        Ok(self.layers.tensors.iter().map(to_f32).collect::<Result<_, _>>()?)
    }

    /// Number of layers.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.layers.tensors.len()
    }

    /// Whether there is no layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.tensors.is_empty()
    }
}

/// The residual stream at several positions, one `[seq, d_model]` tensor per layer.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use residuum::PositionCache;
///
/// let cache = PositionCache::new(vec![Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?])?;
/// assert_eq!(cache.seq_len(), 2);
/// assert_eq!(cache.get_position(0, 1)?.unwrap().to_vec1::<f32>()?, [3.0, 4.0]);
/// assert!(cache.get_position(0, 2)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PositionCache {
    layers: Layers,
}

impl PositionCache {
    const KIND: &'static str = "layer at several positions, [seq, d_model],";

    /// A cache of these layers, in order.
    ///
    /// # Errors
    /// [`ActivationError`] unless all are float tensors of one shape `[seq, d_model]`.
    pub fn new(activations: Vec<Tensor>) -> Result<Self, ActivationError> {
        Ok(Self { layers: Layers::with_capacity(activations.len(), 2, Self::KIND).fill(activations)? })
    }

    /// One layer, `[seq, d_model]`.
    #[must_use]
    pub fn get_layer(&self, layer: usize) -> Option<&Tensor> {
        self.layers.tensors.get(layer)
    }

    /// One row of one layer, `[d_model]`; `None` if there is no such layer or row.
    ///
    /// # Errors
    /// If the tensor cannot be indexed.
    pub fn get_position(&self, layer: usize, row: usize) -> Result<Option<Tensor>, ActivationError> {
        match self.get_layer(layer) {
            Some(tensor) if row < self.seq_len() => Ok(Some(tensor.get(row)?)),
            _ => Ok(None),
        }
    }

    /// Rows of every layer; 0 without layers.
    #[must_use]
    pub fn seq_len(&self) -> usize {
        self.layers.tensors.first().map_or(0, |t| t.dims()[0])
    }

    /// Every layer, `[seq, d_model]` each.
    #[must_use]
    pub fn activations(&self) -> &[Tensor] {
        &self.layers.tensors
    }

    /// Number of layers.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.layers.tensors.len()
    }

    /// Whether there is no layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.tensors.is_empty()
    }
}

/// Attention patterns or scores, one `[heads, q, k]` tensor per layer.
#[derive(Debug, Clone)]
pub struct AttentionCache {
    layers: Layers,
}

impl AttentionCache {
    const KIND: &'static str = "layer of attention, [heads, q, k],";

    /// A cache of these layers, in order.
    ///
    /// # Errors
    /// [`ActivationError`] unless all are float tensors of one shape `[heads, q, k]`.
    pub fn new(patterns: Vec<Tensor>) -> Result<Self, ActivationError> {
        Ok(Self { layers: Layers::with_capacity(patterns.len(), 3, Self::KIND).fill(patterns)? })
    }

    /// One layer, `[heads, q, k]`.
    #[must_use]
    pub fn get_layer(&self, layer: usize) -> Option<&Tensor> {
        self.layers.tensors.get(layer)
    }

    /// One head of one layer, `[q, k]`; `None` if there is no such layer or head.
    ///
    /// # Errors
    /// If the tensor cannot be indexed.
    pub fn get_head(&self, layer: usize, head: usize) -> Result<Option<Tensor>, ActivationError> {
        match self.get_layer(layer) {
            Some(tensor) if head < tensor.dims()[0] => Ok(Some(tensor.get(head)?)),
            _ => Ok(None),
        }
    }

    /// Number of layers.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.layers.tensors.len()
    }

    /// Whether there is no layer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.tensors.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_float_type_becomes_float32() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let t = Tensor::new(&[0.5f32, -2.0], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            assert_eq!(ActivationCache::new(vec![t]).unwrap().to_f32_vecs().unwrap(), [[0.5, -2.0]]);
        }
    }

    #[test]
    fn wrong_shapes_and_types_are_refused() {
        let t = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let wrong = ActivationCache::new(vec![t(3), t(4)]).unwrap_err().to_string();
        assert_eq!(wrong, "layer 1 has shape [4], the layers before it [3]");
        let ids = Tensor::new(&[1u32, 2], &Device::Cpu).unwrap();
        assert!(matches!(ActivationCache::new(vec![ids]), Err(ActivationError::NotFloat { .. })));
        let matrix = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(ActivationCache::new(vec![matrix.clone()]), Err(ActivationError::Rank { .. })));
        assert!(PositionCache::new(vec![matrix.clone()]).is_ok());
        assert!(AttentionCache::new(vec![matrix]).is_err());
        assert!(ActivationCache::new(vec![]).unwrap().is_empty());
    }
}
