//! The encoder of an autoencoder: from normalised inputs to feature activations.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::{Kind, Settings, input::Input};
use crate::{checkpoint::Checkpoint, error::LoadError, ops::Linear};

/// The product with `W_enc`, and the activation function. `pre` below is `x · W_enc + b_enc`; gated autoencoders have no such
/// bias.
#[derive(Debug)]
pub(super) struct Encoder {
    linear: Linear,
    rule: Rule,
}

/// The activation function, as in SAELens's `encode`.
#[derive(Debug)]
enum Rule {
    /// `relu(pre)`.
    Relu,
    /// `relu(pre)` where `pre > threshold`, else 0.
    JumpRelu { thresholds: Vec<f32> },
    /// `relu(pre · exp(r_mag) + b_mag)` where `pre + b_gate > 0`, else 0 (Rajamanoharan et al., 2024).
    Gated { b_gate: Vec<f32>, factors: Vec<f32>, b_mag: Vec<f32> },
    /// `relu` of the `k` largest pre-activations of a row; among equal ones, those of lower features. The others are 0. With
    /// `norms`, each pre-activation is multiplied by the length of the feature's decoder row first.
    TopK { k: usize, norms: Option<Vec<f32>> },
}

impl Encoder {
    /// Reads the encoder's tensors; `decoder` is `[d_sae, d_in]`.
    pub(super) fn load(settings: &Settings, checkpoint: &Checkpoint, decoder: &[f32]) -> Result<Self, LoadError> {
        let (d_in, d_sae) = (settings.d_in, settings.d_sae);
        let vector = |name: &str| checkpoint.whole(name, &[d_sae]);
        let mut columns = checkpoint.rows("W_enc", &[d_in, d_sae])?;
        let mut failure = None;
        let linear = Linear::pack_transposed(d_sae, d_in, |k, column| {
            if failure.is_none() {
                failure = columns.row(k, column).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let rule = match settings.kind {
            Kind::Standard => Rule::Relu,
            Kind::JumpRelu => Rule::JumpRelu { thresholds: vector("threshold")? },
            Kind::Gated => {
                let factors = vector("r_mag")?.iter().map(|r| r.exp()).collect();
                Rule::Gated { b_gate: vector("b_gate")?, factors, b_mag: vector("b_mag")? }
            }
            Kind::TopK { k, rescale } => Rule::TopK { k, norms: rescale.then(|| lengths(decoder, d_in)) },
        };
        let bias = match rule {
            Rule::Gated { .. } => None,
            _ => Some(vector("b_enc")?),
        };
        Ok(Self { linear: linear.with_bias(bias), rule })
    }

    /// The lengths of the decoder's rows, if they scale the activations.
    pub(super) fn norms(&self) -> Option<&[f32]> {
        match &self.rule {
            Rule::TopK { norms, .. } => norms.as_deref(),
            _ => None,
        }
    }

    /// The column of `W_enc` that belongs to a feature, `[d_in]`.
    pub(super) fn column(&self, feature: usize, out: &mut [f32]) {
        self.linear.row(feature, out);
    }

    /// Activations `[n, features]` of inputs `[n, d_in]`.
    pub(super) fn encode(&self, inputs: Vec<f32>) -> Vec<f32> {
        let (d_in, width) = (self.linear.in_features(), self.linear.out_features());
        let mut out = vec![0.0; inputs.len() / d_in * width];
        self.linear.forward(&inputs, &mut out);
        out.par_chunks_exact_mut(width).zip(inputs.par_chunks_exact(d_in)).for_each(|(row, input)| {
            if input.first().is_some_and(|x| x.is_nan()) {
                row.fill(f32::NAN);
            } else {
                self.rule.apply(row);
            }
        });
        out
    }

    /// An encoder of some features only; `None` if the other features affect them (TopK).
    fn only(&self, features: &[usize]) -> Option<Self> {
        let pick = |values: &[f32]| features.iter().map(|f| values[*f]).collect::<Vec<f32>>();
        let rule = match &self.rule {
            Rule::Relu => Rule::Relu,
            Rule::JumpRelu { thresholds } => Rule::JumpRelu { thresholds: pick(thresholds) },
            Rule::Gated { b_gate, factors, b_mag } => {
                Rule::Gated { b_gate: pick(b_gate), factors: pick(factors), b_mag: pick(b_mag) }
            }
            Rule::TopK { .. } => return None,
        };
        let d_in = self.linear.in_features();
        let linear = Linear::pack(features.len(), d_in, |i, row| self.linear.row(features[i], row));
        Some(Self { linear: linear.with_bias(self.linear.bias().map(pick)), rule })
    }
}

impl Rule {
    /// Turns the pre-activations of one row into activations.
    fn apply(&self, row: &mut [f32]) {
        match self {
            Self::Relu => row.iter_mut().for_each(|x| *x = x.max(0.0)),
            Self::JumpRelu { thresholds } => {
                row.iter_mut().zip(thresholds).for_each(|(x, t)| *x = if *x > *t { x.max(0.0) } else { 0.0 });
            }
            Self::Gated { b_gate, factors, b_mag } => {
                for (((x, gate), factor), bias) in row.iter_mut().zip(b_gate).zip(factors).zip(b_mag) {
                    *x = if *x + gate > 0.0 { (*x * factor + bias).max(0.0) } else { 0.0 };
                }
            }
            Self::TopK { k, norms } => {
                if let Some(norms) = norms {
                    row.iter_mut().zip(norms).for_each(|(x, norm)| *x *= norm);
                }
                keep_largest(row, *k);
            }
        }
    }
}

/// Keeps the `k` largest numbers that are positive, the first among equal ones, and sets the others to zero. `k` is at least 1.
fn keep_largest(row: &mut [f32], k: usize) {
    if k < row.len() {
        let mut values = row.to_vec();
        let (larger, least, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let least = *least;
        let mut ties = k - larger.iter().filter(|x| x.total_cmp(&least).is_gt()).count();
        for x in row.iter_mut() {
            match x.total_cmp(&least) {
                Ordering::Greater => {}
                Ordering::Equal if ties > 0 => ties -= 1,
                _ => *x = 0.0,
            }
        }
    }
    row.iter_mut().for_each(|x| *x = x.max(0.0));
}

/// Euclidean lengths of the rows of a matrix.
fn lengths(matrix: &[f32], width: usize) -> Vec<f32> {
    let squares = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    #[expect(clippy::cast_possible_truncation, reason = "activations are float32")]
    matrix.chunks_exact(width).map(|row| squares(row).sqrt() as f32).collect()
}

/// Some features of an autoencoder.
#[derive(Debug)]
pub struct Chosen<'a> {
    input: &'a Input,
    all: &'a Encoder,
    alone: Option<Encoder>,
    features: Vec<usize>,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(input: &'a Input, all: &'a Encoder, features: &[usize]) -> Self {
        Self { input, all, alone: all.only(features), features: features.to_vec() }
    }

    /// Number of features that have to be computed for the chosen ones.
    #[must_use]
    pub fn n_computed(&self) -> usize {
        self.alone.as_ref().unwrap_or(self.all).linear.out_features()
    }

    /// The activations `[n, chosen]` of the hook's rows `[n, row_width]`, in the order in which features were chosen. They equal
    /// those of [`super::Sae::encode`], bit for bit.
    #[must_use]
    pub fn encode_rows(&self, rows: &[f32]) -> Vec<f32> {
        let inputs = self.input.normalised(&self.input.targets(rows));
        match &self.alone {
            Some(encoder) => encoder.encode(inputs),
            None => {
                let all = self.all.encode(inputs);
                let width = self.all.linear.out_features();
                all.chunks_exact(width).flat_map(|row| self.features.iter().map(|f| row[*f])).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_and_ties_go_to_the_first() {
        let kept = |k| {
            let mut row = [1.0, 3.0, -2.0, 3.0, 3.0, 0.5];
            keep_largest(&mut row, k);
            row
        };
        assert_eq!(kept(2), [0.0, 3.0, 0.0, 3.0, 0.0, 0.0]);
        assert_eq!(kept(4), [1.0, 3.0, 0.0, 3.0, 3.0, 0.0]);
        assert_eq!(kept(6), [1.0, 3.0, 0.0, 3.0, 3.0, 0.5], "a negative number is not kept");
    }

    #[test]
    fn a_threshold_is_not_passed_by_what_equals_it() {
        let mut row = [0.5, 0.6, -0.1, 0.2];
        Rule::JumpRelu { thresholds: vec![0.5, 0.5, -1.0, 0.0] }.apply(&mut row);
        assert_eq!(row, [0.0, 0.6, 0.0, 0.2]);
        let mut row = [1.0, -1.0, 1.0];
        let (b_gate, factors, b_mag) = (vec![-1.0, 2.0, 0.0], vec![1.0, 1.0, 2.0], vec![0.0, 0.0, 0.5]);
        Rule::Gated { b_gate, factors, b_mag }.apply(&mut row);
        assert_eq!(row, [0.0, 0.0, 2.5]);
    }
}
