//! Reproducible shuffles and stratified folds.
//!
//! The algorithm is part of the API, so that a cross-validation can be repeated elsewhere: SplitMix64 (Steele, Lea and Flood
//! 2014) seeded with the request's seed, and Fisher–Yates from the last index down with `next() mod (i + 1)`.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that begins at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = (self.next_u64() % (i as u64 + 1)) as usize;
            items.swap(i, j);
        }
    }
}

/// The fold, 0 to `k` − 1, of each sample. One generator shuffles the indices of the positive samples, then those of the negative
/// ones; the concatenated list is assigned to folds 0, 1, …, k − 1, 0, … in turn. So the sizes of folds differ by at most one, in
/// total and in each class.
#[must_use]
pub fn stratified(labels: &[bool], k: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix64::new(seed);
    let mut folds = vec![0; labels.len()];
    let mut dealt = 0;
    for class in [true, false] {
        let mut members: Vec<usize> = (0..labels.len()).filter(|i| labels[*i] == class).collect();
        random.shuffle(&mut members);
        for i in members {
            folds[i] = dealt % k.max(1);
            dealt += 1;
        }
    }
    folds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // First outputs for seed 1234567, as Vigna's reference program prints them.
        let mut random = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn folds_are_even_in_all_and_in_each_class() {
        let labels: Vec<bool> = (0..53).map(|i| i % 3 == 0).collect();
        let folds = stratified(&labels, 5, 7);
        for class in [None, Some(true), Some(false)] {
            let count = |f: usize| (0..53).filter(|i| folds[*i] == f && class.is_none_or(|c| labels[*i] == c)).count();
            let counts: Vec<usize> = (0..5).map(count).collect();
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        assert_eq!(folds, stratified(&labels, 5, 7));
        assert_ne!(folds, stratified(&labels, 5, 8));
    }
}
