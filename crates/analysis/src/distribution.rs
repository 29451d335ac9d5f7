//! Distributions over a vocabulary, given by their logits.

use std::cmp::Ordering;

/// The softmax of logits, in float64.
#[derive(Debug, Clone, Copy)]
pub struct Distribution<'a> {
    logits: &'a [f32],
    /// `log Σ exp(logit)`.
    log_sum: f64,
}

impl<'a> Distribution<'a> {
    /// `None` if a logit is NaN or infinite, or there are no logits.
    ///
    /// ```
    /// use residuum_analysis::Distribution;
    /// let even = Distribution::of(&[2.0, 2.0]).unwrap();
    /// assert!((even.probability(0) - 0.5).abs() < 1e-15);
    /// assert!((even.entropy() - 2f64.ln()).abs() < 1e-15);
    /// assert!(Distribution::of(&[f32::NAN]).is_none());
    /// ```
    #[must_use]
    pub fn of(logits: &'a [f32]) -> Option<Self> {
        if logits.is_empty() || !logits.iter().all(|l| l.is_finite()) {
            return None;
        }
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - max).exp()).sum();
        Some(Self { logits, log_sum: max + sum.ln() })
    }

    /// The logit of entry `i`.
    #[must_use]
    pub fn logit(&self, i: usize) -> f32 {
        self.logits[i]
    }

    /// The log-probability of entry `i`, in nats.
    #[must_use]
    pub fn log_probability(&self, i: usize) -> f64 {
        f64::from(self.logits[i]) - self.log_sum
    }

    /// The probability of entry `i`.
    #[must_use]
    pub fn probability(&self, i: usize) -> f64 {
        self.log_probability(i).exp()
    }

    /// Every log-probability, rounded to float32.
    #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
    pub fn log_probabilities(&self) -> impl Iterator<Item = f32> {
        self.logits.iter().map(|l| (f64::from(*l) - self.log_sum) as f32)
    }

    /// `−Σ p log p`, in nats.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        let surprise = |l: &f32| {
            let log_p = f64::from(*l) - self.log_sum;
            -log_p * log_p.exp()
        };
        self.logits.iter().map(surprise).sum::<f64>().max(0.0)
    }

    /// `KL(self ‖ other) = Σ p log(p / q)`, in nats; `other` must have as many entries.
    #[must_use]
    pub fn kl(&self, other: &Self) -> f64 {
        let offset = other.log_sum - self.log_sum;
        let term = |(p, q): (&f32, &f32)| {
            let ratio = f64::from(*p) - f64::from(*q) + offset;
            (f64::from(*p) - self.log_sum).exp() * ratio
        };
        self.logits.iter().zip(other.logits).map(term).sum::<f64>().max(0.0)
    }

    /// The rank of entry `i`, from 0, when entries are sorted by probability; of equal ones, the lower index comes first.
    #[must_use]
    pub fn rank(&self, i: usize) -> usize {
        let own = self.logits[i];
        self.logits.iter().enumerate().filter(|(j, l)| **l > own || (**l == own && *j < i)).count()
    }

    /// The `k` most probable entries, the most probable first; of equal ones, the lower index first.
    #[must_use]
    pub fn top(&self, k: usize) -> Vec<usize> {
        let before = |a: &usize, b: &usize| {
            let by_logit = self.logits[*b].partial_cmp(&self.logits[*a]);
            by_logit.unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        let mut order: Vec<usize> = (0..self.logits.len()).collect();
        let k = k.min(order.len());
        if k > 0 && k < order.len() {
            order.select_nth_unstable_by(k, before);
        }
        order.truncate(k);
        order.sort_unstable_by(before);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Vec<f32> {
        (0..100u8).map(|i| (f32::from(i) * 0.7).sin() * 4.0).collect()
    }

    #[test]
    fn the_top_and_the_ranks_are_one_order() {
        let mut logits = logits();
        logits[7] = logits[3];
        let p = Distribution::of(&logits).unwrap();
        let all = p.top(200);
        assert_eq!(all.len(), 100);
        for (rank, i) in all.iter().enumerate() {
            assert_eq!(p.rank(*i), rank);
        }
        assert_eq!(p.top(5), all[..5]);
        assert!(p.top(0).is_empty());
        assert!(p.rank(3) < p.rank(7), "of equals the lower index comes first");
    }

    #[test]
    fn probabilities_add_up_and_a_divergence_is_of_two() {
        let (a, b) = (logits(), logits().into_iter().rev().collect::<Vec<_>>());
        let (p, q) = (Distribution::of(&a).unwrap(), Distribution::of(&b).unwrap());
        assert!(((0..100).map(|i| p.probability(i)).sum::<f64>() - 1.0).abs() < 1e-12);
        let cross: f64 = (0..100).map(|i| -p.probability(i) * q.log_probability(i)).sum();
        assert!((p.kl(&q) - (cross - p.entropy())).abs() < 1e-12);
        assert!(p.kl(&p).abs() < 1e-15);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let p = Distribution::of(&[1e4, 0.0, -1e4]).unwrap();
        assert_eq!((p.probability(0), p.probability(2), p.entropy()), (1.0, 0.0, 0.0));
        assert!(Distribution::of(&[0.0, f32::INFINITY]).is_none());
        assert!(Distribution::of(&[]).is_none());
    }
}
