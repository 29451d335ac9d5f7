//! Reads the residual stream as logits without a forward pass: the logit lens (nostalgebraist, 2020), and direct logit attribution,
//! which splits a logit into what each part of the model adds to the stream (Elhage et al., 2021).

use super::{
    architecture::{Residual, Unembedding},
    cpu::transformer::{Transformer, cap},
    ops::{Linear, norm::Norm},
};

/// The end of a model: from a row of the residual stream to logits. It runs on the current rayon pool.
#[derive(Debug, Clone, Copy)]
pub struct Readout<'m> {
    transformer: &'m Transformer,
    unembed: &'m Linear,
    spec: Unembedding,
}

impl<'m> Readout<'m> {
    /// The end of this model.
    ///
    /// # Errors
    /// The reason why the residual stream cannot be read: there is no LM head, or it has a layer of its own before the unembedding.
    pub(super) fn of(transformer: &'m Transformer) -> Result<Self, &'static str> {
        let unembedding = transformer.unembed.as_ref().zip(transformer.architecture().unembedding);
        let (unembed, spec) = unembedding.ok_or("its checkpoint has no LM head")?;
        if transformer.transform.is_some() {
            return Err("its LM head has a layer of its own before the unembedding, so it cannot read a middle layer");
        }
        Ok(Self { transformer, unembed, spec })
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn d_vocab(&self) -> usize {
        self.unembed.out_features()
    }

    /// The softcap, if any: logits become `cap · tanh(logit / cap)`.
    #[must_use]
    pub fn softcap(&self) -> Option<f32> {
        self.spec.softcap
    }

    /// The logits `[rows, d_vocab]` of `rows` `[rows, d_model]` as the model's head computes them: final norm,
    /// unembedding, scale, softcap. For the last block's output they equal the model's logits, bit for bit.
    #[must_use]
    pub fn logits(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = self.uncapped_logits(rows);
        cap(self.spec, &mut out);
        out
    }

    /// [`Self::logits`] before the softcap, where they are linear in the output of the final norm.
    #[must_use]
    pub fn uncapped_logits(&self, rows: &[f32]) -> Vec<f32> {
        let d = self.transformer.architecture().d_model;
        let mut x = rows.to_vec();
        if let Some(norm) = &self.transformer.final_norm {
            norm.forward(rows, d, &mut x);
        }
        let mut out = vec![0.0; rows.len() / d * self.d_vocab()];
        self.transformer.read_out(self.unembed, &mut x, &mut Vec::new(), &mut out);
        out
    }

    /// The parts of the logits that are linear in the residual stream.
    ///
    /// # Errors
    /// The reason why there are none: post-norm blocks normalise the stream itself, so it is not the sum of what was added to it.
    pub fn linear(self) -> Result<LinearReading<'m>, &'static str> {
        if self.transformer.architecture().residual == Residual::PostNorm {
            return Err("its blocks normalise the residual stream itself, so it is not the sum of their outputs");
        }
        Ok(LinearReading { readout: self })
    }
}

/// A model whose residual stream is a sum of contributions. Logits before the softcap are linear in it once the denominators of the
/// norms are fixed. Computes in float64.
#[derive(Debug, Clone, Copy)]
pub struct LinearReading<'m> {
    readout: Readout<'m>,
}

impl<'m> LinearReading<'m> {
    /// The logit of token `id`, scaled and before the softcap, as a linear function of the output of the final norm: its weights
    /// `[d_model]`, and the bias of the unembedding.
    ///
    /// # Panics
    /// When the vocabulary does not have this token.
    #[must_use]
    pub fn token(&self, id: u32) -> (Vec<f64>, f64) {
        let Readout { transformer, unembed, spec } = self.readout;
        let scale = f64::from(spec.scale.unwrap_or(1.0));
        let mut row = vec![0.0; unembed.in_features()];
        unembed.row(id as usize, &mut row);
        let mut bias = unembed.bias().map_or(0.0, |b| f64::from(b[id as usize]));
        let mut weights: Vec<f64> = row.iter().map(|w| f64::from(*w)).collect();
        if let Some((_, project_out)) = &transformer.projections {
            if let Some(b) = project_out.bias() {
                bias += dot(&weights, b);
            }
            weights = through(project_out, &weights);
        }
        weights.iter_mut().for_each(|w| *w *= scale);
        (weights, bias * scale)
    }

    /// Whether the unembedding has a bias.
    #[must_use]
    pub fn has_bias(&self) -> bool {
        let projection = self.readout.transformer.projections.as_ref();
        self.readout.unembed.bias().is_some() || projection.is_some_and(|(_, out)| out.bias().is_some())
    }

    /// The final norm, with the denominator fixed to the one of `row` `[d_model]`.
    #[must_use]
    pub fn final_norm(&self, row: &[f64]) -> FrozenNorm<'m> {
        FrozenNorm::at(self.readout.transformer.final_norm.as_ref(), row)
    }

    /// What each head adds to the output of attention in block `layer`: `[heads, d_model]`, computed from `hook_z`
    /// `[heads, d_head]`. These are the values of `attn.hook_result`.
    #[must_use]
    pub fn head_results(&self, layer: usize, z: &[f32]) -> Vec<f32> {
        let a = self.readout.transformer.architecture();
        let o = &self.readout.transformer.blocks[layer].attention.o;
        let mut out = vec![0.0; a.n_heads * a.d_model];
        for (head, (z, out)) in z.chunks_exact(a.d_head).zip(out.chunks_exact_mut(a.d_model)).enumerate() {
            o.forward_columns(head * a.d_head..(head + 1) * a.d_head, z, out);
        }
        out
    }

    /// The bias of the output projection of attention in block `layer`, `[d_model]`.
    #[must_use]
    pub fn attention_bias(&self, layer: usize) -> Option<&'m [f32]> {
        self.readout.transformer.blocks[layer].attention.o.bias()
    }

    /// The norm after attention in block `layer`, with the denominator fixed to the one of attention's output `row` `[d_model]`,
    /// followed by the residual multiplier. The identity where the block has neither.
    #[must_use]
    pub fn after_attention(&self, layer: usize, row: &[f64]) -> FrozenNorm<'m> {
        let norm = self.readout.transformer.blocks[layer].attention.ln_post.as_ref();
        let factor = self.readout.transformer.architecture().residual_multiplier;
        FrozenNorm { factor: f64::from(factor.unwrap_or(1.0)), ..FrozenNorm::at(norm, row) }
    }
}

/// A norm whose denominator is fixed: an affine function, `(x − [mean x]) / scale · gain + bias`, all times a factor.
#[derive(Debug, Clone, Copy)]
pub struct FrozenNorm<'m> {
    /// The denominator; 1 where there is no norm.
    pub scale: f64,
    centred: bool,
    gain: Option<&'m [f32]>,
    bias: Option<&'m [f32]>,
    factor: f64,
}

impl<'m> FrozenNorm<'m> {
    /// The norm with the denominator of `row`.
    #[expect(clippy::cast_precision_loss, reason = "a row has fewer than 2^52 numbers")]
    fn at(norm: Option<&'m Norm>, row: &[f64]) -> Self {
        let Some(norm) = norm else {
            return Self { scale: 1.0, centred: false, gain: None, bias: None, factor: 1.0 };
        };
        let n = row.len() as f64;
        let (mean, eps, centred) = match norm {
            Norm::Rms(rms) => (0.0, rms.eps, false),
            Norm::Layer(layer) => (row.iter().sum::<f64>() / n, layer.eps, true),
        };
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let (gain, bias) = norm.gain_and_bias();
        Self { scale: (variance + f64::from(eps)).sqrt(), centred, gain, bias, factor: 1.0 }
    }

    /// Whether the norm adds a bias.
    #[must_use]
    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Pulls a linear function back through the norm: given its `weights` on the norm's output, returns its weights on the norm's
    /// input, and the constant that the norm's bias adds.
    #[expect(clippy::cast_precision_loss, reason = "a row has fewer than 2^52 numbers")]
    #[must_use]
    pub fn pull_back(&self, weights: &[f64]) -> (Vec<f64>, f64) {
        let mut back: Vec<f64> = match self.gain {
            Some(gain) => weights.iter().zip(gain).map(|(w, g)| w * f64::from(*g)).collect(),
            None => weights.to_vec(),
        };
        // w·(x − mean x) = (w − mean w)·x
        let mean = if self.centred { back.iter().sum::<f64>() / back.len() as f64 } else { 0.0 };
        back.iter_mut().for_each(|w| *w = (*w - mean) / self.scale * self.factor);
        (back, self.bias.map_or(0.0, |b| dot(weights, b)) * self.factor)
    }
}

/// `Σ weights · x`.
fn dot(weights: &[f64], x: &[f32]) -> f64 {
    weights.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum()
}

/// Pulls a linear function back through a projection: `Wᵀ weights`.
fn through(projection: &Linear, weights: &[f64]) -> Vec<f64> {
    let mut back = vec![0.0; projection.in_features()];
    let mut row = vec![0.0; projection.in_features()];
    for (i, w) in weights.iter().enumerate() {
        projection.row(i, &mut row);
        back.iter_mut().zip(&row).for_each(|(back, x)| *back += w * f64::from(*x));
    }
    back
}
