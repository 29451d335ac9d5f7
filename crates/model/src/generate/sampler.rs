//! Sampling: chooses the next token from its logits. It knows logits and a seed, not the model.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use residuum_domain::Generation;

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    greedy: bool,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// The inputs of a run share a seed; `stream` gives each its own random numbers.
    pub fn new(generation: &Generation, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(generation.seed);
        rng.set_stream(stream);
        Self {
            greedy: generation.is_greedy(),
            temperature: generation.temperature,
            top_k: generation.top_k,
            top_p: generation.top_p,
            rng,
        }
    }

    /// The next token, given the logits `[d_vocab]`.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        if self.greedy {
            return argmax(logits);
        }
        let candidates = candidates(logits, self.temperature, self.top_k, self.top_p);
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut left = self.uniform() * total;
        for (token, p) in &candidates {
            left -= p;
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding may leave a remainder; it goes to the last candidate. There are no candidates if every logit is NaN.
        candidates.last().map_or(0, |(token, _)| *token)
    }

    /// A random number in [0, 1), with 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The token with the largest logit; of several, the first.
fn argmax(logits: &[f32]) -> u32 {
    let best = |best: (u32, f32), (i, logit): (u32, &f32)| if *logit > best.1 { (i, *logit) } else { best };
    (0..).zip(logits).fold((0, f32::NEG_INFINITY), best).0
}

/// The candidate tokens with their probabilities, most probable first. The probabilities need not add up to one.
///
/// As in transformers (`logits_process.py`): temperature, then the `top_k` largest logits with all ties of the smallest, then the
/// fewest of these whose probabilities add up to `top_p`.
fn candidates(logits: &[f32], temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Vec<(u32, f64)> {
    let mut kept: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).filter(|(_, logit)| !logit.is_nan()).collect();
    // Ties are ordered by id, so that the order is unique.
    kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if let Some(least) = top_k.and_then(|k| kept.get(k.saturating_sub(1))).map(|(_, logit)| *logit) {
        kept.truncate(kept.partition_point(|(_, logit)| *logit >= least));
    }
    let Some(largest) = kept.first().map(|(_, logit)| f64::from(*logit)) else { return Vec::new() };
    let mut weights: Vec<(u32, f64)> =
        kept.into_iter().map(|(token, logit)| (token, ((f64::from(logit) - largest) / temperature).exp())).collect();
    if let Some(top_p) = top_p {
        let total: f64 = weights.iter().map(|(_, w)| w).sum();
        let mut reached = 0.0;
        let enough = weights.iter().position(|(_, w)| {
            reached += w / total;
            reached >= top_p
        });
        weights.truncate(enough.map_or(weights.len(), |i| i + 1));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(temperature: f64, top_k: Option<usize>, top_p: Option<f64>, seed: u64) -> Generation {
        Generation { max_new_tokens: 1, temperature, top_k, top_p, seed, stop: Vec::new(), sample: 0, n: 1 }
    }

    fn tokens(candidates: &[(u32, f64)]) -> Vec<u32> {
        candidates.iter().map(|(t, _)| *t).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let logits = [0.5, 2.0, f32::NAN, 2.0, -1.0];
        assert_eq!(Sampler::new(&generation(0.0, None, None, 1), 0).choose(&logits), 1);
        assert_eq!(Sampler::new(&generation(3.0, Some(1), None, 1), 0).choose(&logits), 1);
        assert_eq!(argmax(&[f32::NAN; 3]), 0);
    }

    #[test]
    fn candidates_are_those_that_top_k_and_top_p_leave() {
        // Probabilities 0.1, 0.4, 0.2, 0.3.
        let logits = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
        assert_eq!(tokens(&candidates(&logits, 1.0, None, None)), [1, 3, 2, 0]);
        assert_eq!(tokens(&candidates(&logits, 1.0, Some(2), None)), [1, 3]);
        assert_eq!(tokens(&candidates(&logits, 1.0, None, Some(0.65))), [1, 3]);
        assert_eq!(tokens(&candidates(&logits, 1.0, None, Some(0.75))), [1, 3, 2]);
        assert_eq!(tokens(&candidates(&logits, 1.0, None, Some(0.01))), [1]);
        // Of three, renormalised: 4/9, 3/9, 2/9.
        assert_eq!(tokens(&candidates(&logits, 1.0, Some(3), Some(0.75))), [1, 3]);
        // A low temperature sharpens: squares 16, 9, 4, 1 of 30.
        assert_eq!(tokens(&candidates(&logits, 0.5, None, Some(0.5))), [1]);
        // Ties with the least of the k stay.
        assert_eq!(tokens(&candidates(&[1.0, 2.0, 1.0, 0.0], 1.0, Some(2), None)), [1, 0, 2]);
    }

    #[test]
    fn choices_follow_the_probabilities_and_repeat_with_the_seed() {
        let logits = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
        let draw = |seed, stream| {
            let mut sampler = Sampler::new(&generation(1.0, None, None, seed), stream);
            (0..20_000).map(|_| sampler.choose(&logits)).collect::<Vec<_>>()
        };
        let draws = draw(7, 0);
        for (token, p) in [(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)] {
            let share = draws.iter().filter(|t| **t == token).count() as f64 / 20_000.0;
            // Five standard deviations.
            assert!((share - p).abs() < 5.0 * (p * (1.0 - p) / 20_000.0f64).sqrt(), "{token}: {share}");
        }
        assert_eq!(draws, draw(7, 0));
        assert_ne!(draws, draw(8, 0));
        assert_ne!(draws, draw(7, 1));
    }

    #[test]
    fn probabilities_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/warpers.json");
        let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for case in golden.as_array().unwrap() {
            let numbers = |key: &str| case[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
            let logits: Vec<f32> = numbers("logits").map(|v| v as f32).collect();
            let top_k = case["top_k"].as_u64().map(|k| k as usize);
            let kept = candidates(&logits, case["temperature"].as_f64().unwrap(), top_k, case["top_p"].as_f64());
            let total: f64 = kept.iter().map(|(_, w)| w).sum();
            let mut got = vec![0.0; logits.len()];
            kept.iter().for_each(|(token, w)| got[*token as usize] = w / total);
            for (token, (got, expected)) in got.iter().zip(numbers("probabilities")).enumerate() {
                assert!((got - expected).abs() < 1e-6, "token {token}: {got} and {expected} in {case}");
            }
        }
    }
}
