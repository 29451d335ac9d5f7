//! The mixture of experts that sparse blocks have in place of a dense MLP (Shazeer et al., 2017).
//!
//! The rows of all inputs are grouped by expert, and each expert's projections run as one product over its rows. The numbers of a
//! row do not depend on the other rows: a product gives a row the same bits whatever the batch, and the outputs of a row's experts
//! are added in the order of the experts.

use super::{
    dense_mlp::Dense,
    stream::{Place, Scratch},
};
use crate::{
    ForwardError,
    architecture::{Architecture, Experts},
    capture::taps::Taps,
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{Linear, attention::softmax_rows, elementwise},
    sources::{ExpertSource, ExpertSources},
};
use residuum_domain::Site;

/// The weights of one mixture.
#[derive(Debug)]
pub struct Sparse {
    pub(crate) spec: Experts,
    pub(crate) router: Linear,
    pub(crate) experts: Vec<Dense>,
    /// The expert that every token goes to, and its gate `[1, d_model]`.
    pub(crate) shared: Option<(Dense, Linear)>,
}

impl Sparse {
    /// Reads the weights.
    pub fn load(
        a: &Architecture,
        spec: Experts,
        sources: &ExpertSources,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LoadError> {
        let d = a.d_model;
        let load = |source: ExpertSource, d_hidden| {
            Dense::load(checkpoint, [d_hidden, d], &source.gate, Some(&source.up), &source.down)
        };
        // Load the router first: its shape shows whether the configuration has the right number of experts.
        let router = sources.router.load(checkpoint, spec.n_experts, d)?;
        let experts = (0..spec.n_experts)
            .map(|e| load(sources.expert(e, spec, checkpoint), spec.d_expert))
            .collect::<Result<_, _>>()?;
        let shared = match (&sources.shared, spec.d_shared) {
            (Some((expert, gate)), Some(d_shared)) => {
                Some((load(expert.clone(), d_shared)?, gate.load(checkpoint, 1, d)?))
            }
            _ => None,
        };
        Ok(Self { spec, router, experts, shared })
    }

    /// Computes `scratch.mlp_out` `[rows, d_model]` from `scratch.mlp_in` `[rows, d_model]`.
    pub fn forward(&self, place: &Place<'_>, scratch: &mut Scratch, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let (a, d) = (place.a, place.a.d_model);
        let routes = self.route(place, &scratch.mlp_in, taps)?;
        let Scratch { mlp_in, gathered, gate, up, spare, mlp_out, .. } = scratch;
        mlp_out.fill(0.0);
        for (expert, route) in self.experts.iter().zip(&routes) {
            if route.rows.is_empty() {
                continue;
            }
            gathered.resize(route.rows.len() * d, 0.0);
            elementwise::gather_rows(mlp_in, d, &route.rows, gathered);
            spare.resize(gathered.len(), 0.0);
            expert.forward(a.activation, gathered, [gate, up], spare, |_, _| Ok(()))?;
            elementwise::scatter_add_rows(spare, d, &route.rows, &route.weights, mlp_out);
        }
        if let Some((expert, shared_gate)) = &self.shared {
            let all = Route::of_all(mlp_in, d, shared_gate);
            spare.resize(mlp_in.len(), 0.0);
            expert.forward(a.activation, mlp_in, [gate, up], spare, |_, _| Ok(()))?;
            elementwise::scatter_add_rows(spare, d, &all.rows, &all.weights, mlp_out);
        }
        Ok(())
    }

    /// Chooses the experts of each row of `x` `[rows, d_model]`, and returns the rows of each expert.
    fn route(&self, place: &Place<'_>, x: &[f32], taps: &mut Taps<'_>) -> Result<Vec<Route>, ForwardError> {
        let Experts { n_experts, top_k, renormalise, .. } = self.spec;
        let mut scores = vec![0.0; x.len() / place.a.d_model * n_experts];
        self.router.forward(x, &mut scores);
        taps.tap(place.hook(Site::RouterLogits), &mut scores, place.set)?;
        softmax_rows(&mut scores, n_experts);
        let mut chosen: Vec<Choice> =
            scores.chunks_exact(n_experts).map(|p| Choice::of(p, top_k, renormalise)).collect();
        let mut weights: Vec<f32> = chosen.iter().flat_map(|c| &c.weights).copied().collect();
        taps.tap(place.hook(Site::ExpertWeights), &mut weights, place.set)?;
        chosen.iter_mut().zip(weights.chunks_exact(top_k)).for_each(|(c, new)| c.weights.copy_from_slice(new));
        #[expect(clippy::cast_precision_loss, reason = "a mixture has fewer than 2^24 experts")]
        let mut indices: Vec<f32> = chosen.iter().flat_map(|c| &c.experts).map(|e| *e as f32).collect();
        taps.tap(place.hook(Site::ExpertIndices), &mut indices, place.set)?;
        Ok(Route::of_choices(&chosen, n_experts))
    }
}

/// The experts of one row, the most probable first, and their weights.
pub struct Choice {
    pub experts: Vec<usize>,
    pub weights: Vec<f32>,
}

impl Choice {
    /// The `top_k` most probable experts; among equally probable ones, those with lower indices.
    pub fn of(probabilities: &[f32], top_k: usize, renormalise: bool) -> Self {
        let mut experts: Vec<usize> = (0..probabilities.len()).collect();
        experts.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        experts.truncate(top_k);
        let mut weights: Vec<f32> = experts.iter().map(|e| probabilities[*e]).collect();
        if renormalise {
            let sum: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        Self { experts, weights }
    }
}

/// The rows of one expert, ascending, and the weights of its outputs.
#[derive(Debug, Clone, Default)]
pub struct Route {
    pub rows: Vec<u32>,
    pub weights: Vec<f32>,
}

impl Route {
    /// The rows of each of `n_experts` experts, given the choice of each row.
    pub fn of_choices(chosen: &[Choice], n_experts: usize) -> Vec<Self> {
        let mut routes = vec![Self::default(); n_experts];
        for (row, choice) in (0u32..).zip(chosen) {
            for (expert, weight) in choice.experts.iter().zip(&choice.weights) {
                routes[*expert].rows.push(row);
                routes[*expert].weights.push(*weight);
            }
        }
        routes
    }

    /// Every row of `x` `[rows, d]`, weighted by the sigmoid of its gate.
    fn of_all(x: &[f32], d: usize, gate: &Linear) -> Self {
        let mut weights = vec![0.0; x.len() / d];
        gate.forward(x, &mut weights);
        weights.iter_mut().for_each(|w| *w = 1.0 / (1.0 + (-*w).exp()));
        Self { rows: (0u32..).take(weights.len()).collect(), weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_experts_are_chosen_best_first() {
        let choice = Choice::of(&[0.1, 0.4, 0.2, 0.3], 3, false);
        assert_eq!(choice.experts, [1, 3, 2]);
        assert_eq!(choice.weights, [0.4, 0.3, 0.2]);
        let choice = Choice::of(&[0.125, 0.5, 0.125, 0.25], 2, true);
        assert_eq!(choice.weights, [0.5 / 0.75, 0.25 / 0.75]);
    }

    #[test]
    fn of_equally_probable_experts_the_lower_index_is_chosen() {
        assert_eq!(Choice::of(&[0.2, 0.3, 0.2, 0.3, 0.0], 3, false).experts, [1, 3, 0]);
    }

    #[test]
    fn numbers_that_are_none_still_choose_different_experts() {
        let choice = Choice::of(&[f32::NAN; 4], 2, true);
        assert_eq!(choice.experts, [0, 1]);
        assert!(choice.weights.iter().all(|w| w.is_nan()));
    }
}
