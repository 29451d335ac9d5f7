//! Keeps the k best of many entries; the key breaks ties.

use std::{cmp::Ordering, collections::BinaryHeap};

/// The `k` entries with the highest goodness so far; of equal ones, those with smaller keys.
#[derive(Debug, Clone)]
pub struct Best<K> {
    k: usize,
    /// The worst entry is on top.
    heap: BinaryHeap<Entry<K>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry<K> {
    goodness: f32,
    key: K,
}

impl<K: Ord> Ord for Entry<K> {
    /// Worse entries are greater.
    fn cmp(&self, other: &Self) -> Ordering {
        other.goodness.total_cmp(&self.goodness).then_with(|| self.key.cmp(&other.key))
    }
}

impl<K: Ord> PartialOrd for Entry<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> PartialEq for Entry<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K: Ord> Eq for Entry<K> {}

impl<K: Ord + Copy> Best<K> {
    /// An empty ranking.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    /// Adds an entry if it is among the best; NaN and infinities never are.
    #[inline]
    pub fn offer(&mut self, goodness: f32, key: K) {
        if self.heap.len() >= self.k && self.heap.peek().is_none_or(|worst| goodness < worst.goodness) {
            return;
        }
        if goodness.is_finite() {
            // -0 and 0 are equal, so that the keys break the tie
            self.insert(Entry { goodness: goodness + 0.0, key });
        }
    }

    fn insert(&mut self, entry: Entry<K>) {
        if self.heap.len() < self.k {
            self.heap.push(entry);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && entry < *worst
        {
            *worst = entry;
        }
    }

    /// Merges two rankings.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        other.heap.into_iter().for_each(|entry| self.insert(entry));
        self
    }

    /// The entries, best first, as goodness and key.
    #[must_use]
    pub fn into_sorted(self) -> Vec<(f32, K)> {
        self.heap.into_sorted_vec().into_iter().map(|e| (e.goodness, e.key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_out_in_order_and_ties_by_key() {
        let offered = [(1.0, 9), (2.0, 5), (f32::NAN, 0), (2.0, 4), (f32::INFINITY, 1), (0.0, 3), (-0.0, 2), (1.0, 7)];
        for k in 0..8 {
            let (mut left, mut right) = (Best::new(k), Best::new(k));
            for (i, (goodness, key)) in offered.iter().enumerate() {
                if i % 2 == 0 { left.offer(*goodness, *key) } else { right.offer(*goodness, *key) }
            }
            let keys: Vec<i32> = left.merged(right).into_sorted().into_iter().map(|(_, key)| key).collect();
            assert_eq!(keys, [4, 5, 7, 9, 2, 3][..k.min(6)]);
        }
    }
}
