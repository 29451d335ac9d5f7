//! Log-probabilities of tokens: the logarithm of the softmax of the logits, in natural logarithms and without temperature.

use residuum_domain::TokenScore;

/// Scores a token, given the logits `[d_vocab]` of the row before it, and lists the `top` most probable tokens. Exponentials are
/// float32, their sum float64. A logit that is not a number has no probability.
pub fn score(logits: &[f32], token_id: u32, top: usize) -> TokenScore {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().filter(|l| !l.is_nan()).map(|l| f64::from((l - largest).exp())).sum();
    let log_sum = f64::from(largest) + sum.ln();
    #[expect(clippy::cast_possible_truncation, reason = "float32 holds a log-probability well enough")]
    let logprob = |logit: f32| (f64::from(logit) - log_sum) as f32;
    let own = logits.get(token_id as usize).copied().unwrap_or(f32::NAN);
    let top = largest_logits(logits, top).into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
    TokenScore { token_id, logprob: Some(logprob(own)), top }
}

/// The `n` largest logits, largest first; of equal ones, that of the lower id first.
fn largest_logits(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    if n == 0 {
        return best;
    }
    for (id, logit) in (0u32..).zip(logits.iter().copied()) {
        let is_among = best.len() < n || best.last().is_some_and(|(_, least)| logit > *least);
        if is_among && !logit.is_nan() {
            let at = best.partition_point(|(_, other)| *other >= logit);
            best.insert(at, (id, logit));
            best.truncate(n);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_log_softmax() {
        // Probabilities 0.1, 0.4, 0.2, 0.3, of logits shifted by 50.
        let logits = [0.1f32, 0.4, 0.2, 0.3].map(|p| p.ln() + 50.0);
        let scored = score(&logits, 2, 3);
        let close = |got: f32, p: f32| (got - p.ln()).abs() < 1e-5;
        assert!(close(scored.logprob.unwrap(), 0.2), "{scored:?}");
        assert_eq!(scored.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        assert!(scored.top.iter().zip([0.4, 0.3, 0.2]).all(|((_, got), p)| close(*got, p)));
        assert_eq!(scored.top[2].1.to_bits(), scored.logprob.unwrap().to_bits(), "the same number in both places");
    }

    #[test]
    fn equal_logits_are_listed_by_id_and_nan_never() {
        let logits = [1.0, f32::NAN, 2.0, 2.0, f32::NEG_INFINITY];
        let ids = |n| score(&logits, 0, n).top.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(9), [2, 3, 0, 4]);
        assert_eq!(ids(1), [2]);
        assert!(ids(0).is_empty());
        assert!(score(&logits, 1, 0).logprob.unwrap().is_nan());
    }
}
